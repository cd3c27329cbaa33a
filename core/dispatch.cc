// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include "core/check.h"
#include "core/filter.h"

namespace shunt {
namespace {

constexpr uint32_t kX32Bit = 0x40000000;

}  // namespace

// The numbers are those that the filter traps, so that the two cannot disagree.
Dispatch::Dispatch(std::span<const Route> routes) {
  for (const Route& route : routes) {
    for (const SyscallNumber& number : NumbersOf(route.syscall)) {
      // x32 calls carry the native architecture and a bit in the number: a table of their own with another
      // start.
      const uint32_t first = number.number & kX32Bit;
      Table* const table = TableFor(number.audit_arch, first);
      SHUNT_CHECK(table != nullptr && number.number - first < table->handlers.size());
      table->handlers[number.number - first] = route.handler;
    }
  }
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
