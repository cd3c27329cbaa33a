// SPDX-License-Identifier: Apache-2.0
// `shunt agent`: one long-lived process that serves the containers of any number of runtimes.
//
// It owns an Intake, which brings listeners, and an Accelerator, which serves them, and knows of each
// container only how many listeners it came with and which host ports are its own. Everything here happens on
// one control thread.

#pragma once

#include <sys/types.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "handlers/accelerator.h"

namespace shunt {

// Accelerator::Start, or what a test puts in its place.
using StartAccelerator =
    std::function<absl::StatusOr<std::unique_ptr<Accelerator>>(const AcceleratorOptions&)>;

struct AgentOptions {
  std::string socket;  // empty: $XDG_RUNTIME_DIR/shunt/agent.sock, or /run/shunt/agent.sock for root
  std::string config;  // empty: none
  std::vector<uid_t> allow_uids;  // users who may hand over, beside those of the configuration
  int ready_fd = -1;              // gets one byte, and is closed, as soon as runtimes can connect
  bool verbose = false;
  AcceleratorOptions accelerator;
};

// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again. Returns the exit status: 0; 1 if the
// accelerator could not start; 2 if an option or the configuration is wrong, and then nothing has been
// started.
int RunAgent(AgentOptions options, const StartAccelerator& start);

// Adds the subcommand. `exit_status` is set when it has run.
void AddAgentCommand(CLI::App& app, int& exit_status, StartAccelerator start = Accelerator::Start);

}  // namespace shunt
