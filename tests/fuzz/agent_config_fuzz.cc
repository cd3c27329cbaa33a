// SPDX-License-Identifier: Apache-2.0
// The agent's configuration file, with any bytes: read, or refused by a status. No exception of the YAML
// library gets out.

#include "core/check.h"
#include "tools/agent_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = shunt::ParseAgentConfig({reinterpret_cast<const char*>(data), size}, "agent.yaml");
  if (!config.ok()) SHUNT_CHECK(!config.status().message().empty());
  return 0;
}
