// SPDX-License-Identifier: Apache-2.0
// What a container does while its engine is killed and replaced: connects, all the time.
//
//   caller ADDRESS PORT THREADS STOP_FILE
//
// Each thread connects, sends a byte, wants it back and closes, until STOP_FILE exists; every second thread
// has nonblocking sockets and finishes by poll(2) and SO_ERROR. One more connection is made at the beginning
// and used all the time. Prints one JSON object: how many connects, what failed, and how long the longest
// connect took. Linked statically: it runs in any root filesystem.

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Outcome {
  uint64_t connects = 0;
  int64_t longest_ns = 0;
  std::map<std::string, uint64_t> failures;

  bool Failed(const char* what) {
    ++failures[std::string(what) + ": " + std::strerror(errno)];
    return false;
  }
};

int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// A connection to nobody who answers must not keep the test for ever; far beyond any engine's restart.
constexpr int kPatienceMs = 60'000;

bool WaitFor(int fd, short events) {
  pollfd ready{fd, events, 0};
  const int count = poll(&ready, 1, kPatienceMs);
  if (count == 0) errno = ETIMEDOUT;
  return count == 1;
}

bool Echo(int fd, Outcome& outcome) {
  char byte = 'x';
  if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) return outcome.Failed("send");
  if (!WaitFor(fd, POLLIN)) return outcome.Failed("wait for the echo");
  const ssize_t got = recv(fd, &byte, 1, 0);
  if (got == 0) errno = ECONNRESET;
  return got == 1 || outcome.Failed("recv");
}

bool Connect(int fd, const sockaddr_in& peer, bool nonblocking, Outcome& outcome) {
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer);
  if (!nonblocking) return result == 0 || outcome.Failed("connect");
  if (result == 0) errno = EISCONN;  // natively it is never that fast
  if (errno != EINPROGRESS) return outcome.Failed("nonblocking connect");
  if (!WaitFor(fd, POLLOUT)) return outcome.Failed("wait for the connection");
  socklen_t size = sizeof errno;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &errno, &size);
  return errno == 0 || outcome.Failed("SO_ERROR");
}

// One connection's life. No port is lost to TIME_WAIT: it ends by a reset.
void CallOnce(const sockaddr_in& peer, bool nonblocking, Outcome& outcome) {
  const int fd = socket(AF_INET, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0);
  const linger reset{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  const int64_t begin = Now();
  const bool connected = Connect(fd, peer, nonblocking, outcome);
  outcome.longest_ns = std::max(outcome.longest_ns, Now() - begin);
  ++outcome.connects;
  if (connected) Echo(fd, outcome);
  close(fd);
}

void Print(const Outcome& all, uint64_t echoes) {
  std::printf("{\"connects\": %llu, \"echoes\": %llu, \"longest_us\": %lld, \"failures\": {",
              static_cast<unsigned long long>(all.connects), static_cast<unsigned long long>(echoes),
              static_cast<long long>(all.longest_ns / 1000));
  const char* separator = "";
  for (const auto& [what, times] : all.failures) {
    std::printf("%s\"%s\": %llu", separator, what.c_str(), static_cast<unsigned long long>(times));
    separator = ", ";
  }
  std::printf("}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[2])));
  if (inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) return 2;
  const char* const stop = argv[4];
  const auto threads_wanted = static_cast<size_t>(std::atoi(argv[3]));
  std::vector<Outcome> outcomes(threads_wanted + 1);

  Outcome& steady = outcomes[threads_wanted];
  uint64_t echoes = 0;
  const int old_friend = socket(AF_INET, SOCK_STREAM, 0);
  if (Connect(old_friend, peer, false, steady)) ++steady.connects;

  std::vector<std::thread> threads;
  for (size_t i = 0; i < threads_wanted; ++i) {
    threads.emplace_back([&, i] {
      while (access(stop, F_OK) != 0) CallOnce(peer, i % 2 == 1, outcomes[i]);
    });
  }
  std::printf("calling\n");
  std::fflush(stdout);
  while (access(stop, F_OK) != 0 && Echo(old_friend, steady)) ++echoes;
  for (std::thread& thread : threads) thread.join();

  Outcome all;
  for (const Outcome& one : outcomes) {
    all.connects += one.connects;
    all.longest_ns = std::max(all.longest_ns, one.longest_ns);
    for (const auto& [what, times] : one.failures) all.failures[what] += times;
  }
  Print(all, echoes);
}
