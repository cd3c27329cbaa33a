// SPDX-License-Identifier: Apache-2.0
// What all commands of `shunt ctl` share: asking the agent (tools/control_server.h is the other end), and
// reading what it answers.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shunt {

// Exit statuses.
inline constexpr int kCtlFailed = 1;   // the agent could not do it
inline constexpr int kCtlNoAgent = 2;  // or wrong usage

// Sends one command to the control socket and returns the answer, which is an object.
absl::StatusOr<nlohmann::json> AskAgent(const std::string& socket, std::string command);

// 0 if there is none.
uint64_t NumberIn(const nlohmann::json& object, const char* key);
// Harmless(); empty if there is none.
std::string TextIn(const nlohmann::json& object, const char* key);

// Says why, and returns the status.
int FailCtl(int exit_status, const absl::Status& why);

// Has the agent do it. The exit status.
int CommandAgent(const std::string& socket, const std::string& command);

}  // namespace shunt
