// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include <vector>

#include "core/check.h"
#include "core/filter.h"

namespace shunt {

// The numbers are those that the filter traps, so that the two cannot disagree.
Dispatch::Dispatch(std::span<const Route> routes, Handler other) : other_(other) {
  for (const Route& route : routes) Set(route.syscall, route.handler);
}

bool Dispatch::Set(const std::string& syscall, Handler handler) {
  bool set = false;
  for (const SyscallNumber& number : NumbersOf(syscall)) {
    // x32 calls carry the native architecture and a bit in the number: a table of their own with another
    // start.
    const uint32_t first = number.number & kX32Bit;
    Table* const table = TableFor(number.audit_arch, first);
    SHUNT_CHECK(table != nullptr);
    if (number.number - first >= table->handlers.size()) continue;  // arm's own calls: no program makes them
    table->handlers[number.number - first] = handler;
    set = true;
  }
  return set;
}

Dispatch::Table* Dispatch::TableFor(uint32_t arch, uint32_t first) {
  for (Table& table : tables_) {
    if (table.arch == 0) {
      table.arch = arch;
      table.first = first;
    }
    if (table.arch == arch && table.first == first) return &table;
  }
  return nullptr;
}

}  // namespace shunt
