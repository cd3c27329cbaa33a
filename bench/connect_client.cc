// SPDX-License-Identifier: Apache-2.0
// What a new TCP connection costs a program: the client of the connection benchmarks.
//
//   connect_client --mode connect|connect-close|echo --address ADDRESS --port PORT[,PORT...]
//                  [--threads N] [--count N | --seconds S] [--warmup N] [--rate R] [--nonblocking]
//                  [--start-at TIME]
//
//   connect        times connect() alone
//   connect-close  times socket(), connect() and close()
//   echo           times socket(), connect(), one byte there and back, close()
//
// Without --rate each thread works in a closed loop: the next connection starts when the last one is closed.
// So whatever holds a connection up also keeps others from being started that would have been held up as
// well, and is counted once: fit for the price of one connection, not for what users of a service would meet.
//
// With --rate the loop is open: R connections in a second, all threads together, are due at fixed times, and
// each is timed from when it was due, whether or not its thread could begin then. A thread that is still busy
// begins its next one late, at once when it can: these are counted (late_starts), with how late they were;
// many of them say that there are too few threads for this rate. One that has slept begins when the timer has
// woken it (wake_p50_ns), which is part of its time. What is due within --seconds and could not even begin is
// not in the percentiles, which are too good then: not_started.
//
// Connections are closed by a reset (SO_LINGER with zero seconds), so that no port is lost to TIME_WAIT.
// Of several ports each connection takes the next one, each thread by itself.
// `--count` and `--warmup` are per thread; warming up is always a closed loop. With --nonblocking a
// connection is finished by poll() and SO_ERROR, as event loops do it.
//
// Prints one JSON object (times in nanoseconds; a percentile is null when the samples cannot carry it). Exit
// status 0 if any connection succeeded, 1 if none did, 2 for a wrong use. Linked statically: it runs in any
// root filesystem.

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/clock.h"
#include "bench/histogram.h"

