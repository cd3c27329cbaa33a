// SPDX-License-Identifier: Apache-2.0
// `shunt agent`: one long-lived process that serves the containers of any number of runtimes.
//
// What is started is the keeper (tools/keeper.h): it makes the sockets, holds every descriptor that must not
// be lost, and has engines started that do the work (tools/engine_main.h, tools/agent_role.h). SIGTERM and
// SIGINT end it, SIGHUP has the configuration read again, SIGUSR2 lets the program that is installed now take
// over.

#pragma once

#include <sys/types.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shunt {

struct AgentOptions {
  std::string socket;             // empty: DefaultAgentSocket()
  std::string config;             // empty: none
  int ready_fd = -1;              // gets one byte, and is closed, as soon as runtimes can connect
  std::vector<uid_t> allow_uids;  // users who may hand over, beside those of the configuration
  std::string affinity = "pin";
  std::string lock_socket;  // empty: the default path
  bool fd_store = false;
  std::string resolver = "metadata";  // a name of Resolver (tools/container_decision.h)
  std::string kubeconfig;             // empty: what the environment says (tools/kube_server.h)
  std::string registers;              // "etcd"; empty: as the configuration says
  bool strict = false;
  std::string metrics_bind_address;  // empty: what the configuration says
  std::string check_config;          // not to serve, but to explain this file
  bool verbose = false;
};

// $XDG_RUNTIME_DIR/shunt/agent.sock, or /run/shunt/agent.sock for root. An agent makes its folder.
absl::StatusOr<std::string> DefaultAgentSocket();
// Where `shunt ctl` reaches the agent on that socket.
std::string ControlSocketOf(const std::string& agent_socket);

// Adds the subcommand. `exit_status` is set when it has run: 0; 1 if no engine could start; 2 if an option or
// the configuration is wrong, and then nothing has been started.
void AddAgentCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
