// SPDX-License-Identifier: Apache-2.0
// Errno and Result: how anything on the hot path fails. A value of a few bytes, no heap, no message.
//
// The control path uses absl::Status instead; ToStatus() is the one door from here to there.

#pragma once

#include <cerrno>
#include <string_view>
#include <tl/expected.hpp>

#include "absl/status/status.h"

namespace shunt {

// A failed system call as the kernel names it. Always positive: the sign flips only where the kernel wants it
// flipped, in listener.cc and ring.cc.
struct Errno {
  int code = 0;
  friend bool operator==(Errno, Errno) = default;
};

template <typename T>
using Result = tl::expected<T, Errno>;

inline tl::unexpected<Errno> Fail(int code) {
  return tl::unexpected<Errno>(Errno{code});
}

// The errno of the call that has just failed.
inline tl::unexpected<Errno> FailErrno() {
  return Fail(errno);
}

// `what` names the object and the attempt, for example "bind /run/shunt.sock".
inline absl::Status ToStatus(Errno error, std::string_view what) {
  return absl::ErrnoToStatus(error.code, absl::string_view(what.data(), what.size()));
}

}  // namespace shunt
