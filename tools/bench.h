// SPDX-License-Identifier: Apache-2.0
// `shunt bench`: what connections and calls cost on this machine, natively, under shunt and with its peers.
//
// The harness is a program of its own (bench/run), which lies beside this one: in a build's folder bench/, or
// installed in libexec/shunt/bench. This is only the way to it.

#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace shunt {

// The harness that belongs to the program at `program`, an absolute path. NotFound names the places that were
// tried and the remedy.
absl::StatusOr<std::string> FindHarness(const std::string& program);

// Adds the subcommand. All that follows it is the harness's to read, --help as well; running it does not
// return, or prints one line and sets `exit_status`.
void AddBenchCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
