// SPDX-License-Identifier: Apache-2.0
// `shunt agent` with an accelerator that lets every call through: the agent's own part, on real runtimes.

#include "tests/support/continue_accelerator.h"
#include "tools/agent.h"

int main(int argc, char** argv) {
  CLI::App app("shunt agent without acceleration");
  app.require_subcommand(1);
  int exit_status = 0;
  shunt::AddAgentCommand(app, exit_status, shunt::StartContinueAccelerator);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}
