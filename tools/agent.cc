// SPDX-License-Identifier: Apache-2.0
// `shunt agent`: see agent.h. The order here: what is made before the first engine, the process, the command
// line.

#include "tools/agent.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/confinement.h"
#include "core/result.h"
#include "core/socket_file.h"
#include "tools/agent_config.h"
#include "tools/agent_role.h"
#include "tools/check_config.h"
#include "tools/counter_line.h"
#include "tools/harmless.h"
#include "tools/in_flight.h"
#include "tools/keeper.h"
#include "tools/kube_server.h"
#include "tools/log.h"
#include "tools/metrics_socket.h"
#include "tools/network_reading.h"
#include "tools/process_limits.h"
#include "tools/runtime_door.h"
#include "tools/stored_holdings.h"
#include "tools/systemd.h"

namespace shunt {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

// ---- what is made before the first engine

// Of the agent's default socket: it is ours.
absl::Status MakeFolderOf(const std::string& socket) {
  const std::string folder = socket.substr(0, socket.rfind('/'));
  if (mkdir(folder.c_str(), geteuid() == 0 ? 0755 : 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return ToStatus(Errno{errno},
                  absl::StrCat("make the folder ", folder, " (or choose another with --socket PATH)"));
}

}  // namespace

absl::StatusOr<std::string> DefaultAgentSocket() {
  if (geteuid() == 0) return "/run/shunt/agent.sock";
  const char* runtime_dir = std::getenv("XDG_RUNTIME_DIR");
  if (runtime_dir == nullptr || *runtime_dir == '\0') {
    return absl::InvalidArgumentError(
        "XDG_RUNTIME_DIR is not set: say where the socket is to be, with --socket PATH");
  }
  return absl::StrCat(runtime_dir, "/shunt/agent.sock");
}

namespace {

// Blocks the signals that we read instead. Engines begin with none blocked.
absl::StatusOr<Fd> SignalDescriptor() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&signals, signal);
  if (sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) return ToStatus(Errno{errno}, "block signals");
  Fd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return ToStatus(Errno{errno}, "make a signalfd");
  return fd;
}

absl::Status CheckReadyFd(int fd) {
  if (fd == -1) return absl::OkStatus();
  if (fd <= STDERR_FILENO || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ready-fd ", fd, ": should be an open descriptor above 2, for example 3 with 3>FILE"));
  }
  return absl::OkStatus();
}

// Who gives it expects labels and annotations to count, which nobody would ask for.
absl::Status CheckKubeconfig(const AgentOptions& options) {
  if (options.kubeconfig.empty() || options.resolver == "kubernetes") return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--kubeconfig ", options.kubeconfig,
                                                 ": should stand beside --resolver kubernetes: with ",
                                                 "--resolver ", options.resolver, " no API server is asked"));
}

absl::Status CheckKubeServer(const AgentOptions& options) {
  const absl::Status status = FindKubeServer(options.kubeconfig).status();
  if (status.ok() || options.kubeconfig.empty()) return status;
  return absl::Status(status.code(), absl::StrCat("--kubeconfig: ", status.message()));
}

// For engines: what they need to know that this process was told.
std::vector<std::string> EngineArguments(const AgentOptions& options) {
  std::vector<std::string> arguments = {"agent", "--affinity", options.affinity};
  const auto add = [&arguments](const char* name, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {name, value});
  };
  add("--config", options.config);
  add("--lock-socket", options.lock_socket);
  for (const uid_t uid : options.allow_uids) add("--allow-uid", std::to_string(uid));
  add("--resolver", options.resolver);
  add("--kubeconfig", options.kubeconfig);
  add("--register", options.registers);
  if (options.strict) arguments.emplace_back("--strict");
  if (options.verbose) arguments.emplace_back("--verbose");
  return arguments;
}

// ---- the process

class Agent {
 public:
  Agent(const AgentOptions& options, ServiceManager manager)
      : options_(options), manager_(std::move(manager)) {}

  // Returns an exit status, or nothing if all is ready for Run().
  std::optional<int> Begin(AgentSettings settings, const AgentConfig& config);
  // Until SIGTERM or SIGINT.
  int Run(int signal_fd);

