// SPDX-License-Identifier: Apache-2.0
// Lets a program begin later: one of a certain path, and a container's first one until the container is as
// old as its policy wants it (so that its sidecars are there).
//
// The call is continued when its time has come, whatever its arguments are by then: a delay grants nothing,
// so nobody gains by changing them. Whose path cannot be read is left to the kernel at once. A signal takes
// the caller out of the wait, and if the kernel restarts the call it waits for what is left of it, also under
// another engine. Without a slot a call begins at once: of one container's, as many wait at a time as
// limits::kTaskSlotsPerListener.

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/clock.h"
#include "core/proc_text.h"
#include "core/task.h"
#include "handlers/container.h"
#include "handlers/handlers.h"

namespace shunt {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
// How often a wait looks whether its caller is still there.
constexpr int64_t kSlice = kSecond / 10;

// When the thread began, in clock ticks since the machine did; 0: not known.
uint64_t BirthOf(pid_t tid) {
  std::array<char, 32> path{"/proc/"};
  char* const end = std::to_chars(path.data() + 6, path.data() + 20, tid).ptr;
  memcpy(end, "/stat", 6);
  const Fd file(open(path.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text;
  const ssize_t size = file.valid() ? read(file.get(), text.data(), text.size()) : -1;
  return size > 0 ? StartTime({text.data(), static_cast<size_t>(size)}).value_or(0) : 0;
}

// True if the string at `address` is exactly `wanted`. Not a byte more is read than that takes.
bool IsString(const Call& call, uint64_t address, std::string_view wanted) {
  std::array<std::byte, 4096> copy;
  const size_t bytes = wanted.size() + 1;
  if (bytes > copy.size()) return false;
  const Result<size_t> got = call.target().ReadMemory(address, std::span(copy).first(bytes));
  return got && *got == bytes && copy[bytes - 1] == std::byte{0} &&
         memcmp(copy.data(), wanted.data(), wanted.size()) == 0;
}

// For the container's first process: when the container is old enough, by CLOCK_MONOTONIC.
int64_t StartOf(const Call& call) {
  const Container& container = ContainerOf(call);
  const int64_t delay = container.policy.start_delay.count();
  if (delay <= 0 || call.notification.tid != container.first_process) return 0;
  const uint64_t birth = BirthOf(call.notification.tid);
  if (birth == 0) return 0;
  const int64_t tick = kSecond / sysconf(_SC_CLK_TCK);
  const int64_t age =
      NowOn(CLOCK_BOOTTIME) - (static_cast<int64_t>(birth) + 1) * tick;  // rounded up: never early
  return MonotonicNow() + delay - age;
}

// For a program of the pattern's path.
int64_t DelayOf(const Call& call, uint64_t path) {
  Container& container = ContainerOf(call);
  const Policy& policy = container.policy;
  if (policy.exec_pattern.empty() || policy.exec_delay.count() <= 0) return 0;
  if (!IsString(call, path, policy.exec_pattern)) return 0;
  return container.facts.deadlines.Begin(
      {.tid = call.notification.tid, .birth = BirthOf(call.notification.tid)},
      MonotonicNow() + policy.exec_delay.count());
}

Task Wait(Call call, int64_t until) {
  Container& container = ContainerOf(call);
  for (int64_t left; (left = until - MonotonicNow()) > 0;) {
    co_await Pause(call, std::min(left, kSlice));
    // Taken out by a signal, or the container has ended: nobody is there to be answered.
    if (!call.StillValid()) co_return Reply::Continue();
  }
  container.facts.deadlines.End({.tid = call.notification.tid, .birth = BirthOf(call.notification.tid)});
  // A caller that misses the answer in this moment has waited, too: Container::Unanswered remembers it.
  call.record.number = Container::kNoFile;
  call.record.inode = Container::NameOf(call.notification);
  call.record.Enter(Stage::kStarting);
  co_return Reply::Continue();
}

Reply BeginLater(Call& call, uint64_t path) {
  Container& container = ContainerOf(call);
  const Policy& policy = container.policy;
  if (policy.start_delay.count() <= 0 && (policy.exec_pattern.empty() || policy.exec_delay.count() <= 0))
    return Default(call);
  if (const std::optional<Reply> missed =
          container.facts.lost_replies.Take(call.notification.tid, Container::NameOf(call.notification)))
    return *missed;
  const bool known = call.resumed() && call.record.deadline_ns != 0;
  const int64_t until = known ? call.record.deadline_ns : std::max(StartOf(call), DelayOf(call, path));
  if (until <= MonotonicNow()) return Reply::Continue();
  call.record.deadline_ns = until;
  return Start(Wait(call, until), /*if_no_slot=*/Reply::Continue());
}

}  // namespace

Reply Exec(Call& call) {
  return BeginLater(call, call.arg(0));
}

Reply ExecAt(Call& call) {
  return BeginLater(call, call.arg(1));
}

}  // namespace shunt
