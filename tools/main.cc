// SPDX-License-Identifier: Apache-2.0
// The `shunt` program: its subcommands, and nothing else.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/agent.h"
#include "tools/ctl.h"
#include "tools/engine_main.h"
#include "tools/lock_server.h"
#include "tools/profile.h"
#include "tools/run.h"
#include "tools/worker_main.h"

namespace {

// What `command` did not expect, and what it would have.
std::string Unexpected(const CLI::App& command, const std::string& extra) {
  if (extra.starts_with('-')) return "unknown option " + extra;
  std::string right;
  for (const CLI::App* const subcommand : command.get_subcommands(nullptr)) {
    if (!subcommand->get_group().empty()) right += (right.empty() ? "" : ", ") + subcommand->get_name();
  }
  return "unknown argument " + extra + (right.empty() ? "" : "; right would be one of: " + right);
}

// One line that names what was wrong. CLI11 does, except for what it did not expect.
std::string Explain(const CLI::App& app, const CLI::ParseError& error) {
  std::string command = "shunt";
  std::string text = error.what();
  for (const CLI::App* const subcommand : app.get_subcommands()) {
    command += " " + subcommand->get_name();
    for (const std::string& extra : subcommand->remaining()) {
      if (extra != "--") text = Unexpected(*subcommand, extra);
    }
  }
  for (const std::string& extra : app.remaining()) text = Unexpected(app, extra);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return command + ": " + text + " (" + command + " --help shows what is right)";
}

}  // namespace

// What is thrown beside ParseError is a mistake of ours, and shall crash.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  CLI::App app("Moves the sockets of rootless containers onto the host's network.", "shunt");
  app.set_version_flag("--version", "shunt " SHUNT_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  shunt::AddRunCommand(app, exit_status);
  shunt::AddAgentCommand(app, exit_status);
  shunt::AddCtlCommand(app, exit_status);
  shunt::AddProfileCommand(app, exit_status);
  shunt::AddLockServerCommand(app, exit_status);
  shunt::AddEngineCommand(app, exit_status);
  shunt::AddWorkerCommand(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "%s\n", Explain(app, error).c_str());
    return 2;
  }
  return exit_status;
}
