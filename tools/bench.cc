// SPDX-License-Identifier: Apache-2.0

#include "tools/bench.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

// Returns only if that fails; the exit status.
int ExecuteHarness(const std::vector<std::string>& words) {
  std::error_code error;
  std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  absl::StatusOr<std::string> harness = FindHarness(program);
  if (!harness.ok()) {
    std::fprintf(stderr, "shunt bench: %s\n", std::string(harness.status().message()).c_str());
    return 1;
  }
  std::vector<std::string> given = {*harness, "--called-by", program};
  given.insert(given.end(), words.begin(), words.end());
  std::vector<char*> arguments;
  for (std::string& word : given) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(harness->c_str(), arguments.data());
  std::fprintf(
      stderr, "shunt bench: %s cannot be executed: %s; it needs /usr/bin/python3 (apt-get install python3)\n",
      harness->c_str(), std::strerror(errno));
  return 1;
}

}  // namespace

absl::StatusOr<std::string> FindHarness(const std::string& program) {
  const std::filesystem::path folder = std::filesystem::path(program).parent_path();
  const std::filesystem::path built = folder / "bench/run";
  const std::filesystem::path installed = folder.parent_path() / "libexec/shunt/bench/run";
  std::error_code error;
  for (const std::filesystem::path& path : {built, installed}) {
    if (std::filesystem::is_regular_file(path, error)) return path.string();
  }
  return absl::NotFoundError(
      absl::StrCat("the harness is neither ", installed.string(), " nor ", built.string(),
                   ": install shunt as a whole (cmake --install BUILD), or build with -D "
                   "SHUNT_BENCH=ON"));
}

void AddBenchCommand(CLI::App& app, int& exit_status) {
  CLI::App* const command =
      app.add_subcommand("bench", "Measure what connections and calls cost here, beside other programs");
  command->set_help_flag();
  command->prefix_command();
  command->callback([command, &exit_status] { exit_status = ExecuteHarness(command->remaining()); });
}

}  // namespace shunt
