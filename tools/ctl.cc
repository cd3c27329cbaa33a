// SPDX-License-Identifier: Apache-2.0
#include "tools/ctl.h"

#include <time.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "tools/agent.h"
#include "tools/ctl_link.h"
#include "tools/ctl_services.h"
#include "tools/harmless.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

struct CtlOptions {
  std::string socket;
  bool json = false;
  bool rates = false;
};

// How much more there is of `key` in `now`.
uint64_t Since(const Json& before, const Json& now, const char* key) {
  const uint64_t old = NumberIn(before, key), young = NumberIn(now, key);
  return young > old ? young - old : 0;
}

void ShowStatus(const Json& status) {
  std::printf("engine %llu, version %s\n", static_cast<unsigned long long>(NumberIn(status, "engine_pid")),
              TextIn(status, "version").c_str());
  std::printf("%s\n\n", TextIn(status, "locks").c_str());
  std::printf("%-8s %5s %14s %14s %8s\n", "REACTOR", "CPU", "RECEIVED", "ANSWERED", "WAITING");
  int index = 0;
  for (const Json& one : status["reactors"]) {
    const int cpu = one.value("cpu", -1);
    std::printf("%-8d %5s %14llu %14llu %8llu\n", index++, cpu < 0 ? "any" : std::to_string(cpu).c_str(),
                static_cast<unsigned long long>(NumberIn(one, "received")),
                static_cast<unsigned long long>(NumberIn(one, "answered")),
                static_cast<unsigned long long>(NumberIn(one, "waiting")));
  }
  std::printf("\n%-40s %8s %-12s %14s %10s\n", "CONTAINER", "USER", "PATH", "CALLS", "IN FLIGHT");
  for (const Json& one : status["containers"]) {
    std::printf("%-40.40s %8llu %-12s %14llu %10llu\n", TextIn(one, "name").c_str(),
                static_cast<unsigned long long>(NumberIn(one, "owner")),
                one.value("accelerated", false) ? "accelerated" : "ordinary",
                static_cast<unsigned long long>(NumberIn(one, "calls")),
                static_cast<unsigned long long>(NumberIn(one, "in_flight")));
  }
}

// What was counted in a second.
void ShowRates(const Json& before, const Json& now) {
  std::printf("%-20s %12s\n", "COUNTER", "PER SECOND");
  for (const auto& [name, value] : now["counters"].items()) {
    if (const uint64_t more = Since(before["counters"], now["counters"], name.c_str()); more != 0)
      std::printf("%-20s %12llu\n", Harmless(name).c_str(), static_cast<unsigned long long>(more));
  }
}

int RunStatus(const CtlOptions& options) {
  absl::StatusOr<Json> status = AskAgent(options.socket, "status");
  if (!status.ok()) return FailCtl(kCtlNoAgent, status.status());
  if (!options.rates) {
    if (options.json) {
      std::printf("%s\n", status->dump(2).c_str());
    } else {
      ShowStatus(*status);
    }
    return 0;
  }
  const timespec second{.tv_sec = 1, .tv_nsec = 0};
  nanosleep(&second, nullptr);
  const absl::StatusOr<Json> later = AskAgent(options.socket, "status");
  if (!later.ok()) return FailCtl(kCtlNoAgent, later.status());
  ShowRates(*status, *later);
  return 0;
}

}  // namespace

void AddCtlCommand(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<CtlOptions>();
  CLI::App* const ctl = app.add_subcommand(
      "ctl",
      "Asks a running agent, and tells it what to do\n\n"
      "  shunt ctl status            containers, reactors, calls in flight, locks in force\n"
      "  shunt ctl status --rates    what happens in a second\n"
      "  shunt ctl upgrade           the program that is installed now takes over, without losing a call\n"
      "  shunt ctl services          services, their backends, and how these do\n"
      "  shunt ctl drain orders 192.168.7.11:8080      it gets no new connections\n");
  ctl->require_subcommand(1);
  ctl->add_option("--socket", options->socket, "The agent's socket, as given to `shunt agent`")
      ->type_name("PATH");
  const auto with_socket = [options, &exit_status](const std::function<int()>& act) {
    if (options->socket.empty()) {
      const absl::StatusOr<std::string> socket = DefaultAgentSocket();
      if (!socket.ok()) {
        exit_status = FailCtl(kCtlNoAgent, socket.status());
        return;
      }
      options->socket = *socket;
    }
    options->socket = ControlSocketOf(options->socket);
    exit_status = act();
  };
  CLI::App* const status = ctl->add_subcommand("status", "Shows how the agent does");
  status->add_flag("--json", options->json, "As JSON");
  status->add_flag("--rates", options->rates, "What is counted in one second");
  status->callback([=] { with_socket([options] { return RunStatus(*options); }); });
  for (const char* const command : {"upgrade", "reload"}) {
    const bool upgrade = std::strcmp(command, "upgrade") == 0;
    ctl->add_subcommand(command,
                        upgrade ? "Has the program that is installed now take over, without losing a call"
                                : "Has the configuration read again, as SIGHUP does")
        ->callback(
            [=] { with_socket([options, command] { return CommandAgent(options->socket, command); }); });
  }
  AddServiceCommands(*ctl, [=](const std::function<int(const std::string&)>& act) {
    with_socket([options, &act] { return act(options->socket); });
  });
}

}  // namespace shunt
