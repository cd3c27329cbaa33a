// SPDX-License-Identifier: Apache-2.0
#include "tools/agent_role.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/result.h"
#include "tools/container_pid.h"
#include "tools/counter_line.h"
#include "tools/log.h"
#include "tools/metrics_text.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

log::Level LevelFor(const AgentRoleOptions& options, const AgentConfig& config) {
  return options.verbose ? log::Level::kDebug : config.log_level;
}

std::string ToText(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json ToJson(const NodeIdentity& node) {
  return {{"device", node.device}, {"inode", node.inode}};
}

NodeIdentity NodeFrom(const Json& json) {
  return {.device = json.at("device").get<dev_t>(), .inode = json.at("inode").get<ino_t>()};
}

Json StatusOf(const Accelerator& accelerator) {
  Json reactors = Json::array();
  for (const Accelerator::ReactorStatus& one : accelerator.Reactors()) {
    reactors.push_back(
        {{"cpu", one.cpu}, {"received", one.received}, {"answered", one.answered}, {"waiting", one.waiting}});
  }
  Json containers = Json::array();
  for (const Accelerator::ContainerStatus& one : accelerator.Containers()) {
    containers.push_back({{"name", one.name},
                          {"owner", one.owner},
                          {"accelerated", one.accelerated},
                          {"calls", one.calls},
                          {"in_flight", one.in_flight}});
  }
  Json counters = Json::object();
  for (const Accelerator::CounterValue& one : accelerator.Counters())
    counters[std::string(one.text.name)] = one.value;
  return {{"version", SHUNT_VERSION},
          {"engine_pid", getpid()},
          {"locks", accelerator.LocksInForce()},
          {"reactors", std::move(reactors)},
          {"containers", std::move(containers)},
          {"counters", std::move(counters)}};
}

}  // namespace

absl::StatusOr<Fd> AgentSettings::ToFile() const {
  const std::string text = ToText({{"configuration", configuration},
                                   // Engines that would accept themselves know another name, and fail.
                                   {"accepted_from", socket},
                                   {"socket_node", ToJson(socket_node)},
                                   {"control", control},
                                   {"control_node", ToJson(control_node)},
                                   {"metrics", metrics}});
  Fd file(memfd_create("shunt-settings", MFD_CLOEXEC));
  if (!file.valid() || write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return ToStatus({errno}, "keep the settings");
  return file;
}

absl::StatusOr<AgentSettings> AgentSettings::FromFile(int fd) try {
  struct stat info {};
  if (fstat(fd, &info) != 0) return ToStatus({errno}, "look at the settings");
  std::string text(static_cast<size_t>(info.st_size), '\0');
  if (pread(fd, text.data(), text.size(), 0) != info.st_size) return ToStatus({errno}, "read the settings");
  const Json json = Json::parse(text);
  const bool accepts = json.contains("accepted_from");
  return AgentSettings{.configuration = json.at("configuration").get<std::string>(),
                       .socket = json.at(accepts ? "accepted_from" : "socket").get<std::string>(),
                       .socket_node = NodeFrom(json.at("socket_node")),
                       .accepts = accepts,
                       .control = json.at("control").get<std::string>(),
                       .control_node = NodeFrom(json.at("control_node")),
                       .metrics = json.value("metrics", "")};
} catch (const Json::exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("the settings that are held: ", error.what()));
}

absl::Status AgentRole::Prepare(Accelerator& accelerator, Given& given) {
  accelerator_ = &accelerator;
  const std::vector<Fd> held = std::move(given[{HoldingTag::kSettings, 0}]);
  if (held.empty()) return absl::InternalError("the keeper holds no settings");
  absl::StatusOr<AgentSettings> settings = AgentSettings::FromFile(held[0].get());
  if (!settings.ok()) return settings.status();
  settings_ = *std::move(settings);
  if (!settings_.accepts) {
    return absl::FailedPreconditionError(
        "the agent was started by an earlier version, whose engines accept connections: restart the service");
  }
  if (!settings_.configuration.empty()) {
    absl::StatusOr<AgentConfig> config = ParseAgentConfig(settings_.configuration, options_.config);
    if (!config.ok()) return config.status();
    config_ = *std::move(config);
  }
  log::SetLevel(LevelFor(options_, config_));

  IntakeOptions options{
      .peers = PeersFor(config_),
      .drop =
          [this](uint64_t name) {
            drop_({HoldingTag::kIntake, name});
          },
      .ask =
          [this](uint64_t name) {
            ask_({HoldingTag::kIntake, name});
          },
  };
  auto intake =
      Intake::Start(std::move(options), [this](Handover handover) { Receive(std::move(handover)); });
  if (!intake.ok()) return intake.status();
  intake_ = *std::move(intake);
  events_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (absl::Status status = Watch(intake_->event_fd(), "watch the socket"); !status.ok()) return status;
  if (absl::Status status = ServeMetrics(given); !status.ok()) return status;

  std::vector<Fd> control = std::move(given[{HoldingTag::kControl, 0}]);
  if (control.empty()) return absl::OkStatus();
  auto server = ControlServer::Start(std::move(control[0]),
                                     [this](const std::string& command) { return Answer(command); });
  if (!server.ok()) return server.status();
  control_ = *std::move(server);
  return Watch(control_->event_fd(), "watch the control socket");
}

