// SPDX-License-Identifier: Apache-2.0
// Dispatch: (architecture, system call) -> handler, made once from the routes.
//
// A table for all containers, and one of its own for a container whose operator wants other handlers for some
// calls. Never changes once a reactor has it.

#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "core/call.h"

namespace shunt {

class Dispatch {
 public:
  // `other` serves what no route names: calls that a profile of somebody else's reports, and interfaces that
  // this machine's tables do not have. nullptr: such calls are continued.
  explicit Dispatch(std::span<const Route> routes, Handler other = nullptr);

  // Before a reactor has it: all calls of this name go to `handler`. False: there is no such call here.
  bool Set(const std::string& syscall, Handler handler);

  Handler Find(uint32_t arch, int nr) const {
    for (const Table& table : tables_) {
      if (table.arch != arch) continue;
      const auto index = static_cast<uint32_t>(nr) - table.first;
      if (index < table.handlers.size() && table.handlers[index] != nullptr) return table.handlers[index];
    }
    return other_;
  }

 private:
  struct Table {
    uint32_t arch = 0;
    uint32_t first = 0;
    std::array<Handler, 1024> handlers{};
  };
  Table* TableFor(uint32_t arch, uint32_t first);

  std::array<Table, 3> tables_{};  // arch 0: unused
  Handler other_;
};

}  // namespace shunt
