// SPDX-License-Identifier: Apache-2.0
// `shunt agent`: see agent.h. The order here: the process, the agent, the command line.

#include "tools/agent.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/intake.h"
#include "core/result.h"
#include "tools/agent_config.h"
#include "tools/container_pid.h"
#include "tools/counter_line.h"
#include "tools/log.h"
#include "tools/port_registry.h"

namespace shunt {
namespace {

// ---- the process

// Where the socket is if nobody says otherwise. Its folder is made too: it is ours.
absl::StatusOr<std::string> DefaultSocket() {
  std::string parent = "/run";
  mode_t mode = 0755;
  if (geteuid() != 0) {
    const char* runtime_dir = std::getenv("XDG_RUNTIME_DIR");
    if (runtime_dir == nullptr || *runtime_dir == '\0') {
      return absl::InvalidArgumentError(
          "XDG_RUNTIME_DIR is not set: say where the socket is to be, with --socket PATH");
    }
    parent = runtime_dir;
    mode = 0700;
  }
  const std::string folder = parent + "/shunt";
  if (mkdir(folder.c_str(), mode) != 0 && errno != EEXIST) {
    return ToStatus(Errno{errno},
                    absl::StrCat("make the folder ", folder, " (or choose another with --socket PATH)"));
  }
  return folder + "/agent.sock";
}

// Containers bring descriptors: take all that we may.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Blocks the signals that we read instead. Before any thread starts: threads inherit the mask.
absl::StatusOr<Fd> SignalDescriptor() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  if (sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) return ToStatus(Errno{errno}, "block signals");
  Fd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return ToStatus(Errno{errno}, "make a signalfd");
  return fd;
}

// Tells the service manager, if there is one. The protocol is one datagram: not worth a dependency on
// libsystemd.
void NotifyServiceManager(const std::string& message) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  const size_t length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (sendto(socket.get(), message.data(), message.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    log::Warning("cannot tell the service manager on {}: {}", path, std::strerror(errno));
  }
}

void TellReady(int ready_fd) {
  NotifyServiceManager("READY=1");
  if (ready_fd < 0) return;
  const Fd ready(ready_fd);
  const char byte = 1;
  if (write(ready.get(), &byte, 1) != 1) log::Warning("--ready-fd {}: {}", ready_fd, std::strerror(errno));
}

// ---- the agent

class Agent {
 public:
  Agent(AgentOptions options, AgentConfig config)
      : options_(std::move(options)), config_(std::move(config)) {}

  // Takes the socket. Nothing is served before Start().
  absl::Status Listen();
  absl::Status Start(const StartAccelerator& start);
  // Until SIGTERM or SIGINT.
  void Run(int signal_fd);

 private:
  PeerRule Peers(const AgentConfig& config) const;
  void Receive(Handover handover);
  void Serve(Handover& handover);
  void KeepOrdinary(Handover& handover, const absl::Status& why);
  void Claim(const ContainerKey& container, ContainerSpec& spec);
  void Ended(const ContainerKey& container);
  // False: it is time to go.
  bool HandleSignals(int signal_fd);
  void Reload();

