// SPDX-License-Identifier: Apache-2.0
// `shunt ctl services`, `drain`, `disable`, `enable`, `weight`: how services do, and what their backends are
// told at run time. tools/service_control.h is the agent's side.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace shunt {

// The tables that people get. `answer` is the agent's: {"services": [...]}.
std::string ServicesText(const nlohmann::json& answer);

// Adds the subcommands. `run` calls what it is given with the control socket's path, and keeps the exit
// status.
void AddServiceCommands(CLI::App& ctl,
                        std::function<void(const std::function<int(const std::string& socket)>& act)> run);

}  // namespace shunt