 private:
  absl::Status TakeSockets(AgentSettings& settings, const AgentConfig& config, Adopted& adopted);
  absl::Status HoldAll(const AgentSettings& settings, Adopted adopted);
  void OnReady();
  void OnEnded(const absl::Status& status);
  void HandleSignals(int signal_fd);
  void SayCounters() const;

  const AgentOptions& options_;
  ServiceManager manager_;
  SocketFile intake_, control_;  // until the keeper has them
  bool holds_intake_ = false;    // the service manager has kept it for us
  bool holds_control_ = false;
  Fd metrics_;                   // the same; not valid: none, or the service manager has kept it
  std::string metrics_address_;  // where it is reached
  std::unique_ptr<Keeper> keeper_;
  std::unique_ptr<RuntimeDoor> door_;
  bool was_ready_ = false;
  std::optional<int> exit_status_;
};

// Who has called it wrongly reads one line like that of any command; the rest is the service's log.
int Fail(int exit_status, const absl::Status& why) {
  if (exit_status == kWrongUsage) {
    std::fprintf(stderr, "shunt agent: %s\n", Harmless(std::string(why.message())).c_str());
    return exit_status;
  }
  log::Error("shunt agent: {}", log::Text(why));
  return exit_status;
}

std::optional<int> Agent::Begin(AgentSettings settings, const AgentConfig& config) {
  Adopted adopted = AdoptPassed(manager_);
  if (absl::Status status = TakeSockets(settings, config, adopted); !status.ok())
    return Fail(kWrongUsage, status);
  KeeperOptions options{
      .starter = {.arguments = EngineArguments(options_)},
      .say = [](absl::string_view text) { log::Warning("{}", std::string_view(text.data(), text.size())); },
      .fail_in_flight = FailInFlight,
  };
  KeeperEvents events{
      .ready = [this](uint64_t, std::string_view) { OnReady(); },
      .upgraded =
          [](const absl::StatusOr<std::string>& how) {
            if (how.ok()) {
              log::Info("upgraded: {}", *how);
            } else {
              log::Error("the upgrade failed, and the old engine goes on: {}", log::Text(how.status()));
            }
          },
      .ended = [this](const absl::Status& status) { OnEnded(status); },
  };
  absl::StatusOr<std::unique_ptr<Keeper>> keeper =
      Keeper::Create(std::move(options), std::move(events), &manager_);
  if (!keeper.ok()) return Fail(kFailed, keeper.status());
  keeper_ = *std::move(keeper);
  if (absl::Status status = HoldAll(settings, std::move(adopted)); !status.ok()) return Fail(kFailed, status);
  keeper_->Begin();
  return {};
}

