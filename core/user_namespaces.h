// SPDX-License-Identifier: Apache-2.0
// The way from a user namespace to one within it.
//
// A process can enter only what it is privileged in, and it is privileged in what its user owns or what lies
// within one where it is privileged. So whoever goes in goes step by step.

#pragma once

#include <cstdint>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace shunt {

// The number by which a namespace is known, of a descriptor of it; 0: it is none.
uint64_t InodeOf(int fd);

// From the outermost below `ours` (an inode) to `innermost`, both of the same line; empty: they are the same.
// EPERM: it lies elsewhere.
Result<std::vector<Fd>> UserNamespacesDownTo(Fd innermost, uint64_t ours);

}  // namespace shunt
