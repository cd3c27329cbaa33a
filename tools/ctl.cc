// SPDX-License-Identifier: Apache-2.0
#include "tools/ctl.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/fd.h"
#include "core/result.h"
#include "tools/agent.h"
#include "tools/harmless.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

constexpr int kFailed = 1;
constexpr int kNoAgent = 2;

struct CtlOptions {
  std::string socket;
  bool json = false;
  bool rates = false;
};

// Sends one command and returns the answer.
absl::StatusOr<Json> Ask(const std::string& path, std::string command) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return absl::InvalidArgumentError(path + ": too long for a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // An engine that is being replaced answers late, one that hangs is replaced.
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return ToStatus({errno}, absl::StrCat("reach an agent on ", path, " (choose another with --socket)"));
  command += '\n';
  if (send(socket.get(), command.data(), command.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(command.size()))
    return ToStatus({errno}, absl::StrCat("ask the agent on ", path));
  std::string answer;
  std::array<char, 65536> chunk;
  ssize_t got;
  while ((got = recv(socket.get(), chunk.data(), chunk.size(), 0)) > 0)
    answer.append(chunk.data(), static_cast<size_t>(got));
  if (got < 0) return ToStatus({errno}, absl::StrCat("wait for the answer of the agent on ", path));
  Json json = Json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return absl::UnavailableError("the engine has ended instead of answering; ask again");
  return json;
}

uint64_t Number(const Json& object, const char* key) {
  return object.value(key, uint64_t{0});
}

std::string Text(const Json& object, const char* key) {
  return Harmless(object.value(key, std::string()));
}

// How much more there is of `key` in `now`.
uint64_t Since(const Json& before, const Json& now, const char* key) {
  const uint64_t old = Number(before, key), young = Number(now, key);
  return young > old ? young - old : 0;
}

void ShowStatus(const Json& status) {
  std::printf("engine %llu, version %s\n", static_cast<unsigned long long>(Number(status, "engine_pid")),
              Text(status, "version").c_str());
  std::printf("%s\n\n", Text(status, "locks").c_str());
  std::printf("%-8s %5s %14s %14s %8s\n", "REACTOR", "CPU", "RECEIVED", "ANSWERED", "WAITING");
  int index = 0;
  for (const Json& one : status["reactors"]) {
    const int cpu = one.value("cpu", -1);
    std::printf("%-8d %5s %14llu %14llu %8llu\n", index++, cpu < 0 ? "any" : std::to_string(cpu).c_str(),
                static_cast<unsigned long long>(Number(one, "received")),
                static_cast<unsigned long long>(Number(one, "answered")),
                static_cast<unsigned long long>(Number(one, "waiting")));
  }
  std::printf("\n%-40s %8s %-12s %14s %10s\n", "CONTAINER", "USER", "PATH", "CALLS", "IN FLIGHT");
  for (const Json& one : status["containers"]) {
    std::printf("%-40.40s %8llu %-12s %14llu %10llu\n", Text(one, "name").c_str(),
                static_cast<unsigned long long>(Number(one, "owner")),
                one.value("accelerated", false) ? "accelerated" : "ordinary",
                static_cast<unsigned long long>(Number(one, "calls")),
                static_cast<unsigned long long>(Number(one, "in_flight")));
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

int Fail(int exit_status, const absl::Status& why) {
  std::fprintf(stderr, "shunt ctl: %s\n", std::string(why.message()).c_str());
  return exit_status;
}

int RunStatus(const CtlOptions& options) {
  absl::StatusOr<Json> status = Ask(options.socket, "status");
  if (!status.ok()) return Fail(kNoAgent, status.status());
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
  const absl::StatusOr<Json> later = Ask(options.socket, "status");
  if (!later.ok()) return Fail(kNoAgent, later.status());
  ShowRates(*status, *later);
  return 0;
}

int RunCommand(const CtlOptions& options, const std::string& command) {
  const absl::StatusOr<Json> answer = Ask(options.socket, command);
  if (!answer.ok()) return Fail(kNoAgent, answer.status());
  if (answer->contains("error")) return Fail(kFailed, absl::UnavailableError(Text(*answer, "error")));
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
      "  shunt ctl upgrade           the program that is installed now takes over, without losing a call\n");
  ctl->require_subcommand(1);
  ctl->add_option("--socket", options->socket, "The agent's socket, as given to `shunt agent`")
      ->type_name("PATH");
  const auto with_socket = [options, &exit_status](const std::function<int()>& act) {
    if (options->socket.empty()) {
      const absl::StatusOr<std::string> socket = DefaultAgentSocket();
      if (!socket.ok()) {
        exit_status = Fail(kNoAgent, socket.status());
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
        ->callback([=] { with_socket([options, command] { return RunCommand(*options, command); }); });
  }
}

}  // namespace shunt