Fd CopyOf(int fd) {
  return Fd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

// The sockets: handed to us by a service manager, kept by it over a restart of ours, or made now.
absl::Status Agent::TakeSockets(AgentSettings& settings, const AgentConfig& config, Adopted& adopted) {
  AgentSettings stored;
  for (Adopted::One& one : adopted.holdings) {
    if (one.name == HoldingName{HoldingTag::kSettings, 0}) {
      if (absl::StatusOr<AgentSettings> read = AgentSettings::FromFile(one.fds[0].get()); read.ok())
        stored = *read;
      // An agent that has left in good order has removed its sockets: nobody would reach us by what is kept.
      if (!SocketFile::IsInPlace(stored.socket, stored.socket_node)) stored.socket.clear();
      if (!SocketFile::IsInPlace(stored.control, stored.control_node)) stored.control.clear();
    }
  }
  for (const Adopted::One& one : adopted.holdings) {
    if (one.name == HoldingName{HoldingTag::kIntake, 0} && stored.socket == settings.socket) {
      intake_ = SocketFile::Adopt(CopyOf(one.fds[0].get()), settings.socket, stored.socket_node);
      holds_intake_ = true;
    }
    if (one.name.tag == HoldingTag::kControl && stored.control == settings.control) {
      control_ = SocketFile::Adopt(CopyOf(one.fds[0].get()), settings.control, stored.control_node);
      holds_control_ = true;
    }
  }
  for (const Adopted::One& one : adopted.holdings) {
    if (one.name.tag == HoldingTag::kMetrics && stored.metrics == settings.metrics)
      metrics_address_ = MetricsAddressOf(one.fds[0].get());
  }
  if (!settings.metrics.empty() && metrics_address_.empty()) {
    absl::StatusOr<Fd> made = ListenForMetrics(settings.metrics);
    if (!made.ok()) return made.status();
    metrics_ = *std::move(made);
    metrics_address_ = MetricsAddressOf(metrics_.get());
  }
  std::vector<uid_t> uids = options_.allow_uids;
  uids.insert(uids.end(), config.allow_uids.begin(), config.allow_uids.end());
  if (adopted.activated.valid()) {
    intake_ = SocketFile::Adopt(std::move(adopted.activated), settings.socket, {});
    holds_intake_ = false;
  } else if (intake_.fd() < 0) {
    absl::StatusOr<SocketFile> made = SocketFile::Listen(settings.socket, PeerRule(uids).Others());
    if (!made.ok()) return made.status();
    WarnIfOpen(*made);
    intake_ = *std::move(made);
  }
  if (control_.fd() < 0) {
    absl::StatusOr<SocketFile> made = SocketFile::Listen(settings.control);
    if (!made.ok()) {
      intake_.Remove();
      return made.status();
    }
    control_ = *std::move(made);
  }
  settings.socket_node = intake_.node();
  settings.control_node = control_.node();
  return absl::OkStatus();
}

absl::Status Agent::HoldAll(const AgentSettings& settings, Adopted adopted) {
  // What the service manager has kept comes first; what is new then takes its place there, too.
  for (Adopted::One& one : adopted.holdings) {
    if (absl::Status status = keeper_->HoldAdopted(one.name, std::move(one.fds)); !status.ok()) return status;
  }
  const auto hold = [this](HoldingTag tag, Fd fd) -> absl::Status {
    if (!fd.valid())
      return absl::ResourceExhaustedError("no descriptor is free; raise the limit (ulimit -n)");
    std::vector<Fd> fds;
    fds.push_back(std::move(fd));
    return keeper_->Hold({tag, 0}, std::move(fds));
  };
  absl::StatusOr<Fd> file = settings.ToFile();
  absl::Status status = file.status();
  if (status.ok()) status = hold(HoldingTag::kSettings, *std::move(file));
  if (status.ok() && !holds_intake_) status = hold(HoldingTag::kIntake, CopyOf(intake_.fd()));
  if (status.ok() && !holds_control_) status = hold(HoldingTag::kControl, control_.Release());
  if (status.ok() && metrics_.valid()) status = hold(HoldingTag::kMetrics, std::move(metrics_));
  door_ = std::make_unique<RuntimeDoor>(intake_.Release(), *keeper_);
  return status;
}

void Agent::OnReady() {
  manager_.Ready();
  if (std::exchange(was_ready_, true)) return;
  // Not before: should no engine come up, we remove the sockets, which the filter forbids.
  if (const absl::StatusOr<std::string> confined = ConfineKeeper(); confined.ok()) {
    log::Info("confinement: {}", *confined);
  } else {
    log::Warning("confinement: {}", log::Text(confined.status()));
  }
  if (!metrics_address_.empty()) log::Info("metrics on http://{}/metrics", metrics_address_);
  log::Info("waiting for containers on {}", options_.socket);
  if (options_.ready_fd < 0) return;
  const Fd ready(options_.ready_fd);
  const char byte = 1;
  if (write(ready.get(), &byte, 1) != 1)
    log::Warning("--ready-fd {}: {}", options_.ready_fd, std::strerror(errno));
}

void Agent::OnEnded(const absl::Status& status) {
  exit_status_ = status.ok() ? 0 : Fail(kFailed, status);
}

int Agent::Run(int signal_fd) {
  while (!exit_status_) {
    // An engine that has never come up is not going to.
    if (!was_ready_ && keeper_->gave_up()) {
      exit_status_ = kFailed;
      break;
    }
    std::array<pollfd, 3> sources{
        {{signal_fd, POLLIN, 0}, {keeper_->event_fd(), POLLIN, 0}, {door_->fd(), POLLIN, 0}}};
    if (poll(sources.data(), sources.size(), door_->timeout()) < 0) continue;  // EINTR: not read by us
    if (sources[0].revents != 0) HandleSignals(signal_fd);
    if (sources[1].revents != 0) keeper_->HandleEvents();
    if (sources[2].revents != 0) door_->Accept();
  }
  if (!was_ready_) {  // later it is engines that remove them
    intake_.Remove();
    control_.Remove();
  }
  return *exit_status_;
}

void Agent::HandleSignals(int signal_fd) {
  signalfd_siginfo signal{};
  while (read(signal_fd, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal))) {
    switch (static_cast<int>(signal.ssi_signo)) {
      case SIGHUP:
        manager_.Reloading();
        keeper_->Reload();
        manager_.Ready();
        break;
      case SIGUSR1:
        SayCounters();
        break;
      case SIGUSR2:
        if (absl::Status status = keeper_->Upgrade(); !status.ok())
          log::Error("cannot upgrade now: {}", log::Text(status));
        break;
      default:
        log::Info("{}: the end", signal.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        door_->Close();
        keeper_->Leave();
    }
  }
}

// What all engines have counted since this process was started.
void Agent::SayCounters() const {
  CounterValues sum{};
  for (const auto& [name, holding] : keeper_->holdings().all()) {
    if (name.tag == HoldingTag::kJournal) AddJournal(holding->fds()[0], sum);
  }
  log::Info("{}", CounterLine(sum));
}

int RunAgent(AgentOptions options) {
  log::Start(options.verbose ? log::Level::kDebug : log::Level::kInfo);
  if (absl::Status status = CheckKubeconfig(options); !status.ok()) return Fail(kWrongUsage, status);
  if (!options.check_config.empty()) return CheckConfig(options.check_config);
  if (absl::Status status = CheckReadyFd(options.ready_fd); !status.ok()) return Fail(kWrongUsage, status);
  if (options.resolver == "kubernetes") {
    if (absl::Status status = CheckKubeServer(options); !status.ok()) return Fail(kWrongUsage, status);
    if (absl::Status status = FindNodeName().status(); !status.ok()) return Fail(kWrongUsage, status);
  }
  AgentSettings settings;
  AgentConfig config;
  if (!options.config.empty()) {
    absl::StatusOr<std::string> text = ReadConfigText(options.config);
    if (!text.ok()) return Fail(kWrongUsage, text.status());
    absl::StatusOr<AgentConfig> read = ParseAgentConfig(*text, options.config);
    if (!read.ok()) return Fail(kWrongUsage, read.status());
    settings.configuration = *std::move(text);
    config = *std::move(read);
  }
  if (!options.registers.empty()) {
    if (absl::Status status = CheckRegisters(config.multinode); !status.ok()) {
      return Fail(kWrongUsage, absl::InvalidArgumentError(
                                   absl::StrCat("--register ", options.registers, ": ", status.message())));
    }
  }
  if (options.socket.empty()) {
    absl::StatusOr<std::string> socket = DefaultAgentSocket();
    if (!socket.ok()) return Fail(kWrongUsage, socket.status());
    if (absl::Status made = MakeFolderOf(*socket); !made.ok()) return Fail(kWrongUsage, made);
    options.socket = *std::move(socket);
  }
  settings.socket = options.socket;
  settings.control = ControlSocketOf(options.socket);
  settings.metrics =
      options.metrics_bind_address.empty() ? config.metrics_bind_address : options.metrics_bind_address;
  log::SetLevel(options.verbose ? log::Level::kDebug : config.log_level);
  RaiseDescriptorLimit();
  const absl::StatusOr<Fd> signal_fd = SignalDescriptor();
  if (!signal_fd.ok()) return Fail(kFailed, signal_fd.status());
  Agent agent(options, ServiceManager::FromEnvironment(options.fd_store ? ServiceManager::FdStore::kAlways
                                                                        : ServiceManager::FdStore::kAsTold));
  if (const std::optional<int> status = agent.Begin(std::move(settings), config)) return *status;
  return agent.Run(signal_fd->get());
}

}  // namespace

