// SPDX-License-Identifier: Apache-2.0
// What a container's metadata says about the handling of its calls, with any bytes: the metadata, the pod's
// name and its id's text, separated by NUL. Whatever comes of it is a policy that the handlers can rely on,
// and the next engine reads the same.

#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "core/check.h"
#include "core/filter.h"
#include "handlers/policy_json.h"
#include "tools/container_decision.h"
#include "tools/metadata.h"

namespace {

// Texts of a container's reach us as JSON, which is UTF-8; the reader of JSON has refused all else.
bool IsUtf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string all(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> parts = absl::StrSplit(all, '\0');
  parts.resize(3);
  const shunt::ContainerState state{
      .id = "fuzzed",
      .pid = 7,
      .state_pid = 7,
      .metadata = parts[0],
      .annotations = {{"io.kubernetes.pod.name", parts[1]}, {"io.kubernetes.container.name", parts[2]}}};
  const shunt::AgentConfig config;
  const shunt::Decision lenient = shunt::Decide(state, 0, 0, {.config = config});
  const shunt::Policy& policy = lenient.spec.policy;
  SHUNT_CHECK(policy.refuse == 0);
  for (const auto& [syscall, error] : policy.errors) {
    SHUNT_CHECK(!shunt::NumbersOf(syscall).empty() && error > 0 && error <= 4095);
  }
  SHUNT_CHECK(policy.default_error > 0 && policy.default_error <= 4095);
  if (policy.mkdir_suffix) {
    SHUNT_CHECK(policy.mkdir_suffix->size() < 4096 && policy.mkdir_suffix->find('\0') == std::string::npos);
  }
  for (const std::chrono::nanoseconds delay : {policy.exec_delay, policy.start_delay})
    SHUNT_CHECK(delay >= std::chrono::nanoseconds(0) && delay <= std::chrono::hours(8760));

  const shunt::Decision strict = shunt::Decide(state, 0, 0, {.config = config, .strict = true});
  SHUNT_CHECK(strict.mistakes == lenient.mistakes);
  SHUNT_CHECK((strict.spec.policy.refuse != 0) == (!strict.mistakes.empty() || !strict.wishes.ok()));
  if (IsUtf8(all)) SHUNT_CHECK(shunt::PolicyFromJson(shunt::PolicyToJson(policy)) == policy);
  return 0;
}
