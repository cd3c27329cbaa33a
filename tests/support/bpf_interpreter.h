// SPDX-License-Identifier: Apache-2.0
// Runs a seccomp program in user space: what would the kernel do with this call, and how many instructions
// does that take?
//
// Implements what the kernel's seccomp accepts of classic BPF and aborts on anything else, so that a program
// which passes here is also one that can be installed.

#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <set>
#include <span>

namespace shunt::testing {

struct BpfOutcome {
  uint32_t action;   // SECCOMP_RET_...
  int instructions;  // executed
};

// `visited`, if given, collects the indices of the executed instructions.
BpfOutcome RunBpf(std::span<const sock_filter> program, const seccomp_data& call,
                  std::set<size_t>* visited = nullptr);

}  // namespace shunt::testing
