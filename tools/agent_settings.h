// SPDX-License-Identifier: Apache-2.0
// AgentSettings: what an agent's engines need to know of how it was started, kept by the keeper while they
// come and go; and how a text is kept that way.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/socket_file.h"

namespace shunt {

// A file in memory with this text, to be held.
absl::StatusOr<Fd> HeldText(const std::string& text);
absl::StatusOr<std::string> ReadHeldText(int fd);

// What the process that was started has found out, for all its engines: held as the kSettings.
struct AgentSettings {
  std::string configuration;  // the text that is in force; empty: none
  std::string socket;         // where runtimes hand over
  NodeIdentity socket_node;   // all zero if a service manager made it
  bool accepts = true;  // that process accepts connections; one of an earlier version left it to engines
  std::string control;  // where `shunt ctl` asks; empty: nowhere
  NodeIdentity control_node;
  std::string metrics;                              // where metrics are asked for; empty: nowhere
  nlohmann::json orders = nlohmann::json::array();  // AgentServices::orders()

  absl::StatusOr<Fd> ToFile() const;
  static absl::StatusOr<AgentSettings> FromFile(int fd);
};

}  // namespace shunt
