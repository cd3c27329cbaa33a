// SPDX-License-Identifier: Apache-2.0
// Which paths of /proc and /sys a container does not see, or may not write: what a new proc or sysfs of its
// has to hide as well.
//
// The runtime's own description of the container says so (config.json in its bundle). The mounts of the
// container would say it, too, but by the time that somebody looks its programs may have left the place where
// they are seen.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "handlers/policy.h"

namespace shunt {

// Sets what `mounts` has of the container's own. An error says why the description in `bundle` tells nothing;
// then what engines mask by default counts.
absl::Status AddMasks(const std::string& bundle, MountPolicy& mounts);

}  // namespace shunt
