// SPDX-License-Identifier: Apache-2.0
// SHUNT_CHECK: a condition that only a mistake in shunt can break. Always on; prints where and aborts.
//
// Never for anything that a container, a runtime or a user can cause.

#pragma once

#include <cstdio>
#include <cstdlib>

#define SHUNT_CHECK(condition)                                                                  \
  do {                                                                                          \
    if (!(condition)) [[unlikely]] {                                                            \
      std::fprintf(stderr, "shunt: %s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                             \
    }                                                                                           \
  } while (false)
