// SPDX-License-Identifier: Apache-2.0
// The program: runs seeds until one is wrong.
//
//   shunt_sim --seed N [--trace]     one run; --trace prints its steps
//   shunt_sim --seeds FIRST COUNT    these
//   shunt_sim --seconds N            new ones for so long
//
// What is wrong with a seed is wrong with it every time: the same seed is the same run.

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>

#include "tests/sim/run.h"

namespace shunt::sim {
namespace {

// No single run takes a second.
constexpr unsigned kSecondsForOneRun = 60;

std::string program;

// A failed check, a sanitizer or a loop without a system call: the seed is told as well.
void OnSignal(int number) {
  World::Get().PrintReport(number == SIGALRM ? "the engine loops" : "the engine crashes");
  fflush(stdout);
  _exit(1);
}

// In a process of its own: what the engine keeps in static variables would make a run depend on those before
// it. Ends the program if it fails.
RunResult RunOne(uint64_t seed, bool trace) {
  static auto* const result = static_cast<RunResult*>(
      mmap(nullptr, sizeof(RunResult), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *result = {};
  const pid_t child = fork();
  if (child == 0) {
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) signal(number, OnSignal);
    alarm(kSecondsForOneRun);
    *result = RunSeed({.seed = seed, .trace = trace, .command = program + " --seed " + std::to_string(seed)});
    fflush(stdout);
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) {
    std::printf("the run of seed %llu failed (wait status %#x)\n", static_cast<unsigned long long>(seed),
                status);
    exit(1);
  }
  return *result;
}

struct Total {
  uint64_t runs = 0;
  RunResult sum;

  void Add(const RunResult& result) {
    ++runs;
    sum.steps += result.steps;
    sum.calls += result.calls;
    for (size_t i = 0; i < kCounterCount; ++i) sum.counters[i] += result.counters[i];
  }
  // What was met, so that a test that meets nothing any more is seen.
  void Print() const {
    for (size_t i = 0; i < kCounterCount; ++i) {
      std::printf("%10llu %s\n", static_cast<unsigned long long>(sum.counters[i]),
                  kCounterTexts[i].help.data());
    }
    std::printf("%llu runs of %llu steps with %llu calls; nothing wrong\n",
                static_cast<unsigned long long>(runs), static_cast<unsigned long long>(sum.steps),
                static_cast<unsigned long long>(sum.calls));
  }
};

int Main(int argc, char** argv) {
  program = argv[0];
  const auto number = [&](int index) { return index < argc ? strtoull(argv[index], nullptr, 10) : 0; };
  const std::string what = argc > 1 ? argv[1] : "";
  Total total;
  if (what == "--seed" && argc > 2) {
    total.Add(RunOne(number(2), argc > 3 && strcmp(argv[3], "--trace") == 0));
  } else if (what == "--seeds" && argc > 3) {
    for (uint64_t i = 0; i < number(3); ++i) total.Add(RunOne(number(2) + i, false));
  } else if (what == "--seconds" && argc > 2) {
    const uint64_t first = std::random_device()() * uint64_t{1'000'000};
    std::printf("seeds from %llu on\n", static_cast<unsigned long long>(first));
    fflush(stdout);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(number(2));
    while (std::chrono::steady_clock::now() < end) total.Add(RunOne(first + total.runs, false));
  } else {
    std::fprintf(stderr, "usage: %s --seed N [--trace] | --seeds FIRST COUNT | --seconds N\n", argv[0]);
    return 2;
  }
  total.Print();
  return 0;
}

}  // namespace
}  // namespace shunt::sim

int main(int argc, char** argv) {
  return shunt::sim::Main(argc, argv);
}
