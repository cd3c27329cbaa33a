// SPDX-License-Identifier: Apache-2.0
// `shunt engine`: the process that serves containers. The keeper has it started (tools/starter.h); nobody
// else does.
//
// Everything that must outlive it is with the keeper before it counts: listeners, what is known of their
// containers, the journal. So it may be killed at any moment, and the next one goes on.

#pragma once

#include <CLI/CLI.hpp>

namespace shunt {

// Adds the hidden subcommand. `exit_status` is set when it has run.
void AddEngineCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