absl::Status AgentRole::Watch(int fd, const char* what) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return ToStatus({errno}, what);
  return absl::OkStatus();
}

absl::Status AgentRole::ServeMetrics(Given& given) {
  std::vector<Fd> socket = std::move(given[{HoldingTag::kMetrics, 0}]);
  if (socket.empty()) return absl::OkStatus();
  if (settings_.metrics.empty()) {
    // A service manager has kept it for an agent that was started with other options.
    drop_({HoldingTag::kMetrics, 0});
    return absl::OkStatus();
  }
  auto server = MetricsServer::Start(std::move(socket[0]), [this] { return MetricsPage(); });
  if (!server.ok()) return server.status();
  metrics_ = *std::move(server);
  return Watch(metrics_->event_fd(), "watch the socket for metrics");
}

std::string AgentRole::MetricsPage() const {
  MetricsReading reading = ReadMetrics(*accelerator_);
  reading.listeners = listeners_;
  reading.engine_started = started_;
  return MetricsText(reading);
}

PeerRule AgentRole::PeersFor(const AgentConfig& config) const {
  std::vector<uid_t> uids = options_.allow_uids;
  uids.insert(uids.end(), config.allow_uids.begin(), config.allow_uids.end());
  return PeerRule(std::move(uids));
}

void AgentRole::HandleEvents() {
  intake_->HandleEvents();
  if (control_ != nullptr) control_->HandleEvents();
  if (metrics_ != nullptr) metrics_->HandleEvents();
}

absl::StatusOr<std::string> AgentRole::Adopt(uint64_t key, std::vector<Fd> held) {
  absl::StatusOr<ContainerSpec> spec = SpecOfHeld(held);
  if (!spec.ok()) spec = OrdinarySpec(absl::StrCat("number ", key));
  const ContainerKey container{spec->owner, spec->name};
  ports_.Claim(container, spec->publish);
  absl::StatusOr<std::string> ordinary =
      accelerator_->Adopt(key, std::move(held), [this, container] { Ended(container); });
  if (!ordinary.ok()) {
    ports_.Release(container);
    return ordinary;
  }
  ++listeners_;
  log::Debug("container {}: taken over", spec->name);
  return ordinary;
}

void AgentRole::Receive(Handover handover) {
  if (handover.again && !handover.listeners.empty()) {
    // The engine before us has died after it had them held, and before it said so to the runtime.
    std::erase_if(handover.listeners, [this](const Fd& one) { return accelerator_->Serves(one.get()); });
    if (handover.listeners.empty()) return;
  }
  if (handover.status.ok()) {
    Serve(handover);
  } else {
    // Nobody knows what it was to obey.
    Policy policy;
    if (IsStrict()) policy.refuse = EPERM;
    AddMiddleware(config_, policy);
    KeepOrdinary(handover, handover.status, policy);
  }
}

std::string PortList(const std::vector<net::Publish>& ports) {
  return absl::StrJoin(ports, ",",
                       [](std::string* out, const net::Publish& port) { out->append(port.ToString()); });
}

// What is executed in a container comes with the container's metadata: nobody has to read of it twice.
void LogDecision(const ContainerState& state, const Decision& decision) {
  constexpr size_t kMostMistakes = 20;
  const bool refused = decision.spec.policy.refuse != 0;
  const PodIdentity& identity = decision.origin.identity;
  if (!identity.pod.empty() || !decision.origin.pod_uid.empty()) {
    log::Debug("container {}: it is container {} of pod {}/{} (uid {})", state.id, identity.container,
               identity.pod_namespace, identity.pod, decision.origin.pod_uid);
  }
  if (!decision.rule.empty()) log::Debug("container {}: rule {} holds for it", state.id, decision.rule);
  if (refused)
    log::Error("container {} is refused, as strict mode has it: all its trapped calls fail", state.id);
  for (size_t i = 0; i < decision.mistakes.size(); ++i) {
    if (i == kMostMistakes) {
      log::Warning("container {}: ... and {} mistakes more", state.id, decision.mistakes.size() - i);
      break;
    }
    const std::string line = absl::StrCat("its listenerMetadata, ", decision.mistakes[i]);
    if (refused) {
      log::Error("container {}: {}", state.id, line);
    } else if (state.status == "running") {
      log::Debug("container {}: {}", state.id, line);
    } else {
      log::Warning("container {}: {} (without effect)", state.id, line);
    }
  }
}

