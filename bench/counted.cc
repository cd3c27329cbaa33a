// SPDX-License-Identifier: Apache-2.0
// What a connect costs shunt, counted and not timed: system calls, context switches, calls of the heap,
// instructions, and CPU time of both sides.
//
//   counted --address ADDRESS --port PORT [--connects N] [--nonblocking] [--heap LIBRARY] -- SHUNT run
//   [OPTIONS...] counted --address ADDRESS --port PORT [--connects N] [--nonblocking]
//
// Has `shunt run` start a client, this program again, which connects to ADDRESS and PORT and closes, one
// connection after the other, and looks at the engine meanwhile: first N connections of which the kernel and
// LIBRARY (bench/heap_counts) keep account, then N with every thread of the engine under ptrace, which
// changes everything but the calls. Whatever the engine's other threads do for these connections (sockets
// made in advance, above all) is in the sums. Works for whoever may run the command; without a command it is
// the client alone, natively, and there is nothing to count on the other side.
//
// Two system calls are no part of the sums, as they come of being traced: rt_sigreturn and timer_settime, of
// the timer that bounds how long a reactor waits for one target (core/patience.h).
//
// Prints one JSON object: figures for each connection, of the `reactors` (threads "shunt-N"), of the
// `other_threads` of the engine, and of the `client`. What this machine does not tell is null, with a reason
// (system_calls_why, heap_calls_why, instructions_why). cpu_ns.machine is what all CPUs were busy with, in
// ticks: from some thousand connections on it says something. Exit status 0; 1 and one line if it could not
// be counted, 2 for a wrong use.

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/accounts.h"
#include "bench/heap_counts.h"
#include "bench/instructions.h"
#include "bench/tracer.h"

namespace shunt::bench {
namespace {

using nlohmann::json;

constexpr int kWarmUp = 200;       // connections: the engine's pools and caches are as they will be
constexpr int kTracedWarmUp = 20;  // the same after its threads have been stopped once

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "counted: %s\n", what.c_str());
  std::exit(1);
}

struct Options {
  std::string address;
  int port = 0;
  int connects = 1000;
  std::string heap_library;
  bool is_client = false;
  bool nonblocking = false;
  std::vector<std::string> command;
};

// ---- the client, in the container

