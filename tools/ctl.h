// SPDX-License-Identifier: Apache-2.0
// `shunt ctl`: asks a running agent how it does, and tells it to read its configuration or to upgrade.

#pragma once

#include <CLI/CLI.hpp>

namespace shunt {

// Adds the subcommand. `exit_status` is set when it has run: 0; 1 if the agent could not do it; 2 if there is
// no agent.
void AddCtlCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