  AgentOptions options_;
  AgentConfig config_;
  PortRegistry ports_;
  size_t listeners_ = 0;  // being served
  std::unique_ptr<Accelerator> accelerator_;
  std::unique_ptr<Intake> intake_;  // last: goes first, so that nobody connects to an agent that is going
};

log::Level LevelFor(const AgentOptions& options, const AgentConfig& config) {
  return options.verbose ? log::Level::kDebug : config.log_level;
}

PeerRule Agent::Peers(const AgentConfig& config) const {
  std::vector<uid_t> uids = options_.allow_uids;
  uids.insert(uids.end(), config.allow_uids.begin(), config.allow_uids.end());
  return PeerRule(std::move(uids));
}

absl::Status Agent::Listen() {
  IntakeOptions options;
  options.path = options_.socket;
  options.peers = Peers(config_);
  auto intake =
      Intake::Listen(std::move(options), [this](Handover handover) { Receive(std::move(handover)); });
  if (!intake.ok()) return intake.status();
  intake_ = *std::move(intake);
  return absl::OkStatus();
}

absl::Status Agent::Start(const StartAccelerator& start) {
  auto accelerator = start(options_.accelerator);
  if (!accelerator.ok()) return accelerator.status();
  accelerator_ = *std::move(accelerator);
  log::Info("{}", accelerator_->LocksInForce());
  if (!accelerator_->CanPublish()) {
    log::Warning("published ports stay inside: the container's network helper has to forward them");
  }
  return absl::OkStatus();
}

void Agent::Run(int signal_fd) {
  std::array<pollfd, 3> sources{
      {{signal_fd, POLLIN, 0}, {accelerator_->event_fd(), POLLIN, 0}, {intake_->event_fd(), POLLIN, 0}}};
  for (;;) {
    if (poll(sources.data(), sources.size(), -1) < 0) continue;  // EINTR: a signal that we do not read
    if (sources[0].revents != 0 && !HandleSignals(signal_fd)) return;
    if (sources[1].revents != 0) accelerator_->HandleEvents();
    if (sources[2].revents != 0) intake_->HandleEvents();
  }
}

void Agent::Receive(Handover handover) {
  if (handover.status.ok()) {
    Serve(handover);
  } else {
    KeepOrdinary(handover, handover.status);
  }
}

std::string PortList(const std::vector<net::Publish>& ports) {
  return absl::StrJoin(ports, ",",
                       [](std::string* out, const net::Publish& port) { out->append(port.ToString()); });
}

void Agent::Serve(Handover& handover) {
  const ContainerState& state = handover.state;
  absl::StatusOr<ContainerSpec> spec = SpecFor(state, config_);
  if (!spec.ok()) return KeepOrdinary(handover, spec.status());
  spec->pid = TrustedPid(state.pid, handover.peer);

  const ContainerKey container{handover.peer.uid, state.id};
  Claim(container, *spec);
  const std::string ports = spec->publish.empty() ? "none" : PortList(spec->publish);
  const pid_t pid = spec->pid;
  const absl::StatusOr<std::string> ordinary = accelerator_->Serve(
      std::move(handover.listeners.front()), *std::move(spec), [this, container] { Ended(container); });
  if (!ordinary.ok()) {
    ports_.Release(container);
    log::Error("container {} cannot be served: {}", state.id, log::Text(ordinary.status()));
    return;
  }
  if (!ordinary->empty()) {
    log::Warning("container {}: its connections stay on the ordinary path: {}", state.id, *ordinary);
  }
  ++listeners_;
  log::Info("container {}: serving {} (pid {}, of user {}, published ports: {})", state.id,
            state.status == "running" ? "a process started in it" : "it",
            pid == 0 ? "not known yet" : std::to_string(pid), container.uid, ports);
}

// A listener that nobody answers can hang its container for ever, and even its runtime. So what we cannot
// serve as wanted, we serve as if there were nothing to do.
void Agent::KeepOrdinary(Handover& handover, const absl::Status& why) {
  const std::string name =
      handover.state.id.empty() ? absl::StrCat("of process ", handover.peer.pid) : handover.state.id;
  log::Error("container {} (from user {}): {}{}", name, handover.peer.uid, log::Text(why),
             handover.listeners.empty() ? "" : "; its connections stay on the ordinary path");
  for (Fd& listener : handover.listeners) {
    const ContainerKey container{handover.peer.uid, name};
    std::vector<net::Publish> no_ports;
    ports_.Claim(container, no_ports);
    const absl::StatusOr<std::string> served =
        accelerator_->Serve(std::move(listener), OrdinarySpec(name), [this, container] { Ended(container); });
    if (served.ok()) {
      ++listeners_;
    } else {
      ports_.Release(container);
      log::Error("container {} cannot be served at all: {}", name, log::Text(served.status()));
    }
  }
}

void Agent::Claim(const ContainerKey& container, ContainerSpec& spec) {
  for (const PortRegistry::Conflict& conflict : ports_.Claim(container, spec.publish)) {
    log::Error(
        "container {}: its published port {} belongs to container {} of user {}; binding it will be "
        "EADDRINUSE",
        container.id, conflict.wanted.ToString(), conflict.holder.id, conflict.holder.uid);
    spec.taken.push_back(conflict.wanted);
  }
}

void Agent::Ended(const ContainerKey& container) {
  ports_.Release(container);
  --listeners_;
  log::Info("container {}: ended ({} listeners left, of {} containers)", container.id, listeners_,
            ports_.containers());
}

bool Agent::HandleSignals(int signal_fd) {
  signalfd_siginfo signal{};
  while (read(signal_fd, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal))) {
    if (signal.ssi_signo == SIGUSR1) {
      log::Info("{}", CounterLine(*accelerator_));
      continue;
    }
    if (signal.ssi_signo != SIGHUP) {
      log::Info("{}: leaving {} listeners of {} containers",
                signal.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM", listeners_, ports_.containers());
      log::Info("{}", CounterLine(*accelerator_));
      return false;
    }
    Reload();
  }
  return true;
}

// What is being served keeps the settings with which it came.
void Agent::Reload() {
  if (options_.config.empty()) {
    log::Warning("SIGHUP: there is no configuration to read (--config FILE)");
    return;
  }
  absl::StatusOr<AgentConfig> config = ReadAgentConfig(options_.config);
  absl::Status status = config.status();
  if (status.ok()) status = intake_->Allow(Peers(*config));
  if (!status.ok()) {
    log::Error("the configuration stays as it was: {}", log::Text(status));
    return;
  }
  config_ = *std::move(config);
  log::SetLevel(LevelFor(options_, config_));
  log::Info("read the configuration {}; it holds for containers to come", options_.config);
}

// One line on standard error, before there is a log.
int Fail(int exit_status, const absl::Status& why) {
  log::Error("shunt agent: {}", log::Text(why));
  return exit_status;
}

absl::Status CheckReadyFd(int fd) {
  if (fd == -1) return absl::OkStatus();
  if (fd <= STDERR_FILENO || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ready-fd ", fd, ": should be an open descriptor above 2, for example 3 with 3>FILE"));
  }
  return absl::OkStatus();
}

}  // namespace

