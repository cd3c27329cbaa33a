// SPDX-License-Identifier: Apache-2.0
// `shunt run`: one command in a container of its own, with its connections at the host network's speed.

#pragma once

#include <CLI/CLI.hpp>

namespace shunt {

// Adds the subcommand. When it has run, `exit_status` is what the program is to exit with: the command's own
// status; 128 + the signal that killed it; 127 if it was not found and 126 if it could not be executed; 2 for
// wrong usage; 1 for anything else that went wrong. The process must have one thread when the subcommand
// runs.
void AddRunCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
