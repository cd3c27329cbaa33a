// SPDX-License-Identifier: Apache-2.0
// Walks the numbers in a directory of /proc: processes, tasks, descriptors. No heap.

#pragma once

#include <dirent.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string_view>
#include <system_error>

#include "core/result.h"

namespace shunt::net {

// Calls `see(number)` for every entry of `directory_fd` whose name is a number, until it returns false. The
// directory is read on from where it stands, and left where the entry begins that follows the last one seen.
template <typename See>
Result<void> ForEachNumber(int directory_fd, See see) {
  alignas(dirent64) std::array<char, 4096> entries;
  for (;;) {
    const ssize_t length = getdents64(directory_fd, entries.data(), entries.size());
    if (length < 0) return FailErrno();
    if (length == 0) return {};
    for (ssize_t offset = 0; offset < length;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries.data() + offset);
      offset += entry->d_reclen;
      const std::string_view name(entry->d_name);
      int number = -1;
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
      if (error != std::errc() || end != name.data() + name.size()) continue;
      if (see(number)) continue;
      if (lseek(directory_fd, entry->d_off, SEEK_SET) < 0) return FailErrno();
      return {};
    }
  }
}

}  // namespace shunt::net
