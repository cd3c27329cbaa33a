// SPDX-License-Identifier: Apache-2.0
// Words that take what is somebody else's: ports of the host, options, signals, namespaces.

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>

#include "tests/hostile/attacker/attacker.h"

namespace attacker {
namespace {

constexpr long kSocketCall32 = 102;
constexpr long kBind32 = 361;
constexpr long kListen32 = 363;
constexpr uint32_t kCallBind = 2;
constexpr uint32_t kCallListen = 4;
constexpr int kSoDetachBpf = SO_DETACH_FILTER;

long SetInt(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof(value));
}

int GetInt(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  getsockopt(fd, level, name, &value, &size);
  return value;
}

// Every way to take a filter off or to have another one.
void Detach(Attack& attack) {
  sock_filter accept_all[] = {{BPF_RET | BPF_K, 0, 0, 0xffffffff}};
  const sock_fprog classic = {.len = 1, .filter = accept_all};
  Note(attack, "SO_LOCK_FILTER", SetInt(attack.fd, SOL_SOCKET, SO_LOCK_FILTER, 0));
  Note(attack, "SO_DETACH_FILTER", SetInt(attack.fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
  Note(attack, "SO_DETACH_BPF", SetInt(attack.fd, SOL_SOCKET, kSoDetachBpf, 0));
  Note(attack, "SO_ATTACH_FILTER",
       setsockopt(attack.fd, SOL_SOCKET, SO_ATTACH_FILTER, &classic, sizeof(classic)));
  Note(attack, "SO_ATTACH_REUSEPORT_CBPF",
       setsockopt(attack.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &classic, sizeof(classic)));
  Note(attack, "no-device", setsockopt(attack.fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
  Note(attack, "no-index", SetInt(attack.fd, SOL_SOCKET, 62, 0));  // SO_BINDTOIFINDEX
}

// A loose source route over the target.
long SourceRoute(const Attack& attack) {
  unsigned char option[8] = {131, 7, 4};
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(attack.target.storage);
  memcpy(option + 3, &v4.sin_addr, 4);
  return setsockopt(attack.fd, IPPROTO_IP, IP_OPTIONS, option, sizeof(option));
}

// A type 2 routing header over the target.
long RoutingHeader(const Attack& attack) {
  unsigned char header[24] = {0, 2, 2, 1};
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(attack.target.storage);
  memcpy(header + 8, &v6.sin6_addr, 16);
  return setsockopt(attack.fd, IPPROTO_IPV6, IPV6_RTHDR, header, sizeof(header));
}

// A process that has this number here, if the kernel lets us ask for one.
pid_t ForkAs(pid_t pid) {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<uintptr_t>(&pid);
  arguments.set_tid_size = 1;
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

// Signals of the socket are to go to whoever has this number, here or outside.
void Own(Attack& attack, int pid) {
  // Make sure that the number exists here, or it is refused.
  if (kill(pid, 0) != 0 && ForkAs(pid) == 0) {
    while (true) pause();
  }
  // Who may not ask for a number waits for it, a part of the time that an attack has.
  const time_t end = time(nullptr) + 5;
  while (kill(pid, 0) != 0 && time(nullptr) < end) {
    const pid_t child = fork();
    if (child == 0) {
      if (getpid() == pid) pause();
      _exit(0);
    }
    if (child != pid) waitpid(child, nullptr, 0);
  }
  Note(attack, "F_SETSIG", fcntl(attack.fd, F_SETSIG, SIGKILL));
  Note(attack, "F_SETOWN", fcntl(attack.fd, F_SETOWN, pid));
  Note(attack, "O_ASYNC", fcntl(attack.fd, F_SETFL, O_ASYNC));
}

// Goes where the socket lives, and makes a new one there.
void SocketsNetwork(Attack& attack) {
  const int network = ioctl(attack.fd, SIOCGSKNS);
  if (!Note(attack, "SIOCGSKNS", network)) return;
  if (!Note(attack, "setns", setns(network, CLONE_NEWNET))) return;
  attack.fd = socket(attack.target.storage.ss_family, SOCK_STREAM, 0);
}

// Binds to a source port of all addresses.
long Source(const Attack& attack, int port) {
  Address source = ParseAddress("0.0.0.0:" + std::to_string(port));
  return bind(attack.fd, source.get(), source.size);
}

Address WithoutFamily(const Address& address) {
  Address copy = address;
  copy.storage.ss_family = AF_UNSPEC;
  return copy;
}

long SocketCall(uint32_t call, uint32_t first, uint32_t second, uint32_t third) {
  const uint32_t words[] = {first, second, third};
  return Int80(kSocketCall32, static_cast<long>(call), static_cast<long>(LowCopy(words, sizeof(words))), 0);
}

void Show(Attack& attack) {
  char congestion[16] = "";
  socklen_t size = sizeof(congestion);
  getsockopt(attack.fd, IPPROTO_TCP, TCP_CONGESTION, congestion, &size);
  attack.notes += " mark:" + std::to_string(GetInt(attack.fd, SOL_SOCKET, SO_MARK));
  attack.notes += " priority:" + std::to_string(GetInt(attack.fd, SOL_SOCKET, SO_PRIORITY));
  attack.notes += " rcvbuf:" + std::to_string(GetInt(attack.fd, SOL_SOCKET, SO_RCVBUF));
  attack.notes += " transparent:" + std::to_string(GetInt(attack.fd, IPPROTO_IP, IP_TRANSPARENT));
  attack.notes += std::string(" congestion:") + congestion;
}

long Take(Attack& attack, const std::string& word, bool& known) {
  const int fd = attack.fd;
  const Address& target = attack.target;
  const auto number = [&] { return atoi(word.c_str() + word.find(':') + 1); };
  if (word == "share") return SetInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (word == "device-lo") return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2);
  if (word == "mark") return SetInt(fd, SOL_SOCKET, SO_MARK, 77);
  if (word == "priority") return SetInt(fd, SOL_SOCKET, SO_PRIORITY, 9);
  if (word == "big-buffer") return SetInt(fd, SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20);
  if (word == "transparent") return SetInt(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
  if (word == "freebind") return SetInt(fd, IPPROTO_IP, IP_FREEBIND, 1);
  if (word == "repair") return SetInt(fd, IPPROTO_TCP, TCP_REPAIR, 1);
  if (word == "unrepair") return SetInt(fd, IPPROTO_TCP, TCP_REPAIR, 0);
  if (word == "tls") return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3);
  if (word == "source-route") return SourceRoute(attack);
  if (word == "routing-header") return RoutingHeader(attack);
  if (word.rfind("congestion:", 0) == 0) {
    const std::string name = word.substr(11);
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size()));
  }
  if (word.rfind("source:", 0) == 0) return Source(attack, number());
  if (word == "bind") return bind(fd, target.get(), target.size);
  if (word == "bind-unspec") {
    const Address address = WithoutFamily(target);
    return bind(fd, address.get(), address.size);
  }
  if (word == "bind-blind") {
    return bind(fd, static_cast<const sockaddr*>(BlindCopy(&target.storage, target.size)), target.size);
  }
  if (word == "int80-bind") return Int80(kBind32, fd, LowCopy(&target.storage, target.size), target.size);
  if (word == "socketcall-bind") {
    return SocketCall(kCallBind, static_cast<uint32_t>(fd), LowCopy(&target.storage, target.size),
                      target.size);
  }
  if (word == "listen") return listen(fd, 8);
  if (word == "int80-listen") return Int80(kListen32, fd, 8, 0);
  if (word == "socketcall-listen") return SocketCall(kCallListen, static_cast<uint32_t>(fd), 8, 0);
  known = false;
  return 0;
}

}  // namespace

bool TakingWord(Attack& attack, const std::string& word) {
  if (word == "detach") {
    Detach(attack);
  } else if (word == "network") {
    SocketsNetwork(attack);
  } else if (word == "show") {
    Show(attack);
  } else if (word == "signal") {
    // What is sent comes back, and is signalled.
    Note(attack, word, send(attack.fd, "x", 1, MSG_NOSIGNAL));
    usleep(50'000);
  } else if (word.rfind("own:", 0) == 0) {
    Own(attack, atoi(word.c_str() + 4));
  } else {
    bool known = true;
    const long result = Take(attack, word, known);
    if (!known) return false;
    Note(attack, word, result);
  }
  return true;
}

}  // namespace attacker
