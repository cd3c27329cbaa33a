// SPDX-License-Identifier: Apache-2.0
// Words that make the socket, have it moved to the host's network, and get it loose there.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include "tests/hostile/attacker/attacker.h"

namespace attacker {
namespace {

constexpr int kPatienceMs = 2000;
constexpr int kExchangeRounds = 100;
constexpr time_t kExchangeSeconds = 3;

const char* Environment(const char* name) {
  const char* const value = getenv(name);
  return value == nullptr ? "" : value;
}

bool SetBlocking(int fd, bool blocking) {
  const int flags = fcntl(fd, F_GETFL);
  return fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0;
}

// A connect that does not hang: started, and waited for a while.
long ConnectWithin(int fd, const Address& address, int milliseconds) {
  SetBlocking(fd, false);
  long result = connect(fd, address.get(), address.size);
  if (result != 0 && errno == EINPROGRESS) {
    pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
    int error = ETIMEDOUT;
    socklen_t size = sizeof(error);
    if (poll(&writable, 1, milliseconds) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    result = error == 0 ? 0 : -1;
    errno = error;
  }
  return result;
}

long Disconnect(int fd) {
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  return connect(fd, &nobody, sizeof(nobody));
}

uint64_t NetworkOf(int fd) {
  constexpr int kSoNetnsCookie = 71;
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(fd, SOL_SOCKET, kSoNetnsCookie, &cookie, &size);
  return cookie;
}

// Says whether the socket is in another network than those that are made here.
void NoteNetwork(Attack& attack) {
  const int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  attack.notes += NetworkOf(own) == NetworkOf(attack.fd) ? " network=own" : " network=other";
  close(own);
}

void NewSocket(Attack& attack) {
  if (attack.fd >= 0) close(attack.fd);
  attack.fd = socket(attack.target.storage.ss_family, SOCK_STREAM, 0);
}

// Connects another socket to a listener of our own on the port that is published for us, which is the host's;
// what is accepted there becomes the socket.
void Accepted(Attack& attack) {
  const Address inside = ParseAddress(Environment("PUBLISHED_INSIDE"));
  const Address outside = ParseAddress(Environment("PUBLISHED_OUTSIDE"));
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (!Note(attack, "bind-published", bind(listener, inside.get(), inside.size))) return;
  listen(listener, 4);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  if (!Note(attack, "call", ConnectWithin(client, outside, kPatienceMs))) return;
  attack.fd = accept(listener, nullptr, nullptr);
  close(client);
  close(listener);
  NoteNetwork(attack);
}

// A listener on the published port that has stopped to listen.
void PublishedAndShutDown(Attack& attack) {
  const Address inside = ParseAddress(Environment("PUBLISHED_INSIDE"));
  NewSocket(attack);
  const int one = 1;
  setsockopt(attack.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (!Note(attack, "bind-published", bind(attack.fd, inside.get(), inside.size))) return;
  listen(attack.fd, 4);
  NoteNetwork(attack);
  Note(attack, "shutdown", shutdown(attack.fd, SHUT_RDWR));
}

// A connect that nobody answers, ended by shutdown.
void ShutDownWhileConnecting(Attack& attack) {
  NewSocket(attack);
  SetBlocking(attack.fd, false);
  const Address silent = ParseAddress(Environment("SILENT"));
  connect(attack.fd, silent.get(), silent.size);
  NoteNetwork(attack);
  Note(attack, "shutdown", shutdown(attack.fd, SHUT_RDWR));
  Note(attack, "unspec", Disconnect(attack.fd));
}

// True if a socket that connects is moved to another network.
bool IsMoved(const Attack& attack) {
  const int own = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int connecting = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ConnectWithin(connecting, Allowed(attack), kPatienceMs);
  const bool moved = NetworkOf(own) != NetworkOf(connecting);
  close(own);
  close(connecting);
  return moved;
}

// Shows the engine a socket that is none any more when it takes it, until the engine leaves us alone.
void ExchangeUnderItsHands(Attack& attack) {
  const int number = socket(AF_INET, SOCK_STREAM, 0);
  const int sock = socket(AF_INET, SOCK_STREAM, 0);
  int ends[2];
  if (pipe(ends) != 0) return;
  std::atomic<bool> stop = false;
  std::thread exchange([&] {
    while (!stop) {
      dup2(ends[0], number);
      dup2(sock, number);
    }
  });
  const time_t end = time(nullptr) + kExchangeSeconds;
  int rounds = 0;
  do {
    for (int i = 0; i < 500; ++i) listen(number, 1);
  } while (++rounds < kExchangeRounds && time(nullptr) < end && IsMoved(attack));
  stop = true;
  exchange.join();
  attack.notes += " exchange:" + std::to_string(rounds);
}

}  // namespace

Address ParseAddress(const std::string& text) {
  Address address;
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return address;
  const auto port = htons(static_cast<uint16_t>(atoi(text.c_str() + colon + 1)));
  if (text[0] == '[') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = port;
    inet_pton(AF_INET6, text.substr(1, colon - 2).c_str(), &v6.sin6_addr);
    address.size = sizeof(v6);
  } else {
    auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
    v4.sin_family = AF_INET;
    v4.sin_port = port;
    inet_pton(AF_INET, text.substr(0, colon).c_str(), &v4.sin_addr);
    address.size = sizeof(v4);
  }
  return address;
}

Address Allowed(const Attack& attack) {
  return ParseAddress(Environment(attack.target.storage.ss_family == AF_INET6 ? "ALLOWED6" : "ALLOWED4"));
}

bool SocketWord(Attack& attack, const std::string& word) {
  if (word == "socket") {
    NewSocket(attack);
  } else if (word == "allowed") {  // connects to whom we may connect
    Note(attack, word, ConnectWithin(attack.fd, Allowed(attack), kPatienceMs));
    NoteNetwork(attack);
  } else if (word == "twin") {
    NewSocket(attack);
    return SocketWord(attack, "allowed");
  } else if (word == "refused") {
    NewSocket(attack);
    Address closed = Allowed(attack);
    reinterpret_cast<sockaddr_in&>(closed.storage).sin_port = htons(9);
    // Blocking, for then the socket may be used again at once.
    Note(attack, word, connect(attack.fd, closed.get(), closed.size));
    NoteNetwork(attack);
  } else if (word == "unspec") {
    Note(attack, word, Disconnect(attack.fd));
  } else if (word == "accepted") {
    Accepted(attack);
  } else if (word == "published-shutdown") {
    PublishedAndShutDown(attack);
  } else if (word == "connecting-shutdown") {
    ShutDownWhileConnecting(attack);
  } else if (word == "exchange") {
    ExchangeUnderItsHands(attack);
  } else {
    return false;
  }
  return true;
}

void* BlindCopy(const void* bytes, size_t size) {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(page, bytes, size);
  mprotect(page, 4096, PROT_WRITE);
  return page;
}

uint32_t LowCopy(const void* bytes, size_t size) {
  void* const page =
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_32BIT | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(page, bytes, size);
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(page));
}

}  // namespace attacker