namespace shunt::bench {
namespace {

enum class Mode { kConnect, kConnectClose, kEcho };

constexpr const char* kModeNames[] = {"connect", "connect-close", "echo"};

struct Options {
  Mode mode = Mode::kConnectClose;
  const char* address = nullptr;
  const char* ports = "";
  int threads = 1;
  int64_t count = 0;  // per thread; 0: as many as fit into `seconds`
  double seconds = 2;
  int64_t warmup = 100;
  double rate = 0;  // connections per second of all threads together; 0: a closed loop
  bool nonblocking = false;
  double start_at = 0;  // seconds of the realtime clock; 0: at once
  std::vector<sockaddr_storage> peers;
  socklen_t peer_length = 0;
};

constexpr int64_t kHeadStart = 1'000'000;  // nanoseconds

struct Outcome {
  Histogram samples;
  Histogram late_starts;  // open loop: how late, of those whose thread was busy when they were due
  Histogram wakes;        // the same of the others, which is the timer's doing
  int64_t not_started = 0;
  std::map<int, int64_t> errors;  // errno -> how often
  int64_t begin = 0;
  int64_t end = 0;
  double late = 0;
};

// Each step returns 0 or the errno that ended the connection.
int FinishNonblockingConnect(int fd) {
  pollfd waiting{fd, POLLOUT, 0};
  int ready;
  do {
    ready = poll(&waiting, 1, 10'000);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return ETIMEDOUT;
  if (ready < 0) return errno;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

int Connect(int fd, const sockaddr_storage& peer, const Options& options) {
  if (connect(fd, reinterpret_cast<const sockaddr*>(&peer), options.peer_length) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  return FinishNonblockingConnect(fd);
}

int EchoOneByte(int fd, bool nonblocking) {
  char byte = 'x';
  if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) return errno;
  pollfd waiting{fd, POLLIN, 0};
  const int timeout_ms = 10'000;
  if (nonblocking && poll(&waiting, 1, timeout_ms) != 1) return ETIMEDOUT;
  const ssize_t got = recv(fd, &byte, 1, 0);
  if (got == 1) return 0;
  return got == 0 ? ECONNRESET : errno;
}

// One connection, the `turn`th. `start` is called where the time begins that the mode is about, and returns
// that time. Returns 0 or an errno; `nanoseconds` is what the mode times.
template <typename Start>
int Once(const Options& options, int64_t turn, Start start, int64_t& nanoseconds) {
  const sockaddr_storage& peer = options.peers[static_cast<size_t>(turn) % options.peers.size()];
  int64_t begin = options.mode == Mode::kConnect ? 0 : start();
  const int type = SOCK_STREAM | SOCK_CLOEXEC | (options.nonblocking ? SOCK_NONBLOCK : 0);
  const int fd = socket(peer.ss_family, type, 0);
  if (fd < 0) return errno;
  // A peer that never answers must end a run with a number of errors, not hang it.
  const timeval give_up{10, 0};
  const linger reset{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (!options.nonblocking && options.mode == Mode::kEcho) {
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &give_up, sizeof give_up);
  }
  if (options.mode == Mode::kConnect) begin = start();
  int error = Connect(fd, peer, options);
  int64_t end = Now();
  if (error == 0 && options.mode == Mode::kEcho) error = EchoOneByte(fd, options.nonblocking);
  close(fd);
  if (options.mode != Mode::kConnect) end = Now();
  nanoseconds = end - begin;
  return error;
}

// Waits until `start_at`; returns how many seconds it is past already.
double WaitFor(double start_at) {
  if (start_at == 0) return 0;
  timespec until;
  until.tv_sec = static_cast<time_t>(start_at);
  until.tv_nsec = static_cast<long>((start_at - static_cast<double>(until.tv_sec)) * 1e9);
  while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9 - start_at;
}

// Sleeps until `due` if that is to come; returns it.
int64_t StartAt(int64_t due, Outcome& outcome) {
  const int64_t late = Now() - due;
  if (late > 0) {
    outcome.late_starts.Add(late);
    return due;
  }
  const timespec until{.tv_sec = due / 1'000'000'000, .tv_nsec = due % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
  outcome.wakes.Add(Now() - due);
  return due;
}

void Run(const Options& options, int thread, std::barrier<>& start, Outcome& outcome) {
  int64_t nanoseconds = 0;
  for (int64_t i = 0; i < options.warmup; ++i) Once(options, i, Now, nanoseconds);
  prctl(PR_SET_TIMERSLACK, 1);
  start.arrive_and_wait();
  outcome.late = WaitFor(options.start_at);
  // Nobody is late for the first one of an open loop.
  outcome.begin = Now() + (options.rate > 0 ? kHeadStart : 0);
  const int64_t deadline = outcome.begin + static_cast<int64_t>(options.seconds * 1e9);
  // A thousand failures say as much as a million.
  constexpr int64_t kFailuresEnough = 1000;
  int64_t failures = 0;
  for (int64_t i = 0; failures < kFailuresEnough; ++i) {
    const bool open = options.rate > 0;
    // The threads take turns.
    const double number = static_cast<double>(i * options.threads + thread);
    const int64_t due = open ? outcome.begin + static_cast<int64_t>(number * 1e9 / options.rate) : 0;
    if (options.count > 0 ? i >= options.count : (open ? due : Now()) >= deadline) break;
    if (open && options.count == 0 && Now() >= deadline) {
      const double each = options.rate / options.threads;
      outcome.not_started = static_cast<int64_t>(static_cast<double>(deadline - due) / 1e9 * each) + 1;
      break;
    }
    const int error = open ? Once(
                                 options, i, [&] { return StartAt(due, outcome); }, nanoseconds)
                           : Once(options, i, Now, nanoseconds);
    if (error == 0) {
      outcome.samples.Add(nanoseconds);
    } else {
      ++outcome.errors[error];
      ++failures;
    }
  }
  outcome.end = Now();
}

std::string TellOpenLoop(const Outcome& all) {
  const auto number = [](const std::optional<int64_t>& value) {
    return value ? std::to_string(*value) : std::string("null");
  };
  return ", \"late_starts\": " + std::to_string(all.late_starts.size()) +
         ", \"late_p50_ns\": " + number(all.late_starts.Percentile(0.5)) +
         ", \"late_max_ns\": " + std::to_string(all.late_starts.most()) +
         ", \"not_started\": " + std::to_string(all.not_started) +
         ", \"wake_p50_ns\": " + number(all.wakes.Percentile(0.5)) +
         ", \"wake_max_ns\": " + std::to_string(all.wakes.most());
}

void Print(const Options& options, const Outcome& all, int64_t overhead) {
  const double seconds = static_cast<double>(all.end - all.begin) / 1e9;
  const double rate = seconds > 0 ? static_cast<double>(all.samples.size()) / seconds : 0;
  std::string errors;
  for (const auto& [error, times] : all.errors) {
    errors += (errors.empty() ? "\"" : ", \"") + std::string(strerrorname_np(error)) +
              "\": " + std::to_string(times);
  }
  std::printf(
      "{\"mode\": \"%s\", \"loop\": \"%s\", \"family\": \"%s\", \"threads\": %d, \"nonblocking\": %s, "
      "\"seconds\": %.6f, \"per_second\": %.1f, \"late\": %.3f%s, \"overhead_ns\": %lld, %s, "
      "\"errors\": {%s}}\n",
      kModeNames[static_cast<int>(options.mode)], options.rate > 0 ? "open" : "closed",
      options.peers[0].ss_family == AF_INET ? "ipv4" : "ipv6", options.threads,
      options.nonblocking ? "true" : "false", seconds, rate, all.late,
      options.rate > 0 ? TellOpenLoop(all).c_str() : "", static_cast<long long>(overhead),
      all.samples.JsonFields().c_str(), errors.c_str());
}

bool ParsePeers(Options& options) {
  sockaddr_storage peer{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&peer);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&peer);
  const bool is_v4 = inet_pton(AF_INET, options.address, &v4->sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, options.address, &v6->sin6_addr) != 1) return false;
  peer.ss_family = is_v4 ? AF_INET : AF_INET6;
  options.peer_length = is_v4 ? sizeof *v4 : sizeof *v6;
  for (const char* next = options.ports;; ++next) {
    char* end;
    const long port = std::strtol(next, &end, 10);
    if (port < 1 || port > 65535 || (*end != ',' && *end != 0)) return false;
    (is_v4 ? v4->sin_port : v6->sin6_port) = htons(static_cast<uint16_t>(port));
    options.peers.push_back(peer);
    next = end;
    if (*next == 0) return true;
  }
}

bool ParseMode(const char* text, Mode& mode) {
  for (int i = 0; i < 3; ++i) {
    if (std::strcmp(text, kModeNames[i]) == 0) {
      mode = static_cast<Mode>(i);
      return true;
    }
  }
  return false;
}

// Returns what is wrong, or nullptr.
const char* ParseOptions(int argc, char** argv, Options& options) {
  const option kLong[] = {{"mode", required_argument, nullptr, 'm'},
                          {"address", required_argument, nullptr, 'a'},
                          {"port", required_argument, nullptr, 'p'},
                          {"threads", required_argument, nullptr, 't'},
                          {"count", required_argument, nullptr, 'n'},
                          {"seconds", required_argument, nullptr, 's'},
                          {"warmup", required_argument, nullptr, 'w'},
                          {"nonblocking", no_argument, nullptr, 'b'},
                          {"start-at", required_argument, nullptr, 'r'},
                          {"rate", required_argument, nullptr, 'o'},
                          {nullptr, 0, nullptr, 0}};
  int letter;
  while ((letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1) {
    switch (letter) {
      case 'm':
        if (!ParseMode(optarg, options.mode)) return "--mode is connect, connect-close or echo";
        break;
      case 'a':
        options.address = optarg;
        break;
      case 'p':
        options.ports = optarg;
        break;
      case 't':
        options.threads = std::atoi(optarg);
        break;
      case 'n':
        options.count = std::atoll(optarg);
        break;
      case 's':
        options.seconds = std::atof(optarg);
        break;
      case 'w':
        options.warmup = std::atoll(optarg);
        break;
      case 'r':
        options.start_at = std::atof(optarg);
        break;
      case 'o':
        options.rate = std::atof(optarg);
        if (!(options.rate > 0 && options.rate <= 1e7)) return "--rate must be more than 0, in a second";
        break;
      case 'b':
        options.nonblocking = true;
        break;
      default:
        return "unknown option";
    }
  }
  if (optind != argc) return "unexpected argument";
  if (options.address == nullptr || !ParsePeers(options))
    return "--address must be a numeric IPv4 or IPv6 address, and each --port 1 to 65535";
  if (options.threads < 1 || options.threads > 1024) return "--threads must be 1 to 1024";
  if (options.count < 0 || options.warmup < 0 || options.seconds <= 0 || options.start_at < 0)
    return "numbers must be positive";
  return nullptr;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  Options options;
  if (const char* wrong = ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "connect_client: %s\n", wrong);
    return 2;
  }
  const int64_t overhead = ClockOverhead();
  std::barrier<> start(options.threads);
  std::vector<Outcome> outcomes(static_cast<size_t>(options.threads));
  std::vector<std::thread> threads;
  for (int i = 0; i < options.threads; ++i)
    threads.emplace_back([&, i] { Run(options, i, start, outcomes[static_cast<size_t>(i)]); });
  for (std::thread& thread : threads) thread.join();
  Outcome all;
  all.begin = outcomes[0].begin;
  for (Outcome& outcome : outcomes) {
    all.samples.Merge(outcome.samples);
    all.late_starts.Merge(outcome.late_starts);
    all.wakes.Merge(outcome.wakes);
    all.not_started += outcome.not_started;
    for (const auto& [error, times] : outcome.errors) all.errors[error] += times;
    all.begin = std::min(all.begin, outcome.begin);
    all.end = std::max(all.end, outcome.end);
    all.late = std::max(all.late, outcome.late);
  }
  Print(options, all, overhead);
  return all.samples.size() > 0 ? 0 : 1;
}
