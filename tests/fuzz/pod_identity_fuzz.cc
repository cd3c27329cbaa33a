// SPDX-License-Identifier: Apache-2.0
// The control groups of a process, whose paths a container can name below its own, with any bytes: what is
// found has the form of what it is taken for.

#include <string>

#include "core/check.h"
#include "tools/pod_identity.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shunt::CgroupOrigin origin = shunt::OriginFromCgroups({reinterpret_cast<const char*>(data), size});
  const auto is_made_of = [](const std::string& text, const char* digits) {
    return text.find_first_not_of(digits) == std::string::npos;
  };
  SHUNT_CHECK(is_made_of(origin.pod_uid, "0123456789abcdef-"));
  SHUNT_CHECK(origin.pod_uid.empty() || origin.pod_uid.size() == 36 || origin.pod_uid.size() == 32);
  SHUNT_CHECK(is_made_of(origin.container_id, "0123456789abcdef"));
  SHUNT_CHECK(origin.container_id.empty() || origin.container_id.size() == 64);
  return 0;
}
