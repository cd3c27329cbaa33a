// SPDX-License-Identifier: Apache-2.0
// The `shunt` program: its subcommands, and nothing else.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/agent.h"
#include "tools/bench.h"
#include "tools/ctl.h"
#include "tools/engine_main.h"
#include "tools/lock_server.h"
#include "tools/profile.h"
#include "tools/run.h"
#include "tools/worker_main.h"

namespace {

// How many letters have to be put in, left out or exchanged to make one word of the other.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t exchanged = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({exchanged, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// Of the options of `command` the one that was meant by `word`, perhaps; empty: none is near.
std::string NearestOption(const CLI::App& command, const std::string& word) {
  constexpr size_t kMostMistakes = 2;
  std::string nearest;
  size_t least = kMostMistakes + 1;
  for (const CLI::Option* const option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const std::string full = "--" + name;
      // Words are cut off as often as they are mistyped.
      const size_t distance = word.size() > 3 && full.starts_with(word) ? 0 : Distance(word, full);
      if (distance < least) least = distance, nearest = full;
    }
  }
  return nearest;
}

// What `command` did not expect, and what it would have.
std::string Unexpected(const CLI::App& command, const std::string& extra) {
  if (extra.starts_with('-')) {
    const std::string word = extra.substr(0, extra.find('='));
    const std::string meant = NearestOption(command, word);
    return "unknown option " + word + (meant.empty() ? "" : "; is " + meant + " meant?");
  }
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
    // What follows an unknown option is most likely its value.
    std::vector<std::string> extras = subcommand->remaining();
    std::erase(extras, "--");
    const auto option =
        std::ranges::find_if(extras, [](const std::string& extra) { return extra.starts_with('-'); });
    if (!extras.empty()) text = Unexpected(*subcommand, option == extras.end() ? extras.back() : *option);
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
  shunt::AddBenchCommand(app, exit_status);
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