bool ConnectAndClose(const sockaddr_storage& peer, socklen_t size, bool nonblocking) {
  const int fd = socket(peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
  const linger reset{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  bool connected = connect(fd, reinterpret_cast<const sockaddr*>(&peer), size) == 0;
  if (!connected && nonblocking && errno == EINPROGRESS) {
    pollfd waiting{fd, POLLOUT, 0};
    const int timeout_ms = 10'000;
    connected = poll(&waiting, 1, timeout_ms) == 1 && waiting.revents == POLLOUT;
  }
  close(fd);
  return connected;
}

// For each line with a number on standard input: makes so many connections, and says how many failed.
int BeClient(const Options& options) {
  prctl(PR_SET_NAME, "counted-client");
  sockaddr_storage peer{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(peer);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(peer);
  socklen_t size = 0;
  if (inet_pton(AF_INET, options.address.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    size = sizeof v4;
  } else if (inet_pton(AF_INET6, options.address.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    size = sizeof v6;
  } else {
    Die("--address must be a numeric IPv4 or IPv6 address");
  }
  v4.sin_port = htons(static_cast<uint16_t>(options.port));  // sin6_port lies at the same place
  int wanted;
  while (std::scanf("%d", &wanted) == 1) {
    int failed = 0;
    for (int i = 0; i < wanted; ++i) failed += ConnectAndClose(peer, size, options.nonblocking) ? 0 : 1;
    std::printf("%d\n", failed);
    std::fflush(stdout);
  }
  return 0;
}

// ---- outside

// The client and what it runs in.
class Subject {
 public:
  Subject(const Options& options, const std::string& heap_counts) {
    std::array<int, 2> down, up;
    if (pipe2(down.data(), O_CLOEXEC) != 0 || pipe2(up.data(), O_CLOEXEC) != 0) Die("pipe");
    std::vector<std::string> words = options.command;
    if (!words.empty()) words.emplace_back("--");
    words.push_back(OurProgram());
    words.emplace_back("--client");
    if (options.nonblocking) words.emplace_back("--nonblocking");
    words.push_back("--address=" + options.address);
    words.push_back("--port=" + std::to_string(options.port));
    pid_ = fork();
    if (pid_ < 0) Die("fork");
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      dup2(down[0], STDIN_FILENO);
      dup2(up[1], STDOUT_FILENO);
      if (!heap_counts.empty()) {
        setenv("LD_PRELOAD", options.heap_library.c_str(), 1);
        setenv(kHeapCountsVariable, heap_counts.c_str(), 1);
      }
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      execvp(arguments[0], arguments.data());
      Die(words[0] + ": " + std::strerror(errno));
    }
    close(down[0]);
    close(up[1]);
    to_ = down[1];
    from_ = up[0];
  }

  pid_t pid() const { return pid_; }
  int answers() const { return from_; }

  void Order(int connects) const {
    const std::string line = std::to_string(connects) + "\n";
    if (write(to_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) Die("the client is gone");
  }
  void Await() const {
    std::string line;
    char byte;
    while (read(from_, &byte, 1) == 1 && byte != '\n') line += byte;
    if (line.empty()) Die("the client has ended");
    if (line != "0") Die(line + " connections failed");
  }
  void Connect(int connects) const {
    Order(connects);
    Await();
  }
  // The client ends, and everything with it. Somebody has to take care of who is traced: `tracer`.
  void End(Tracer& tracer) const {
    close(to_);
    tracer.CountUntilReadable(from_);  // the end of the client
    close(from_);
    kill(pid_, SIGTERM);
    tracer.CountUntilReadable(-1);
    waitpid(pid_, nullptr, 0);
  }

 private:
  // By its path: /proc/self is somebody else in there.
  static std::string OurProgram() {
    std::array<char, 4096> path{};
    if (readlink("/proc/self/exe", path.data(), path.size() - 1) < 0) Die("readlink /proc/self/exe");
    return path.data();
  }

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
};

// A file for heap_counts.cc, with a name that everybody in there finds. Gone with this object.
class HeapFile {
 public:
  explicit HeapFile(bool wanted) {
    if (!wanted) return;
    const char* const folder = getenv("TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/counted.XXXXXX";
    const int file = mkstemp(path_.data());
    if (file < 0 || ftruncate(file, sizeof(HeapCounts)) != 0) Die(path_ + ": " + std::strerror(errno));
    counts_ = static_cast<HeapCounts*>(mmap(nullptr, sizeof(HeapCounts), PROT_READ, MAP_SHARED, file, 0));
    close(file);
    if (counts_ == MAP_FAILED) Die("mmap");
  }
  ~HeapFile() {
    if (counts_ != nullptr) unlink(path_.c_str());
  }
  HeapFile(const HeapFile&) = delete;
  HeapFile& operator=(const HeapFile&) = delete;

  const std::string& path() const { return path_; }
  // A thread has several slots if its process has executed another program meanwhile.
  std::map<pid_t, uint64_t> Read() const {
    std::map<pid_t, uint64_t> calls;
    for (size_t i = 0; counts_ != nullptr && i < HeapCounts::kSlots && counts_->slots[i].tid != 0; ++i)
      calls[counts_->slots[i].tid] += counts_->slots[i].calls;
    return calls;
  }

 private:
  std::string path_;
  HeapCounts* counts_ = nullptr;
};

// Everything that accounts say at one moment.
struct Moment {
  std::map<pid_t, ThreadAccount> engine, client;
  std::map<pid_t, uint64_t> heap, instructions;
  uint64_t machine = 0;
  std::optional<uint64_t> group;
};

class Counting {
 public:
  explicit Counting(const Options& options)
      : options_(options), heap_(!options.heap_library.empty()), subject_(options, heap_.path()) {
    subject_.Connect(kWarmUp);
    client_ = options.command.empty() ? subject_.pid() : FindDescendant(subject_.pid(), "counted-client");
    if (client_ == 0) Die("the client is not to be found among the command's processes");
    if (options.command.empty()) return;
    engine_ = FindDescendant(subject_.pid(), "shunt-engine");
    if (engine_ == 0) Die("the command has no engine (a process \"shunt-engine\"): is it `shunt run`?");
  }

  json Run() {
    json result = {{"connects", options_.connects}};
    KeepAccount(result);
    if (engine_ != 0) CountCalls(result);
    subject_.End(tracer_);
    return result;
  }

 private:
  bool IsReactor(const std::string& name) const {
    return name.rfind("shunt-", 0) == 0 && name.find_first_not_of("0123456789", 6) == std::string::npos;
  }
  const char* KindOf(const std::string& name) const { return IsReactor(name) ? "reactors" : "other_threads"; }
  double PerConnect(uint64_t count) const {
    return static_cast<double>(count) / static_cast<double>(options_.connects);
  }

  Moment Look() const {
    Moment moment;
    moment.machine = MachineBusyNs();
    moment.group = ControlGroupNs();
    if (engine_ != 0) moment.engine = ThreadAccounts(engine_);
    moment.client = ThreadAccounts(client_);
    moment.heap = heap_.Read();
    moment.instructions = instructions_.Read();
    return moment;
  }

  static json NothingYet() { return {{"reactors", 0.0}, {"other_threads", 0.0}}; }

  // Adds what `after` has more than `before`, for each thread of the engine.
  json Difference(const Moment& after, const std::map<pid_t, uint64_t>& from,
                  const std::map<pid_t, uint64_t>& to) const {
    std::map<std::string, uint64_t> sums;
    for (const auto& [tid, account] : after.engine) {
      const auto begin = from.find(tid), end = to.find(tid);
      if (end != to.end())
        sums[KindOf(account.name)] += end->second - (begin != from.end() ? begin->second : 0);
    }
    json told = NothingYet();
    for (const auto& [kind, sum] : sums) told[kind] = PerConnect(sum);
    return told;
  }

  void KeepAccount(json& result) {
    std::string no_instructions = engine_ == 0 ? "no engine" : "";
    for (const auto& [tid, account] : ThreadAccounts(engine_ != 0 ? engine_ : client_)) {
      if (no_instructions.empty()) no_instructions = instructions_.Watch(tid);
    }
    const Moment before = Look();
    subject_.Connect(options_.connects);
    const Moment after = Look();

    json& switches = result["switches"] = json::object();
    json& cpu = result["cpu_ns"] = json::object();
    const auto add = [&](const char* kind, const ThreadAccount& from, const ThreadAccount& to) {
      const auto sum = [&](json& into, uint64_t more) {
        into = (into.is_number() ? into.get<double>() : 0.0) + PerConnect(more);
      };
      sum(switches[kind]["voluntary"], to.voluntary_switches - from.voluntary_switches);
      sum(switches[kind]["involuntary"], to.involuntary_switches - from.involuntary_switches);
      sum(cpu[kind], to.cpu_ns - from.cpu_ns);
    };
    for (const auto& [tid, to] : after.engine) {
      const auto from = before.engine.find(tid);
      add(KindOf(to.name), from != before.engine.end() ? from->second : ThreadAccount{}, to);
    }
    for (const auto& [tid, to] : after.client) {
      const auto from = before.client.find(tid);
      add("client", from != before.client.end() ? from->second : ThreadAccount{}, to);
    }
    cpu["machine"] = PerConnect(after.machine - before.machine);
    cpu["control_group"] = nullptr;
    if (before.group && after.group) cpu["control_group"] = PerConnect(*after.group - *before.group);

    result["heap_calls"] = nullptr;
    if (heap_.path().empty()) {
      result["heap_calls_why"] = "no --heap";
    } else if (engine_ == 0 || !after.heap.contains(engine_)) {
      result["heap_calls_why"] =
          "the engine does not count them: is " + options_.heap_library + " to be preloaded?";
    } else {
      result["heap_calls"] = Difference(after, before.heap, after.heap);
      // Shows that they are counted: nobody starts without.
      std::map<std::string, uint64_t> earlier = {{"reactors", 0}, {"other_threads", 0}};
      for (const auto& [tid, account] : before.engine) {
        const auto calls = before.heap.find(tid);
        if (calls != before.heap.end()) earlier[KindOf(account.name)] += calls->second;
      }
      result["heap_calls_before"] = earlier;
    }
    result["instructions"] = nullptr;
    if (no_instructions.empty()) {
      result["instructions"] = Difference(after, before.instructions, after.instructions);
    } else {
      result["instructions_why"] = "not available here: " + no_instructions;
    }
  }

  void CountCalls(json& result) {
    result["system_calls"] = nullptr;
    if (const std::string why = tracer_.Seize(engine_); !why.empty()) {
      result["system_calls_why"] = why + (geteuid() == 0 ? "" : ": count as root");
      return;
    }
    TracedConnect(kTracedWarmUp);
    tracer_.Clear();
    TracedConnect(options_.connects);
    json sums = NothingYet();
    std::map<std::string, std::map<std::string, uint64_t>> by_name;
    std::map<std::string, uint64_t> totals;
    const std::map<pid_t, ThreadAccount> threads = ThreadAccounts(engine_);
    for (const auto& [tid, calls] : tracer_.calls()) {
      const auto thread = threads.find(tid);
      const char* const kind = KindOf(thread != threads.end() ? thread->second.name : "");
      for (const auto& [number, times] : calls) {
        if (number == SYS_rt_sigreturn || number == SYS_timer_settime) continue;
        by_name[kind][NameOf(number)] += times;
        totals[kind] += times;
      }
    }
    for (const auto& [kind, total] : totals) sums[kind] = PerConnect(total);
    for (const auto& [kind, calls] : by_name) {
      for (const auto& [name, times] : calls) sums["by_name"][kind][name] = PerConnect(times);
    }
    result["system_calls"] = sums;
  }

  void TracedConnect(int connects) {
    subject_.Order(connects);
    tracer_.CountUntilReadable(subject_.answers());
    subject_.Await();
  }

  static std::string NameOf(int number) {
    char* const name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    const std::string known = name != nullptr ? name : std::to_string(number);
    free(name);
    return known;
  }

  const Options& options_;
  Tracer tracer_;
  HeapFile heap_;
  Subject subject_;
  Instructions instructions_;
  pid_t client_ = 0;
  pid_t engine_ = 0;  // 0: there is none
};

// Returns what is wrong, or nullptr.
const char* ParseOptions(int argc, char** argv, Options& options) {
  const option kLong[] = {{"address", required_argument, nullptr, 'a'},
                          {"port", required_argument, nullptr, 'p'},
                          {"connects", required_argument, nullptr, 'n'},
                          {"heap", required_argument, nullptr, 'h'},
                          {"client", no_argument, nullptr, 'c'},
                          {"nonblocking", no_argument, nullptr, 'b'},
                          {nullptr, 0, nullptr, 0}};
  for (int letter; (letter = getopt_long(argc, argv, "+", kLong, nullptr)) != -1;) {
    switch (letter) {
      case 'a':
        options.address = optarg;
        break;
      case 'p':
        options.port = std::atoi(optarg);
        break;
      case 'n':
        options.connects = std::atoi(optarg);
        break;
      case 'h':
        options.heap_library = optarg;
        break;
      case 'b':
        options.nonblocking = true;
        break;
      case 'c':
        options.is_client = true;
        break;
      default:
        return "see the first lines of bench/counted.cc";
    }
  }
  options.command.assign(argv + optind, argv + argc);
  if (options.address.empty() || options.port < 1 || options.port > 65535)
    return "--address and --port are needed";
  if (options.connects < 1) return "--connects must be at least 1";
  if (!options.heap_library.empty() && access(options.heap_library.c_str(), R_OK) != 0)
    return "--heap must name a library that can be read";
  return nullptr;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  Options options;
  if (const char* wrong = ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "counted: %s\n", wrong);
    return 2;
  }
  if (options.is_client) return BeClient(options);
  signal(SIGPIPE, SIG_IGN);
  std::printf("%s\n", Counting(options).Run().dump().c_str());
  return 0;
}
