// SPDX-License-Identifier: Apache-2.0
// Dispatch: (architecture, system call) -> handler, made once from the routes.

#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/call.h"

namespace shunt {

class Dispatch {
 public:
  explicit Dispatch(std::span<const Route> routes);

  // nullptr: not ours.
  Handler Find(uint32_t arch, int nr) const {
    for (const Table& table : tables_) {
      if (table.arch != arch) continue;
      const auto index = static_cast<uint32_t>(nr) - table.first;
      if (index < table.handlers.size()) return table.handlers[index];
    }
    return nullptr;
  }

 private:
  struct Table {
    uint32_t arch = 0;
    uint32_t first = 0;
    std::array<Handler, 1024> handlers{};
  };
  Table* TableFor(uint32_t arch, uint32_t first);

  std::array<Table, 3> tables_{};  // arch 0: unused
};

}  // namespace shunt
