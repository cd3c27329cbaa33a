// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include <linux/audit.h>
#include <seccomp.h>

namespace shunt {
namespace {

constexpr uint32_t kX32Bit = 0x40000000;

struct Family {
  uint32_t audit_arch;
  uint32_t first;
  uint32_t scmp_arch;
};

// The architectures whose calls one kernel serves beside each other.
#if defined(__x86_64__)
constexpr Family kFamilies[] = {{AUDIT_ARCH_X86_64, 0, SCMP_ARCH_X86_64},
                                {AUDIT_ARCH_I386, 0, SCMP_ARCH_X86},
                                {AUDIT_ARCH_X86_64, kX32Bit, SCMP_ARCH_X32}};
#elif defined(__aarch64__)
constexpr Family kFamilies[] = {{AUDIT_ARCH_AARCH64, 0, SCMP_ARCH_AARCH64},
                                {AUDIT_ARCH_ARM, 0, SCMP_ARCH_ARM}};
#elif defined(__riscv)
constexpr Family kFamilies[] = {{AUDIT_ARCH_RISCV64, 0, SCMP_ARCH_RISCV64}};
#else
#error "name this architecture's AUDIT_ARCH_* and SCMP_ARCH_* here"
#endif

}  // namespace

Dispatch::Dispatch(std::span<const Route> routes) {
  size_t used = 0;
  for (const Family& family : kFamilies) {
    Table& table = tables_[used++];
    table.arch = family.audit_arch;
    table.first = family.first;
    for (const Route& route : routes) {
      const int nr = seccomp_syscall_resolve_name_arch(family.scmp_arch, route.syscall);
      // Negative: the architecture has no such call (socketcall on x86-64).
      if (nr < 0) continue;
      const uint32_t index = static_cast<uint32_t>(nr) - family.first;
      if (index < table.handlers.size()) table.handlers[index] = route.handler;
    }
  }
}

}  // namespace shunt