int RunAgent(AgentOptions options, const StartAccelerator& start) {
  constexpr int kFailed = 1;
  constexpr int kWrongUsage = 2;
  log::Start(options.verbose ? log::Level::kDebug : log::Level::kInfo);

  if (absl::Status status = CheckReadyFd(options.ready_fd); !status.ok()) return Fail(kWrongUsage, status);
  absl::StatusOr<AgentConfig> config = AgentConfig{};
  if (!options.config.empty()) config = ReadAgentConfig(options.config);
  if (!config.ok()) return Fail(kWrongUsage, config.status());
  if (options.socket.empty()) {
    absl::StatusOr<std::string> socket = DefaultSocket();
    if (!socket.ok()) return Fail(kWrongUsage, socket.status());
    options.socket = *std::move(socket);
  }
  log::SetLevel(LevelFor(options, *config));
  RaiseDescriptorLimit();
  const absl::StatusOr<Fd> signal_fd = SignalDescriptor();
  if (!signal_fd.ok()) return Fail(kFailed, signal_fd.status());

  const int ready_fd = options.ready_fd;
  const std::string socket = options.socket;
  Agent agent(std::move(options), *std::move(config));
  if (absl::Status status = agent.Listen(); !status.ok()) return Fail(kWrongUsage, status);
  if (absl::Status status = agent.Start(start); !status.ok()) return Fail(kFailed, status);
  log::Info("waiting for containers on {}", socket);
  TellReady(ready_fd);
  agent.Run(signal_fd->get());
  NotifyServiceManager("STOPPING=1");
  return 0;
}

void AddAgentCommand(CLI::App& app, int& exit_status, StartAccelerator start) {
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
      ->take_all();
  command
      ->add_option("--ready-fd", options->ready_fd,
                   "Descriptor that gets one byte, and is closed, when runtimes can connect")
      ->type_name("N");
  command
      ->add_option_function<std::string>(
          "--affinity",
          [options](const std::string& how) {
            options->accelerator.affinity = how == "pin" ? Affinity::kPin : Affinity::kFloat;
          },
          "pin: one thread to each CPU; float: let them move")
      ->type_name("pin|float")
      ->check(CLI::IsMember({"pin", "float"}).description(""));
  command
      ->add_option("--lock-socket", options->accelerator.lock_socket,
                   "Where the privileged step hands out the eBPF lock")
      ->type_name("PATH");
  command->add_flag("--verbose", options->verbose, "Log everything");
  command->callback(
      [options, &exit_status, start = std::move(start)] { exit_status = RunAgent(*options, start); });
}

}  // namespace shunt
