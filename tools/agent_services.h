// SPDX-License-Identifier: Apache-2.0
// AgentServices: the agent's part in balancing: what its configuration says goes to the accelerator, and what
// the operator says of single backends holds for the engines to come, too.
//
// Control thread.

#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "handlers/accelerator.h"
#include "tools/agent_config.h"
#include "tools/service_control.h"

namespace shunt {

class AgentServices {
 public:
  // `orders`: what an engine before this one was told, as orders() had it. The services are in force when
  // this returns.
  void Begin(Accelerator& accelerator, const AgentConfig& config, const nlohmann::json& orders);
  // The configuration is another one.
  void Reload(const AgentConfig& config);

  // Answers a line of the control socket that is about services; "": it is not. `changed` is set where
  // orders() are others now.
  std::string Answer(const std::string& line, bool& changed);

  // Of each backend the last word of each kind: a list of lines of the control socket.
  nlohmann::json orders() const;

 private:
  void Configure(const AgentConfig& config, bool at_once);
  void Note(const std::string& line, const BackendOrder& order);

  struct Order {
    std::string service, backend;
    bool weight = false;  // it is about that
    std::string line;
  };
  Accelerator* accelerator_ = nullptr;
  std::vector<Order> orders_;
};

}  // namespace shunt
