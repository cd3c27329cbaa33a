// SPDX-License-Identifier: Apache-2.0
// The sockets, processes and threads that the parity cases are made of. See guest.h for what each promises.
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

constexpr int kPatienceMs = 5000;

volatile sig_atomic_t g_signals = 0;

[[noreturn]] void Abandon(const char* what) {
  Fact("abandoned", "%s (%s)", what, ErrnoName(errno));
  _exit(98);
}

void CountOne(int) {
  g_signals = g_signals + 1;
}

}  // namespace

const char* ErrnoName(int error) {
  struct Name {
    int error;
    const char* name;
  };
#define NAME(symbol) \
  { symbol, #symbol }
  static const Name kNames[] = {
      NAME(EPERM),         NAME(ENOENT),          NAME(ESRCH),        NAME(EINTR),
      NAME(EIO),           NAME(EBADF),           NAME(ECHILD),       NAME(EAGAIN),
      NAME(ENOMEM),        NAME(EACCES),          NAME(EFAULT),       NAME(EBUSY),
      NAME(EEXIST),        NAME(ENODEV),          NAME(ENOTDIR),      NAME(EISDIR),
      NAME(EINVAL),        NAME(EMFILE),          NAME(ENOTTY),       NAME(ENOSPC),
      NAME(ESPIPE),        NAME(EPIPE),           NAME(EDOM),         NAME(ERANGE),
      NAME(ENAMETOOLONG),  NAME(ENOSYS),          NAME(ELOOP),        NAME(ENOMSG),
      NAME(ENODATA),       NAME(EPROTO),          NAME(EBADMSG),      NAME(EOVERFLOW),
      NAME(ENOTSOCK),      NAME(EDESTADDRREQ),    NAME(EMSGSIZE),     NAME(EPROTOTYPE),
      NAME(ENOPROTOOPT),   NAME(EOPNOTSUPP),      NAME(EADDRINUSE),   NAME(EPROTONOSUPPORT),
      NAME(ECONNABORTED),  NAME(ESOCKTNOSUPPORT), NAME(EPFNOSUPPORT), NAME(EAFNOSUPPORT),
      NAME(EADDRNOTAVAIL), NAME(ENETDOWN),        NAME(ENETUNREACH),  NAME(ENETRESET),
      NAME(ECONNRESET),    NAME(ENOBUFS),         NAME(EISCONN),      NAME(ENOTCONN),
      NAME(ESHUTDOWN),     NAME(ETIMEDOUT),       NAME(ECONNREFUSED), NAME(EHOSTDOWN),
      NAME(EHOSTUNREACH),  NAME(EALREADY),        NAME(EINPROGRESS),  NAME(ECANCELED),
  };
#undef NAME
  if (error == 0) return "0";
  for (const Name& entry : kNames) {
    if (entry.error == error) return entry.name;
  }
  static char number[24];
  snprintf(number, sizeof number, "errno %d", error);
  return number;
}

const char* World(const char* key) {
  static thread_local char value[64];
  const char* world = getenv("PARITY_WORLD");
  if (world == nullptr) Abandon("PARITY_WORLD is not set: the driver tests/parity/run sets it");
  const size_t length = strlen(key);
  for (const char* at = world; *at != '\0'; ++at) {
    if ((at != world && at[-1] != ' ') || strncmp(at, key, length) != 0 || at[length] != '=') continue;
    size_t size = 0;
    for (const char* from = at + length + 1; *from != '\0' && *from != ' ' && size + 1 < sizeof value;
         ++from) {
      value[size++] = *from;
    }
    value[size] = '\0';
    return value;
  }
  Abandon(key);
}

int Port(const char* service) {
  return atoi(World(service));
}

Address V4(const char* address, int port) {
  Address result;
  auto* in = reinterpret_cast<sockaddr_in*>(&result.storage);
  in->sin_family = AF_INET;
  in->sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, address, &in->sin_addr) != 1) Abandon(address);
  result.length = sizeof *in;
  return result;
}

Address V6(const char* address, int port) {
  Address result;
  auto* in6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET6, address, &in6->sin6_addr) != 1) Abandon(address);
  result.length = sizeof *in6;
  return result;
}

Address Mapped(const char* address_v4, int port) {
  char text[80];
  snprintf(text, sizeof text, "::ffff:%s", address_v4);
  return V6(text, port);
}

// The port first: World() has one buffer.
Address HostAt(const char* service) {
  const int port = Port(service);
  return V4(World("host"), port);
}
Address PeerAt(const char* service) {
  const int port = Port(service);
  return V4(World("peer"), port);
}
Address HostAt6(const char* service) {
  const int port = Port(service);
  return V6(World("host6"), port);
}
Address PeerAt6(const char* service) {
  const int port = Port(service);
  return V6(World("peer6"), port);
}
Address VoidAt(int port) {
  return V4(World("void"), port);
}

Address Unspecified() {
  Address result;
  result.storage.ss_family = AF_UNSPEC;
  result.length = sizeof(sockaddr_in);
  return result;
}

Address LocalOf(int fd) {
  Address result;
  result.length = sizeof result.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&result.storage), &result.length) != 0) result.length = 0;
  return result;
}

Address RemoteOf(int fd) {
  Address result;
  result.length = sizeof result.storage;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&result.storage), &result.length) != 0) result.length = 0;
  return result;
}

