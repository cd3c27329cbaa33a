// SPDX-License-Identifier: Apache-2.0
// `shunt profile`: the OCI seccomp profile that makes a container runtime send us the listener of a
// container.
//
// A NOTIFY rule that is merely appended to a profile does nothing: where the profile already has a rule for
// the call, libseccomp drops one of the two without a word. So the trapped calls are taken out of the
// profile's rules and put back as rules that exclude each other: NOTIFY where we trap, and the profile's own
// action everywhere else.

#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/filter.h"
#include "tools/seccomp_profile.h"

namespace shunt {

// The profile for a container without one of its own: everything is allowed but for what we trap and deny.
Profile PermissiveProfile(const ProfileSubject& subject);

// Adds the traps and the denials to a profile. What it refuses stays refused, and what it allows under
// conditions is trapped under these conditions only. `refused` gets the trapped calls that it refuses
// altogether. Fails where the profile's conditions on a call and ours cannot be told apart by rules that
// libseccomp keeps.
//
// Two limits, where calls are notified in vain and then run as the kernel would have run them:
// - In a profile that refuses by default, a setsockopt whose level or option is a number above all that are
//   trapped, because only so nothing escapes that has garbage in the upper half of a register, which the
//   kernel ignores.
// - In one that allows by default, some sends of 32-bit programs that use socketcall: libseccomp extends a
//   condition on a send's flags to i386's socketcall, whose fourth register means nothing.
//
// The price on top of a profile that refuses by default, measured with libseccomp 2.5: setsockopt and the
// sends are no longer decided by their number, so libseccomp looks for them last, behind some 370 others:
// about 0.15 us for each of them.
absl::StatusOr<Profile> AddTraps(Profile profile, const std::vector<Trap>& traps,
                                 const std::vector<Deny>& denies, std::vector<std::string>* refused);

// Registers the subcommand. It prints to standard output; errors are one line, and `exit_status` becomes 2.
void AddProfileCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
