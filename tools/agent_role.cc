// SPDX-License-Identifier: Apache-2.0
#include "tools/agent_role.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/result.h"
#include "tools/agent_status.h"
#include "tools/container_pid.h"
#include "tools/counter_line.h"
#include "tools/kube_server.h"
#include "tools/log.h"
#include "tools/metrics_text.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Each holds two descriptors.
constexpr size_t kMostUndecided = 256;
// A quarter, so that it takes four hostile users to make others do without an answer. Root, by whose runtimes
// the pods of a node come, and the agent's own user may have all.
constexpr size_t kMostUndecidedOfUser = kMostUndecided / 4;

log::Level LevelFor(const AgentRoleOptions& options, const AgentConfig& config) {
  return options.verbose ? log::Level::kDebug : config.log_level;
}

std::string ToText(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// For the registry of ports. Empty: not known.
std::string PodOf(const ContainerSpec& spec) {
  const PodIdentity& identity = spec.policy.identity;
  if (identity.pod_namespace.empty() || identity.pod.empty()) return "";
  return absl::StrCat(identity.pod_namespace, "/", identity.pod);
}

}  // namespace

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
  services_.Begin(accelerator, config_, settings_.orders);

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
  if (absl::Status status = FindPods(); !status.ok()) return status;
  if (absl::Status status = StartRegistrar(given); !status.ok()) return status;

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

