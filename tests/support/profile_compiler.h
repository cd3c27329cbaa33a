// SPDX-License-Identifier: Apache-2.0
// Turns an OCI seccomp profile into the program that a container gets, by the same calls of libseccomp as
// runc.
//
// Independent of shunt's own reading and writing of profiles, so that tests judge the text as a runtime
// would.

#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

namespace shunt::testing {

// Aborts the test program if the profile is not one that runc takes.
std::vector<sock_filter> CompileProfileAsRunc(const std::string& json_text);

}  // namespace shunt::testing
