// SPDX-License-Identifier: Apache-2.0
// TrustedPid: whether the pid in a runtime's message can be what it claims to be.

#pragma once

#include <sys/types.h>

#include "core/intake.h"

namespace shunt {

// `pid` if it is a task of our pid namespace that is under a seccomp filter and belongs to the peer's user:
// it runs as that user, or in a user namespace that this user has made. Else 0, which means: not known yet,
// the first trapped call tells. So it is where runtimes do not say (crun exec), where they live in another
// pid namespace than we, and where we may not look; and nobody can pass a stranger's process off as his
// container.
pid_t TrustedPid(pid_t pid, const Peer& peer);

}  // namespace shunt
