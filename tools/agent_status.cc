// SPDX-License-Identifier: Apache-2.0
#include "tools/agent_status.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace shunt {

nlohmann::json StatusOf(const Accelerator& accelerator) {
  using Json = nlohmann::json;
  Json reactors = Json::array();
  for (const Accelerator::ReactorStatus& one : accelerator.Reactors()) {
    reactors.push_back(
        {{"cpu", one.cpu}, {"received", one.received}, {"answered", one.answered}, {"waiting", one.waiting}});
  }
  Json containers = Json::array();
  for (const Accelerator::ContainerStatus& one : accelerator.Containers()) {
    containers.push_back({{"name", one.name},
                          {"owner", one.owner},
                          {"accelerated", one.accelerated},
                          {"calls", one.calls},
                          {"in_flight", one.in_flight}});
  }
  Json counters = Json::object();
  for (const Accelerator::CounterValue& one : accelerator.Counters())
    counters[std::string(one.text.name)] = one.value;
  return {{"version", SHUNT_VERSION},
          {"engine_pid", getpid()},
          {"locks", accelerator.LocksInForce()},
          {"reactors", std::move(reactors)},
          {"containers", std::move(containers)},
          {"counters", std::move(counters)}};
}

}  // namespace shunt
