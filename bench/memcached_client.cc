// SPDX-License-Identifier: Apache-2.0
// Requests to a memcached, on connections that stay: what memtier_benchmark does by default, which Debian 12
// does not have.
//
//   memcached_client --address ADDRESS --port PORT [--threads N] [--pipeline N] [--seconds S]
//
// Each thread has one connection and writes --pipeline requests at a time, then reads their answers: ten gets
// to each set, of 32 bytes, in the text protocol. Keys are set before anything is timed, so every get finds
// its value; an answer that is not the expected one ends the measurement. A sample is the time of one such
// batch.
//
// Prints one JSON object, times in nanoseconds, and exits with 0; 1 and one line if anything failed; 2 for a
// wrong use. Linked statically: it runs in any root filesystem.

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/clock.h"
#include "bench/histogram.h"

namespace shunt::bench {
namespace {

constexpr int kKeys = 1000;
constexpr int kGetsForEachSet = 10;
constexpr std::string_view kValue = "0123456789abcdef0123456789abcdef";
static_assert(kValue.size() == 32);

struct Load {
  sockaddr_in server{};
  int threads = 8;
  int pipeline = 1;
  double seconds = 2;
};

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "memcached_client: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

// What is written, and what has to come back.
struct Batch {
  std::string requests, answers;

  void Set(int key) {
    requests += "set key-" + std::to_string(key) + " 0 0 32\r\n" + std::string(kValue) + "\r\n";
    answers += "STORED\r\n";
  }
  void Get(int key) {
    requests += "get key-" + std::to_string(key) + "\r\n";
    answers += "VALUE key-" + std::to_string(key) + " 0 32\r\n" + std::string(kValue) + "\r\nEND\r\n";
  }
};

class Connection {
 public:
  explicit Connection(const sockaddr_in& server) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    const timeval give_up{10, 0};
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &give_up, sizeof give_up);
    if (connect(fd_, reinterpret_cast<const sockaddr*>(&server), sizeof server) != 0) Die("connect");
  }
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Exchange(const Batch& batch) {
    if (send(fd_, batch.requests.data(), batch.requests.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(batch.requests.size()))
      Die("send");
    answer_.resize(batch.answers.size());
    if (recv(fd_, answer_.data(), answer_.size(), MSG_WAITALL) != static_cast<ssize_t>(answer_.size()))
      Die("recv");
    errno = EBADMSG;
    if (answer_ != batch.answers) Die("not the answer that was expected");
  }

 private:
  int fd_;
  std::string answer_;
};

// All batches that there are, made before anything is timed: requests in turn, until they come round.
std::vector<Batch> MakeBatches(int pipeline) {
  std::vector<Batch> batches;
  int request = 0;
  do {
    Batch& batch = batches.emplace_back();
    for (int i = 0; i < pipeline; ++i, ++request) {
      const int key = request * 7 % kKeys;
      if (request % (kGetsForEachSet + 1) == kGetsForEachSet) {
        batch.Set(key);
      } else {
        batch.Get(key);
      }
    }
  } while (request < (kGetsForEachSet + 1) * 100);
  return batches;
}

void Run(const Load& load, const std::vector<Batch>& batches, Histogram& samples, int64_t& end) {
  Connection connection(load.server);
  const int64_t deadline = Now() + static_cast<int64_t>(load.seconds * 1e9);
  for (size_t i = 0; (end = Now()) < deadline; ++i) {
    connection.Exchange(batches[i % batches.size()]);
    samples.Add(Now() - end);
  }
}

int Measure(const Load& load) {
  Connection first(load.server);
  for (int key = 0; key < kKeys; ++key) {
    Batch one;
    one.Set(key);
    first.Exchange(one);
  }
  const std::vector<Batch> batches = MakeBatches(load.pipeline);
  std::vector<Histogram> samples(static_cast<size_t>(load.threads));
  std::vector<int64_t> ends(samples.size());
  std::vector<std::thread> threads;
  const int64_t begin = Now();
  for (size_t i = 0; i < samples.size(); ++i)
    threads.emplace_back([&, i] { Run(load, batches, samples[i], ends[i]); });
  for (std::thread& thread : threads) thread.join();
  Histogram all;
  int64_t end = begin + 1;
  for (size_t i = 0; i < samples.size(); ++i) {
    all.Merge(samples[i]);
    end = std::max(end, ends[i]);
  }
  const double requests = static_cast<double>(all.size()) * load.pipeline;
  std::printf("{%s, \"overhead_ns\": %lld, \"per_second\": %.1f}\n", all.JsonFields().c_str(),
              static_cast<long long>(ClockOverhead()), requests * 1e9 / static_cast<double>(end - begin));
  return 0;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  shunt::bench::Load load;
  load.server.sin_family = AF_INET;
  const option names[] = {
      {"address", required_argument, nullptr, 'a'}, {"port", required_argument, nullptr, 'p'},
      {"threads", required_argument, nullptr, 't'}, {"pipeline", required_argument, nullptr, 'n'},
      {"seconds", required_argument, nullptr, 's'}, {}};
  bool wrong = false;
  for (int one; (one = getopt_long(argc, argv, "", names, nullptr)) != -1;) {
    if (one == 'a') wrong = inet_pton(AF_INET, optarg, &load.server.sin_addr) != 1 || wrong;
    if (one == 'p') load.server.sin_port = htons(static_cast<uint16_t>(std::atoi(optarg)));
    if (one == 't') load.threads = std::atoi(optarg);
    if (one == 'n') load.pipeline = std::atoi(optarg);
    if (one == 's') load.seconds = std::atof(optarg);
    if (one == '?') wrong = true;
  }
  if (wrong || load.server.sin_addr.s_addr == 0 || load.server.sin_port == 0 || load.threads < 1 ||
      load.threads > 1024 || load.pipeline < 1 || load.pipeline > 1000 || load.seconds <= 0 ||
      optind != argc) {
    std::fprintf(
        stderr,
        "usage: memcached_client --address IPV4 --port PORT [--threads N] [--pipeline N] [--seconds S]\n");
    return 2;
  }
  return shunt::bench::Measure(load);
}