absl::Status AgentRole::FindPods() {
  if (options_.resolver != Resolver::kKubernetes) return absl::OkStatus();
  absl::StatusOr<std::optional<HttpOrigin>> server = FindKubeServer(options_.kubeconfig);
  if (!server.ok()) {
    // It was right when the agent was started, and there are containers to serve.
    no_pods_ = server.status();
    log::Error("the API server is not asked: {}", log::Text(no_pods_));
    return absl::OkStatus();
  }
  if (!server->has_value()) {
    log::Info(
        "no API server is known (--kubeconfig FILE, or the environment of a pod), so labels and "
        "annotations of pods are not");
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> node = FindNodeName();
  if (!node.ok()) return node.status();
  absl::StatusOr<std::unique_ptr<PodDirectory>> pods = PodDirectory::Start(
      **std::move(server), *std::move(node),
      [this](uint64_t key, const absl::StatusOr<PodDirectory::Record>& pod) { OnPod(key, pod); });
  if (!pods.ok()) return pods.status();
  pods_ = *std::move(pods);
  log::Info("the API server {} is asked about pods", pods_->url());
  return Watch(pods_->event_fd(), "watch for the API server's answers");
}

absl::Status AgentRole::StartRegistrar(Given& given) {
  const std::vector<Fd> held = std::move(given[kAnnouncedAddresses]);
  if (!Registers(config_)) {
    if (!held.empty()) drop_(kAnnouncedAddresses);
    return absl::OkStatus();
  }
  if (absl::Status status = CheckRegisters(config_.multinode); !status.ok()) {
    // It was right when the agent was started, and there are containers to serve.
    log::Error("published ports are not announced: multinode: {}", log::Text(status));
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Registrar>> registrar =
      Registrar::Start(config_.multinode, held.empty() ? -1 : held[0].get(),
                       [this](int file) { hold_(kAnnouncedAddresses, {{file}}); });
  if (!registrar.ok()) return registrar.status();
  registrar_ = *std::move(registrar);
  return Watch(registrar_->event_fd(), "watch for what etcd says to announcements");
}

void AgentRole::Begin() {
  if (registrar_ != nullptr) registrar_->Begin();
}

void AgentRole::Introduced(uint64_t key, uint64_t netns, const std::vector<net::Publish>& publish,
                           std::vector<net::IpAddress> addresses) {
  if (registrar_ != nullptr) registrar_->Know(key, netns, publish, std::move(addresses));
}

std::string AgentRole::MetricsPage() const {
  MetricsReading reading = ReadMetrics(*accelerator_);
  reading.services = accelerator_->DescribeServices();
  reading.listeners = listeners_;
  reading.engine_started = started_;
  return MetricsText(reading);
}

void WarnIfOpen(const SocketFile& socket) {
  if (!socket.open_to_all()) return;
  log::Warning(
      "{}: its filesystem has no access control lists, so every user may connect and keep others waiting "
      "(whom allow-uids does not name is turned away then); choose a path on one that has them, as /run",
      socket.path());
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
  if (pods_ != nullptr) pods_->HandleEvents();
  if (registrar_ != nullptr) registrar_->HandleEvents();
}

absl::StatusOr<std::string> AgentRole::Adopt(uint64_t key, std::vector<Fd> held) {
  absl::StatusOr<ContainerSpec> spec = SpecOfHeld(held);
  if (!spec.ok()) spec = OrdinarySpec(absl::StrCat("number ", key));
  // The engine before us goes on until we begin: it may have decided meanwhile, or found out more.
  if (undecided_.erase(key) != 0) pods_->Forget(key);
  if (const auto before = adopted_.extract(key); !before.empty()) {
    ports_.Release(before.mapped());
    --listeners_;
  }
  if (!held.empty() && !spec->undecided.empty()) {
    if (AwaitAgain(key, *spec, held[0])) return "";
    // That decides it, for the engines to come as well.
    spec->undecided.clear();
    held.resize(1);
    if (absl::StatusOr<Fd> memory = MemoryFor(*spec); memory.ok()) held.push_back(*std::move(memory));
    HoldContainer(key, held);
  }
  const ContainerKey container{spec->owner, spec->name};
  ports_.Claim(container, spec->publish, PodOf(*spec));
  absl::StatusOr<std::string> ordinary = accelerator_->Adopt(key, std::move(held), [this, key, container] {
    adopted_.erase(key);
    Ended(key, container);
  });
  if (!ordinary.ok()) {
    ports_.Release(container);
    return ordinary;
  }
  adopted_.emplace(key, container);
  ++listeners_;
  log::Debug("container {}: taken over", spec->name);
  return ordinary;
}

void AgentRole::Receive(Handover handover) {
  if (handover.again && !handover.listeners.empty()) {
    // The engine before us has died after it had them held, and before it said so to the runtime.
    std::erase_if(handover.listeners,
                  [this](const Fd& one) { return accelerator_->Serves(one.get()) || Awaits(one.get()); });
    if (handover.listeners.empty()) return;
  }
  if (handover.status.ok()) {
    Serve(handover);
  } else {
    // Nobody knows what it was to obey.
    LogUnusable(handover);
    Policy policy;
    if (IsStrict()) policy.refuse = EPERM;
    AddMiddleware(config_, policy);
    KeepOrdinary(0, std::move(handover), policy);
  }
}

// For messages, also of one whose state tells nothing.
std::string NameOf(const Handover& handover) {
  return handover.state.id.empty() ? absl::StrCat("of process ", handover.peer.pid) : handover.state.id;
}

void LogOrdinary(const Handover& handover, const absl::Status& why) {
  log::Error("container {} (from user {}): {}{}", NameOf(handover), handover.peer.uid, log::Text(why),
             handover.listeners.empty() ? "" : "; its connections stay on the ordinary path");
}

void AgentRole::LogUnusable(const Handover& handover) {
  const std::optional<size_t> left_out = unusable_.Spend(handover.peer.uid, LogBudget::Clock::now());
  if (!left_out) return;
  if (*left_out > 0) {
    log::Warning("user {} has handed over {} times more what is no container state; left out here",
                 handover.peer.uid, *left_out);
  }
  LogOrdinary(handover, handover.status);
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
  if (!decision.masks.ok()) {
    log::Warning(
        "container {}: what it may not see of /proc and /sys is not known ({}); what is usually hidden "
        "will be",
        state.id, log::Text(decision.masks));
  }
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
  Undecided container{.state = std::move(handover.state), .peer = handover.peer};
  const ContainerState& state = container.state;
  container.listener = std::move(handover.listeners.front());
  container.pid = LastingPid(TrustedPid(state.pid, container.peer));
  container.first_process = LastingPid(TrustedPid(state.state_pid, container.peer));
  container.origin = OriginOf(state, container.pid.Get(), options_.resolver);
  const PodQuery query = container.query();
  if (!query.has_names() && query.uid.empty()) return Settle(NewKey(), std::move(container), nullptr);
  if (pods_ == nullptr && no_pods_.ok()) return Settle(NewKey(), std::move(container), nullptr);
  if (pods_ == nullptr) return Settle(NewKey(), std::move(container), no_pods_);
  if (PodDirectory::Record pod = pods_->Find(query)) return Settle(NewKey(), std::move(container), pod);
  Await(std::move(container));
}

// Those of containers that an engine before us had given a name may not have been served yet.
uint64_t AgentRole::NewKey() {
  for (;;) {
    if (const uint64_t key = accelerator_->NewKey(); !undecided_.contains(key)) return key;
  }
}

absl::Status AgentRole::MayWait(uid_t uid) const {
  if (undecided_.size() >= kMostUndecided)
    return absl::ResourceExhaustedError("too many containers wait for it");
  if (uid == 0 || uid == geteuid()) return absl::OkStatus();
  const auto of_user = std::count_if(undecided_.begin(), undecided_.end(),
                                     [uid](const auto& entry) { return entry.second.peer.uid == uid; });
  if (static_cast<size_t>(of_user) < kMostUndecidedOfUser) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(of_user, " containers of user ", uid, " wait for it"));
}

// Its calls wait with it.
void AgentRole::Await(Undecided container) {
  const uint64_t key = NewKey();
  absl::Status status = MayWait(container.peer.uid);
  if (status.ok()) status = pods_->Ask(container.query(), key);
  if (!status.ok()) return Settle(key, std::move(container), status);
  log::Debug("container {}: the API server is asked about pod {}", container.state.id,
             container.query().ToString());
  container.pid.Watch();
  container.first_process.Watch();
  // An engine that cannot ask does what is done without an answer.
  ContainerSpec spec = Decide(container.state, container.origin, container.peer.uid, Maker()).spec;
  if (IsStrict()) spec.policy.refuse = EPERM;
  spec.owner = container.peer.uid;
  spec.undecided = ToText(container);
  std::vector<Fd> held;
  held.push_back(std::move(container.listener));
  if (absl::StatusOr<Fd> memory = MemoryFor(spec); memory.ok()) held.push_back(*std::move(memory));
  HoldContainer(key, held);
  container.listener = std::move(held[0]);
  undecided_.emplace(key, std::move(container));
}

void AgentRole::HoldContainer(uint64_t key, const std::vector<Fd>& held) const {
  std::vector<int> fds;
  fds.reserve(held.size());
  for (const Fd& fd : held) fds.push_back(fd.get());
  hold_({HoldingTag::kContainer, key}, fds);
}

bool AgentRole::Awaits(int listener) const {
  return std::any_of(undecided_.begin(), undecided_.end(), [listener](const auto& entry) {
    return SameOpenFile(entry.second.listener.get(), listener);
  });
}

// An engine before us was waiting for the answer. False: it is to be served as it is held.
bool AgentRole::AwaitAgain(uint64_t key, const ContainerSpec& spec, Fd& listener) {
  absl::StatusOr<Undecided> container = UndecidedFrom(spec.undecided);
  absl::Status status = container.status();
  if (status.ok()) status = pods_ == nullptr ? no_pods_ : pods_->Ask(container->query(), key);
  if (!status.ok() || pods_ == nullptr) {
    log::Warning(
        "container {}: no API server can be asked about its pod any more: {}; what was known decides",
        spec.name, log::Text(status));
    return false;
  }
  container->listener = std::move(listener);
  undecided_.emplace(key, *std::move(container));
  log::Debug("container {}: taken over, undecided", spec.name);
  return true;
}

void AgentRole::OnPod(uint64_t key, const absl::StatusOr<PodDirectory::Record>& pod) {
  if (auto found = undecided_.extract(key); !found.empty()) Settle(key, std::move(found.mapped()), pod);
}

// `pod`: nullptr if nobody is asked.
void AgentRole::Settle(uint64_t key, Undecided container, const absl::StatusOr<PodDirectory::Record>& pod) {
  ContainerState& state = container.state;
  if (pod.ok() && *pod != nullptr) {
    AddRecord(**pod, container.origin.container_id.empty() ? state.id : container.origin.container_id,
              container.origin);
    // What the runtime says of one key counts.
    state.annotations.insert((*pod)->annotations.begin(), (*pod)->annotations.end());
  }
  Decision decision = Decide(state, container.origin, container.peer.uid, Maker());
  if (!pod.ok()) {
    if (IsStrict()) decision.spec.policy.refuse = EPERM;
    log::Warning("container {}: the API server {} tells nothing of its pod {}: {}; {}", state.id,
                 pods_ == nullptr ? "that is not known" : pods_->url(), container.query().ToString(),
                 log::Text(pod.status()),
                 IsStrict() ? "strict mode refuses it" : "what the runtime tells decides");
  }
  ServeAs(key, std::move(container), std::move(decision), pod.ok() ? *pod : nullptr);
}

// The pod's record is known as long as somebody has it.
void AgentRole::ServeAs(uint64_t key, Undecided newcomer, Decision decision, PodDirectory::Record pod) {
  const ContainerState& state = newcomer.state;
  LogDecision(state, decision);
  if (!decision.wishes.ok()) {
    Handover handover{.state = std::move(newcomer.state), .peer = newcomer.peer};
    handover.listeners.push_back(std::move(newcomer.listener));
    LogOrdinary(handover, decision.wishes);
    return KeepOrdinary(key, std::move(handover), decision.spec.policy);
  }
  ContainerSpec& spec = decision.spec;
  spec.owner = newcomer.peer.uid;
  const pid_t pid = spec.pid = newcomer.pid.Get();
  spec.first_process = newcomer.first_process.Get();

  const ContainerKey container{newcomer.peer.uid, state.id};
  Claim(container, spec);
  const std::string ports = spec.publish.empty() ? "none" : PortList(spec.publish);
  const absl::StatusOr<std::string> ordinary =
      accelerator_->ServeAs(key, std::move(newcomer.listener), std::move(spec),
                            [this, key, container, pod] { Ended(key, container); });
  if (!ordinary.ok()) {
    drop_({HoldingTag::kContainer, key});
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
// serve as wanted, we serve as if there were nothing to do. `key`: what the listener is held under; 0:
// nothing.
void AgentRole::KeepOrdinary(uint64_t key, Handover handover, const Policy& policy) {
  const std::string name = NameOf(handover);
  for (Fd& listener : handover.listeners) {
    const ContainerKey container{handover.peer.uid, name};
    std::vector<net::Publish> no_ports;
    ports_.Claim(container, no_ports);
    ContainerSpec spec = OrdinarySpec(name);
    spec.owner = handover.peer.uid;
    spec.policy = policy;
    const uint64_t its_key = key != 0 ? key : NewKey();
    const absl::StatusOr<std::string> served =
        accelerator_->ServeAs(its_key, std::move(listener), std::move(spec),
                              [this, its_key, container] { Ended(its_key, container); });
    if (served.ok()) {
      ++listeners_;
    } else {
      drop_({HoldingTag::kContainer, its_key});
      ports_.Release(container);
      log::Error("container {} cannot be served at all: {}", name, log::Text(served.status()));
    }
  }
}

void AgentRole::Claim(const ContainerKey& container, ContainerSpec& spec) {
  for (const PortRegistry::Conflict& conflict : ports_.Claim(container, spec.publish, PodOf(spec))) {
    log::Error(
        "container {}: its published port {} belongs to container {} of user {}; binding it will be "
        "EADDRINUSE",
        container.id, conflict.wanted.ToString(), conflict.holder.id, conflict.holder.uid);
    spec.taken.push_back(conflict.wanted);
  }
}

void AgentRole::Ended(uint64_t key, const ContainerKey& container) {
  ports_.Release(container);
  if (registrar_ != nullptr) registrar_->Forget(key);
  --listeners_;
  log::Info("container {}: ended ({} listeners left, of {} containers)", container.id, listeners_,
            ports_.containers());
}

// What is being served keeps the settings with which it came. The error, which is logged, says why nothing
// has changed.
absl::Status AgentRole::ReadAgain() {
  if (options_.config.empty()) {
    absl::Status none = absl::FailedPreconditionError("there is no configuration to read (--config FILE)");
    log::Warning("{}", log::Text(none));
    return none;
  }
  absl::StatusOr<std::string> text = ReadConfigText(options_.config);
  absl::StatusOr<AgentConfig> config =
      text.ok() ? ParseAgentConfig(*text, options_.config) : absl::StatusOr<AgentConfig>(text.status());
  absl::Status status = config.status();
  SocketFile socket = SocketFile::Adopt(Fd(), settings_.socket, settings_.socket_node);
  if (status.ok()) status = socket.Admit(PeersFor(*config).Others());
  if (!status.ok()) {
    status = {status.code(), absl::StrCat("the configuration stays as it was: ", status.message())};
    log::Error("{}", log::Text(status));
    return status;
  }
  if (config->metrics_bind_address != config_.metrics_bind_address)
    log::Warning("metrics-bind-address holds from the agent's next start on");
  if (Registers(*config) != Registers(config_) ||
      (Registers(*config) && config->multinode != config_.multinode)) {
    log::Warning("what multinode says of announcing holds from the next engine on: shunt ctl upgrade");
  }
  WarnIfOpen(socket);
  config_ = *std::move(config);
  intake_->Allow(PeersFor(config_));
  settings_.configuration = *std::move(text);
  HoldSettings();
  services_.Reload(config_);
  log::SetLevel(LevelFor(options_, config_));
  log::Info("read the configuration {}; it holds for containers to come, and for services at once",
            options_.config);
  return absl::OkStatus();
}

void AgentRole::HoldSettings() const {
  if (const absl::StatusOr<Fd> file = settings_.ToFile(); file.ok())
    hold_({HoldingTag::kSettings, 0}, {{file->get()}});
}

std::string AgentRole::Answer(const std::string& command) {
  if (command == "status") return ToText(StatusOf(*accelerator_));
  if (command == "reload") {
    const absl::Status status = ReadAgain();
    return ToText(status.ok() ? Json({{"done", true}}) : Json({{"error", log::Text(status)}}));
  }
  if (command == "upgrade") {
    ask_upgrade_();
    return "";  // later
  }
  bool changed = false;
  const std::string of_services = services_.Answer(command, changed);
  if (changed) {
    settings_.orders = services_.orders();
    HoldSettings();
  }
  if (!of_services.empty()) return of_services;
  return ToText({{"error", absl::StrCat("there is no command \"", command, "\"; there are status, services, ",
                                        "drain, disable, enable, weight, reload, upgrade")}});
}

void AgentRole::Upgraded(const absl::Status& status) {
  if (control_ == nullptr) return;
  control_->AnswerWaiting(status.ok() ? ToText({{"done", true}}) : ToText({{"error", log::Text(status)}}));
}

void AgentRole::Leave() {
  log::Info("leaving {} listeners of {} containers", listeners_, ports_.containers());
  log::Info("{}", CounterLine(*accelerator_));
  if (registrar_ != nullptr) registrar_->Leave();
  SocketFile::Adopt(Fd(), settings_.socket, settings_.socket_node).Remove();
  SocketFile::Adopt(Fd(), settings_.control, settings_.control_node).Remove();
}

}  // namespace shunt
