// SPDX-License-Identifier: Apache-2.0
#include "handlers/pending_signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string_view>

#include "core/fd.h"
#include "core/proc_text.h"

namespace shunt {
namespace {

struct SignalSet {
  std::string_view label;
  uint64_t signals = 0;
};

}  // namespace

bool SignalKeptBack(pid_t tid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/status", tid);
  const Fd file(open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return false;
  bool sleeps_through = false;  // "D": only a signal that kills ends this sleep
  SignalSet own{"SigPnd:"}, shared{"ShdPnd:"}, blocked{"SigBlk:"}, ignored{"SigIgn:"};
  PiecewiseLines text;
  for (;;) {
    const std::span<char> room = text.Room();
    const ssize_t size = read(file.get(), room.data(), room.size());
    if (size <= 0) break;
    const std::string_view lines = text.Add(static_cast<size_t>(size));
    sleeps_through |= lines.starts_with("State:\tD") || lines.find("\nState:\tD") != lines.npos;
    for (SignalSet* const set : {&own, &shared, &blocked, &ignored}) {
      if (const std::optional<uint64_t> signals = NumberBehind(lines, set->label, 16))
        set->signals = *signals;
    }
  }
  return sleeps_through && ((own.signals | shared.signals) & ~blocked.signals & ~ignored.signals) != 0;
}

}  // namespace shunt