int PortOf(const Address& address) {
  // The port is at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

int Tcp(int family, int flags) {
  const int fd = socket(family, SOCK_STREAM | flags, 0);
  if (fd < 0) Abandon("socket");
  return fd;
}

int Connect(int fd, const Address& address) {
  return connect(fd, address.get(), address.length);
}
int Bind(int fd, const Address& address) {
  return bind(fd, address.get(), address.length);
}

int Listener(const Address& address, int backlog) {
  const int fd = Tcp(address.storage.ss_family, SOCK_CLOEXEC);
  if (Bind(fd, address) != 0) Abandon("bind a listener");
  if (listen(fd, backlog) != 0) Abandon("listen");
  return fd;
}

short WaitFor(int fd, short events) {
  pollfd one = {fd, events, 0};
  const int64_t end = NowMs() + kPatienceMs;
  while (true) {
    const int64_t left = end - NowMs();
    const int ready = poll(&one, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready > 0) return one.revents;
    if (ready == 0) return 0;
    if (errno != EINTR) Abandon("poll");
  }
}

int Option(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

int SetOption(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value);
}

int TakeError(int fd) {
  const int saved = errno;
  const int error = Option(fd, SOL_SOCKET, SO_ERROR);
  errno = saved;
  return error;
}

ssize_t ReadFully(int fd, void* buffer, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = recv(fd, static_cast<char*>(buffer) + done, size - done, MSG_DONTWAIT);
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got < 0 && errno == EAGAIN && WaitFor(fd, POLLIN) != 0) {
      continue;
    } else if (got < 0 && done == 0) {
      return -1;
    } else {
      break;
    }
  }
  return static_cast<ssize_t>(done);
}

void Talk(const char* name, int fd) {
  static const char kWords[] = "bytes that come back";
  char back[sizeof kWords] = {};
  if (send(fd, kWords, sizeof kWords, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof kWords)) {
    Fact(name, "send/%s", ErrnoName(errno));
    return;
  }
  const ssize_t got = ReadFully(fd, back, sizeof back);
  if (got < 0) {
    Fact(name, "recv/%s", ErrnoName(errno));
  } else if (static_cast<size_t>(got) != sizeof back || memcmp(back, kWords, sizeof back) != 0) {
    Fact(name, "%ld of %zu bytes", static_cast<long>(got), sizeof back);
  } else {
    Fact(name, "echoed");
  }
}

static void PrintAddress(const char* name, const Address& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.length == 0) {
    Fact(name, "-1/%s", ErrnoName(errno));
  } else if (address.storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr, text, sizeof text);
    Fact(name, "%s%s", text, PortOf(address) != 0 ? "" : ":0");
  } else if (address.storage.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr, text,
              sizeof text);
    Fact(name, "[%s]%s", text, PortOf(address) != 0 ? "" : ":0");
  } else {
    Fact(name, "family %d", address.storage.ss_family);
  }
}

void Where(int fd) {
  const int saved = errno;
  PrintAddress("local", LocalOf(fd));
  PrintAddress("peer", RemoteOf(fd));
  errno = saved;
}

void ConnectAndWait(int fd, const Address& address) {
  Step("connect", Connect(fd, address));
  const short events = WaitFor(fd, POLLOUT);
  Fact("events", "%#x", events & (POLLOUT | POLLERR | POLLHUP | POLLIN));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
}

int Gate(int after_ms) {
  const int fd = Tcp();
  char text[32] = {};
  if (Connect(fd, PeerAt("gate")) != 0) Abandon("connect to the gate service");
  snprintf(text, sizeof text, "%d\n", after_ms);
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) Abandon("ask for a gate");
  if (ReadFully(fd, text, 6) != 6) Abandon("read a gate's port");
  close(fd);
  return atoi(text);
}

const char* StateOf(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return ErrnoName(errno);
  switch (info.tcpi_state) {
    case TCP_ESTABLISHED:
      return "ESTABLISHED";
    case TCP_SYN_SENT:
      return "SYN_SENT";
    case TCP_SYN_RECV:
      return "SYN_RECV";
    case TCP_FIN_WAIT1:
    case TCP_FIN_WAIT2:
      return "FIN_WAIT";
    case TCP_TIME_WAIT:
      return "TIME_WAIT";
    case TCP_CLOSE:
      return "CLOSE";
    case TCP_CLOSE_WAIT:
      return "CLOSE_WAIT";
    case TCP_LAST_ACK:
      return "LAST_ACK";
    case TCP_LISTEN:
      return "LISTEN";
    case TCP_CLOSING:
      return "CLOSING";
    default:
      return "unknown";
  }
}

int WaitChild(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) Abandon("waitpid");
  }
  return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

void ExecSelf(const char* entry, const char* argument) {
  execl("/proc/self/exe", "guest", "--entry", entry, argument, static_cast<char*>(nullptr));
  Abandon("exec myself");
}

void Thread::Start() {
  pthread_t id{};
  if (pthread_create(&id, nullptr, body, argument) != 0) Abandon("pthread_create");
  static_assert(sizeof id <= sizeof handle);
  memcpy(&handle, &id, sizeof id);
}

void Thread::Join() {
  pthread_t id{};
  memcpy(&id, &handle, sizeof id);
  pthread_join(id, nullptr);
}

void SleepMs(int milliseconds) {
  timespec left = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

int SendFd(int channel, int fd) {
  char byte = 'f';
  iovec part = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(channel, &message, 0) == 1 ? 0 : -1;
}

int ReceiveFd(int channel) {
  char byte = 0;
  iovec part = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(channel, &message, 0) != 1) return -1;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

void Count(int signal, int flags) {
  struct sigaction action {};
  action.sa_handler = CountOne;
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
}

int Counted() {
  return g_signals;
}

void AlarmIn(int milliseconds) {
  itimerval timer{};
  timer.it_value.tv_sec = milliseconds / 1000;
  timer.it_value.tv_usec = (milliseconds % 1000) * 1000;
  setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace parity