void AgentRole::Serve(Handover& handover) {
  const ContainerState& state = handover.state;
  const pid_t pid = TrustedPid(state.pid, handover.peer);
  Decision decision = Decide(state, pid, handover.peer.uid,
                             {.config = config_, .resolver = options_.resolver, .strict = IsStrict()});
  LogDecision(state, decision);
  if (!decision.wishes.ok()) return KeepOrdinary(handover, decision.wishes, decision.spec.policy);
  ContainerSpec& spec = decision.spec;
  spec.owner = handover.peer.uid;
  spec.pid = pid;
  spec.first_process = TrustedPid(state.state_pid, handover.peer);

  const ContainerKey container{handover.peer.uid, state.id};
  Claim(container, spec);
  const std::string ports = spec.publish.empty() ? "none" : PortList(spec.publish);
  const absl::StatusOr<std::string> ordinary = accelerator_->Serve(
      std::move(handover.listeners.front()), std::move(spec), [this, container] { Ended(container); });
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
void AgentRole::KeepOrdinary(Handover& handover, const absl::Status& why, const Policy& policy) {
  const std::string name =
      handover.state.id.empty() ? absl::StrCat("of process ", handover.peer.pid) : handover.state.id;
  log::Error("container {} (from user {}): {}{}", name, handover.peer.uid, log::Text(why),
             handover.listeners.empty() ? "" : "; its connections stay on the ordinary path");
  for (Fd& listener : handover.listeners) {
    const ContainerKey container{handover.peer.uid, name};
    std::vector<net::Publish> no_ports;
    ports_.Claim(container, no_ports);
    ContainerSpec spec = OrdinarySpec(name);
    spec.owner = handover.peer.uid;
    spec.policy = policy;
    const absl::StatusOr<std::string> served =
        accelerator_->Serve(std::move(listener), std::move(spec), [this, container] { Ended(container); });
    if (served.ok()) {
      ++listeners_;
    } else {
      ports_.Release(container);
      log::Error("container {} cannot be served at all: {}", name, log::Text(served.status()));
    }
  }
}

void AgentRole::Claim(const ContainerKey& container, ContainerSpec& spec) {
  for (const PortRegistry::Conflict& conflict : ports_.Claim(container, spec.publish)) {
    log::Error(
        "container {}: its published port {} belongs to container {} of user {}; binding it will be "
        "EADDRINUSE",
        container.id, conflict.wanted.ToString(), conflict.holder.id, conflict.holder.uid);
    spec.taken.push_back(conflict.wanted);
  }
}

void AgentRole::Ended(const ContainerKey& container) {
  ports_.Release(container);
  --listeners_;
  log::Info("container {}: ended ({} listeners left, of {} containers)", container.id, listeners_,
            ports_.containers());
}

// What is being served keeps the settings with which it came.
void AgentRole::Reload() {
  if (options_.config.empty()) {
    log::Warning("there is no configuration to read (--config FILE)");
    return;
  }
  absl::StatusOr<std::string> text = ReadConfigText(options_.config);
  absl::StatusOr<AgentConfig> config =
      text.ok() ? ParseAgentConfig(*text, options_.config) : absl::StatusOr<AgentConfig>(text.status());
  absl::Status status = config.status();
  if (status.ok()) {
    status = SocketFile::Adopt(Fd(), settings_.socket, settings_.socket_node)
                 .SetMode(PeersFor(*config).SocketMode());
  }
  if (!status.ok()) {
    log::Error("the configuration stays as it was: {}", log::Text(status));
    return;
  }
  if (config->metrics_bind_address != config_.metrics_bind_address)
    log::Warning("metrics-bind-address holds from the agent's next start on");
  config_ = *std::move(config);
  intake_->Allow(PeersFor(config_));
  settings_.configuration = *std::move(text);
  if (const absl::StatusOr<Fd> file = settings_.ToFile(); file.ok())
    hold_({HoldingTag::kSettings, 0}, file->get());
  log::SetLevel(LevelFor(options_, config_));
  log::Info("read the configuration {}; it holds for containers to come", options_.config);
}

std::string AgentRole::Answer(const std::string& command) {
  if (command == "status") return ToText(StatusOf(*accelerator_));
  if (command == "reload") {
    Reload();
    return ToText({{"done", true}});
  }
  if (command == "upgrade") {
    ask_upgrade_();
    return "";  // later
  }
  return ToText({{"error", "there is no command \"" + command + "\"; there are status, reload, upgrade"}});
}

void AgentRole::Upgraded(const absl::Status& status) {
  if (control_ == nullptr) return;
  control_->AnswerWaiting(status.ok() ? ToText({{"done", true}}) : ToText({{"error", log::Text(status)}}));
}

void AgentRole::Leave() {
  log::Info("leaving {} listeners of {} containers", listeners_, ports_.containers());
  log::Info("{}", CounterLine(*accelerator_));
  SocketFile::Adopt(Fd(), settings_.socket, settings_.socket_node).Remove();
  SocketFile::Adopt(Fd(), settings_.control, settings_.control_node).Remove();
}

}  // namespace shunt
