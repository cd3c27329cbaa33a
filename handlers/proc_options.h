// SPDX-License-Identifier: Apache-2.0
// The options that a container may give a proc that is mounted for it.

#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace shunt {

// As the mount has to be given them; nothing: it may not have them. By others than these it could be that of
// another pid namespace ("pidns=", a path, which would be looked for out here), or have nothing to be masked
// until it is told to show the rest ("subset="). A group is the caller's, in the words of its `gid_map` as
// who mounts reads it. Pure.
std::optional<std::string> ProcOptions(std::string_view options, std::string_view gid_map);

}  // namespace shunt
