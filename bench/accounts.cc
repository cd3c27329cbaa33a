// SPDX-License-Identifier: Apache-2.0
// Reading /proc and the control group: see accounts.h.

#include "bench/accounts.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace shunt::bench {
namespace {

namespace fs = std::filesystem;

// The number behind `label` in a file of lines.
uint64_t NumberAfter(const fs::path& file, const std::string& label) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(label, 0) == 0) return std::stoull(line.substr(label.size()));
  }
  return 0;
}

std::string FirstLine(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

bool IsNumber(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// The parent's number stands behind the name, which may hold anything.
pid_t ParentOf(const fs::path& process) {
  const std::string line = FirstLine(process / "stat");
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return 0;
  std::istringstream rest(line.substr(end + 1));
  std::string state;
  pid_t parent = 0;
  rest >> state >> parent;
  return parent;
}

}  // namespace

std::map<pid_t, ThreadAccount> ThreadAccounts(pid_t process) {
  std::map<pid_t, ThreadAccount> accounts;
  std::error_code error;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(process) + "/task", error)) {
    ThreadAccount account;
    account.name = FirstLine(task.path() / "comm");
    account.voluntary_switches = NumberAfter(task.path() / "status", "voluntary_ctxt_switches:");
    account.involuntary_switches = NumberAfter(task.path() / "status", "nonvoluntary_ctxt_switches:");
    std::istringstream(FirstLine(task.path() / "schedstat")) >> account.cpu_ns;
    accounts[static_cast<pid_t>(std::stol(task.path().filename().string()))] = account;
  }
  return accounts;
}

pid_t FindDescendant(pid_t ancestor, const std::string& name) {
  std::map<pid_t, pid_t> parents;
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    const std::string number = process.path().filename().string();
    if (IsNumber(number)) parents[static_cast<pid_t>(std::stol(number))] = ParentOf(process.path());
  }
  for (const auto& [pid, parent] : parents) {
    if (pid == ancestor || FirstLine("/proc/" + std::to_string(pid) + "/comm") != name) continue;
    for (pid_t above = parent; above > 0; above = parents.contains(above) ? parents[above] : 0) {
      if (above == ancestor) return pid;
    }
  }
  return 0;
}

uint64_t MachineBusyNs() {
  std::istringstream line(FirstLine("/proc/stat"));
  std::string label;
  uint64_t user = 0, nice = 0, system = 0, idle = 0, waiting = 0, interrupts = 0, soft_interrupts = 0;
  line >> label >> user >> nice >> system >> idle >> waiting >> interrupts >> soft_interrupts;
  const auto ticks = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return (user + nice + system + interrupts + soft_interrupts) * (1'000'000'000 / ticks);
}

std::optional<uint64_t> ControlGroupNs() {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    // "NUMBER:CONTROLLERS:PATH"; the unified tree has no controllers here.
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string controllers(",");
    controllers.append(line, first + 1, second - first - 1).append(",");
    const std::string path = line.substr(second + 1);
    if (controllers.find(",cpuacct,") != std::string::npos) {
      const std::string usage = FirstLine("/sys/fs/cgroup/cpuacct" + path + "/cpuacct.usage");
      if (IsNumber(usage)) return std::stoull(usage);
    } else if (controllers == ",,") {
      for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        if (const uint64_t usage = NumberAfter(root + path + "/cpu.stat", "usage_usec"); usage > 0)
          return usage * 1000;
      }
    }
  }
  return std::nullopt;
}

}  // namespace shunt::bench
