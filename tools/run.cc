// SPDX-License-Identifier: Apache-2.0

#include "tools/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tools/agent_config.h"
#include "tools/run_engine.h"
#include "tools/run_front.h"
#include "tools/run_terminal.h"

namespace shunt {
namespace {

// The options as they were typed, as far as CLI11 cannot judge them.
struct TypedOptions {
  std::string user;
  std::string net;
  std::vector<std::string> publish;
  std::vector<std::string> ignore;
  std::string affinity = "pin";
  bool no_accelerate = false;
};

absl::Status WrongOption(const char* option, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", status.message()));
}

absl::Status Interpret(const TypedOptions& typed, RunOptions& options) {
  if (!typed.user.empty()) {
    absl::StatusOr<UserIds> user = ParseUserIds(typed.user);
    if (!user.ok()) return WrongOption("--user", user.status());
    options.user = *user;
  }
  if (typed.net == "slirp4netns") options.net = RunOptions::Net::kSlirp4netns;
  if (typed.net == "pasta") options.net = RunOptions::Net::kPasta;
  if (typed.net == "none") options.net = RunOptions::Net::kNone;
  for (const std::string& text : typed.publish) {
    absl::StatusOr<net::Publish> publish = net::ParsePublish(text);
    if (!publish.ok()) return WrongOption("--publish", publish.status());
    options.publish.push_back(*publish);
  }
  if (absl::Status status = net::CheckPublishList(options.publish); !status.ok()) {
    return WrongOption("--publish", status);
  }
  for (const std::string& text : typed.ignore) {
    absl::StatusOr<net::Subnet> subnet = net::ParseSubnet(text);
    if (!subnet.ok()) return WrongOption("--ignore", subnet.status());
    if (!options.ignore.Add(*subnet)) {
      return absl::InvalidArgumentError(absl::StrCat("--ignore: at most ", net::SubnetSet::kCapacity,
                                                     " networks; join some to larger ones"));
    }
  }
  if (!options.rootfs.empty()) {
    const std::unique_ptr<char, decltype(&free)> path(realpath(options.rootfs.c_str(), nullptr), &free);
    if (path == nullptr)
      return absl::InvalidArgumentError(absl::StrCat("--rootfs: ", options.rootfs, ": ", strerror(errno)));
    options.rootfs = path.get();
    if (options.rootfs == "/")
      return absl::InvalidArgumentError("--rootfs: / is the host's; leave the option out");
  }
  if (!options.services.empty()) {
    absl::StatusOr<std::string> text = ReadConfigText(options.services);
    if (!text.ok()) return text.status();
    const absl::StatusOr<AgentConfig> config = ParseAgentConfig(*text, options.services);
    if (!config.ok()) return config.status();
    options.services_text = *std::move(text);
    options.names_services = std::any_of(
        config->services.begin(), config->services.end(),
        [](const net::ServiceSpec& service) { return service.peer_name == net::PeerName::kService; });
  }
  options.accelerate = !typed.no_accelerate;
  options.accelerator.affinity = typed.affinity == "float" ? Affinity::kFloat : Affinity::kPin;
  return absl::OkStatus();
}

// Of the processes that exist for the container's sake, this one leaves the standard streams to the command
// first.
void CloseStandardStreams() {
  const Fd null_fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  dup2(null_fd.get(), STDIN_FILENO);
  dup2(null_fd.get(), STDOUT_FILENO);
}

int RunInContainer(const RunOptions& options) {
  const Terminal terminal = Terminal::Open();
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    std::fprintf(stderr, "shunt run: make a socket pair: %s\n", strerror(errno));
    return 1;
  }
  const Fd front_link(pair[0]);
  Fd init_link(pair[1]);
  const pid_t front = getpid();
  const pid_t engine = fork();
  if (engine < 0) {
    std::fprintf(stderr, "shunt run: fork: %s\n", strerror(errno));
    return 1;
  }
  if (engine == 0) {
    // Whoever kills the front has killed everything.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != front) return 1;
    close(pair[0]);
    return RunEngine(options, terminal, std::move(init_link));
  }
  init_link.reset();
  CloseStandardStreams();
  return FollowCommand(terminal, front_link.get(), engine);
}

}  // namespace

void AddRunCommand(CLI::App& app, int& exit_status) {
  struct Shared {
    RunOptions options;
    TypedOptions typed;
  };
  const auto shared = std::make_shared<Shared>();
  RunOptions& options = shared->options;
  TypedOptions& typed = shared->typed;

  CLI::App* const run = app.add_subcommand(
      "run",
      "Run a command in a container of its own, with its connections at the host network's speed.\n\n"
      "  shunt run -- curl -O http://192.0.2.1/image.iso\n"
      "  shunt run -p 8080:80 --rootfs ./debian -- nginx -g 'daemon off;'\n"
      "  shunt run --net none --no-accelerate -- make test      no network at all\n");
  run->positionals_at_end();
  run->add_option("--rootfs", options.rootfs, "Use DIR as the root directory instead of the host's files")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory.description(""));
  run->add_option("--user", typed.user, "Run the command as this user of the container instead of 0")
      ->type_name("UID[:GID]");
  run->add_option("--net", typed.net,
                  "The ordinary network, for all that is not accelerated; the first that works if not given")
      ->type_name("slirp4netns|pasta|none")
      ->check(CLI::IsMember({"slirp4netns", "pasta", "none"}).description(""));
  run->add_option("-p,--publish", typed.publish,
                  "Make a port of the container reachable on the host; repeatable")
      ->type_name("[HOSTIP:]HOSTPORT:PORT[/tcp]")
      ->expected(1)
      ->take_all();
  run->add_option("--ignore", typed.ignore, "Leave this network on the ordinary path; repeatable")
      ->type_name("CIDR")
      ->expected(1)
      ->take_all();
  run->add_option("--services", options.services,
                  "Balance connections to the services of this file, an agent's configuration")
      ->type_name("FILE");
  run->add_flag("--no-accelerate", typed.no_accelerate, "Leave everything on the ordinary path");
  run->add_option("--affinity", typed.affinity, "Keep each reactor on its CPU or let it move")
      ->capture_default_str()
      ->type_name("pin|float")
      ->check(CLI::IsMember({"pin", "float"}).description(""));
  run->add_option("--lock-socket", options.accelerator.lock_socket,
                  "Where the host's administrator hands out socket locks")
      ->type_name("PATH");
  run->add_flag("-v,--verbose", options.verbose,
                "Say which network, ids and locks are in force, and what was counted in the end");
  run->add_option("COMMAND", options.command, "The command and its arguments")->required()->type_name("");
  run->callback([shared, &exit_status] {
    if (absl::Status status = Interpret(shared->typed, shared->options); !status.ok()) {
      std::fprintf(stderr, "shunt run: %s\n", std::string(status.message()).c_str());
      exit_status = 2;
      return;
    }
    exit_status = RunInContainer(shared->options);
  });
}

}  // namespace shunt
