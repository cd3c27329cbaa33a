// SPDX-License-Identifier: Apache-2.0
// A seccomp profile (OCI's or Docker's JSON), with any bytes. What is accepted must print as a profile that
// says the same.

#include <string_view>

#include "core/check.h"
#include "tools/seccomp_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const shunt::ProfileSubject kHere = shunt::ProfileSubject::Here();
  const auto profile = shunt::ParseProfile({reinterpret_cast<const char*>(data), size}, kHere);
  if (!profile.ok()) return 0;
  const std::string printed = shunt::PrintProfile(*profile);
  const auto again = shunt::ParseProfile(printed, kHere);
  SHUNT_CHECK(again.ok() && shunt::PrintProfile(*again) == printed);
  return 0;
}
