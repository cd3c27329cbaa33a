// SPDX-License-Identifier: Apache-2.0
// The one list of what workers do inside containers (core/worker.h). A handler whose act needs the caller's
// place and rights has a line here, and its deed in its own file.

#pragma once

#include <cstdint>

#include "core/worker.h"

namespace shunt {

// X(deed, whether it acts on mounts: then the worker has to be in the caller's mount namespace).
#define SHUNT_DEEDS(X)       \
  X(MakeDirectory, false)    \
  X(MountFilesystem, true)   \
  X(UnmountFilesystem, true) \
  X(MakeNode, true)

#define SHUNT_NAME_DEED(deed, on_mounts) k##deed,
enum class DeedName : uint32_t { SHUNT_DEEDS(SHUNT_NAME_DEED) };
#undef SHUNT_NAME_DEED

#define SHUNT_DECLARE_DEED(deed, on_mounts) int64_t deed(Inside& inside);
SHUNT_DEEDS(SHUNT_DECLARE_DEED)
#undef SHUNT_DECLARE_DEED

#define SHUNT_LIST_DEED(deed, on_mounts) {deed, on_mounts},
inline constexpr Deed kDeeds[] = {SHUNT_DEEDS(SHUNT_LIST_DEED)};
#undef SHUNT_LIST_DEED

}  // namespace shunt