std::string ControlSocketOf(const std::string& agent_socket) {
  return agent_socket + ".ctl";
}

void AddAgentCommand(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<AgentOptions>();
  CLI::App* command = app.add_subcommand(
      "agent",
      "Serves the containers of OCI runtimes until SIGTERM; SIGHUP reads the configuration again\n\n"
      "  shunt agent                                  on the default socket\n"
      "  shunt agent --socket /run/user/1000/s.sock   on another; name it in `shunt profile --listener` as "
      "well\n"
      "  shunt agent --allow-uid 1000                 for another user's containers, too\n"
      "  shunt agent --config agent.yaml              with rules: who may connect, what is ignored or "
      "published\n");
  command
      ->add_option("--socket", options->socket,
                   "Where runtimes hand listeners over [$XDG_RUNTIME_DIR/shunt/agent.sock; "
                   "root: /run/shunt/agent.sock]")
      ->type_name("PATH");
  command->add_option("--config", options->config, "Configuration (YAML)")->type_name("FILE");
  command
      ->add_option("--allow-uid", options->allow_uids,
                   "A user who may hand containers over, beside root and ourselves; repeatable")
      ->type_name("UID")
      ->expected(1)
      ->take_all()
      ->check([](const std::string& text) { return log::Text(ParseUid(text).status()); });
  command
      ->add_option("--ready-fd", options->ready_fd,
                   "Descriptor that gets one byte, and is closed, when runtimes can connect")
      ->type_name("N")
      ->check([](const std::string& text) {
        int number = 0;
        if (absl::SimpleAtoi(text, &number)) return std::string();
        return absl::StrCat("\"", text, "\" should be a descriptor's number, for example 3 with 3>FILE");
      });
  command->add_option("--affinity", options->affinity, "pin: one thread to each CPU; float: let them move")
      ->capture_default_str()
      ->type_name("pin|float")
      ->check(CLI::IsMember({"pin", "float"}).description(""));
  command
      ->add_option("--lock-socket", options->lock_socket, "Where the privileged step hands out the eBPF lock")
      ->type_name("PATH");
  command
      ->add_option("--metrics-bind-address", options->metrics_bind_address,
                   "Serve metrics there, for Prometheus: at /metrics [not at all]")
      ->type_name("[HOST]:PORT")
      ->check([](const std::string& text) {
        if (text.empty()) return std::string();
        const absl::Status status = ParseMetricsAddress(text).status();
        return status.ok() ? std::string() : log::Text(status);
      });
  command
      ->add_option(
          "--resolver", options->resolver,
          "What tells a container's policy, beside the configuration: its metadata; none; demo-basic, "
          "the same for all; kubernetes, its metadata, with what kubelet and API server know of its pod")
      ->capture_default_str()
      ->type_name("metadata|none|demo-basic|kubernetes")
      ->check(CLI::IsMember({"metadata", "none", "demo-basic", "kubernetes"}).description(""));
  command
      ->add_option(
          "--kubeconfig", options->kubeconfig,
          "With --resolver kubernetes only: how to reach the API server [$KUBECONFIG; in a pod: by its "
          "service account]")
      ->type_name("FILE");
  command
      ->add_option("--register", options->registers,
                   "Announce published ports of containers there, to other machines: see multinode in the "
                   "configuration")
      ->type_name("etcd")
      ->check(CLI::IsMember({"etcd"}).description(""));
  command->add_flag("--strict", options->strict,
                    "Refuse a container whose metadata has a mistake, or whose pod the API server does not "
                    "tell: all its trapped calls fail");
  command
      ->add_option("--check-config", options->check_config,
                   "Do not serve; explain this configuration line by line, or say what is wrong with it")
      ->type_name("FILE");
  command->add_flag("--verbose", options->verbose, "Log everything");
  command->add_flag(
      "--fd-store", options->fd_store,
      "The service manager keeps descriptors for us (FileDescriptorStoreMax=); not needed where it "
      "says so itself (systemd 254)");
  command->callback([options, &exit_status] { exit_status = RunAgent(*options); });
}

}  // namespace shunt
