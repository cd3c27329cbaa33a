// SPDX-License-Identifier: Apache-2.0
#include "tools/engine_main.h"

#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/confinement.h"
#include "core/engine.h"
#include "handlers/accelerator.h"
#include "handlers/request_times.h"
#include "tools/agent_role.h"
#include "tools/engine_link.h"
#include "tools/engine_role.h"
#include "tools/found_lists.h"
#include "tools/log.h"
#include "tools/process_limits.h"
#include "tools/service_source.h"

namespace shunt {
namespace {

struct EngineArguments {
  int link = -1;
  std::string role;  // "agent" or "run"
  AgentRoleOptions agent;
  std::string affinity = "pin";
  std::string lock_socket;
  std::string services;  // of "run": the file that they were in
  bool verbose = false;
};

// `shunt run`: one container, given by the keeper's process.
class RunRole final : public EngineRole {
 public:
  // `services` names the file whose text is held as the kSettings; empty: there is none.
  explicit RunRole(std::string services) : services_(std::move(services)) {}

  absl::Status Prepare(Accelerator& accelerator, Given& given) override {
    accelerator_ = &accelerator;
    const std::vector<Fd> held = std::move(given[{HoldingTag::kSettings, 0}]);
    if (services_.empty() || held.empty()) return absl::OkStatus();
    const absl::StatusOr<std::string> text = ReadHeldText(held[0].get());
    if (!text.ok()) return text.status();
    absl::StatusOr<AgentConfig> config = ParseAgentConfig(*text, services_);
    if (!config.ok()) return config.status();
    accelerator.Balance(config->AllServices(), std::move(config->zone), /*at_once=*/true);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd> held) override {
    return accelerator_->Adopt(key, std::move(held), [] {});
  }

 private:
  const std::string services_;
  Accelerator* accelerator_ = nullptr;
};

class EngineMain final : private Custodian {
 public:
  EngineMain(EngineArguments arguments, EngineLink link)
      : arguments_(std::move(arguments)), link_(std::move(link)) {}

  // Until the keeper has no more use for us. Returns the exit status.
  int Run();

 private:
  enum class State : uint8_t { kCollecting, kPrepared, kServing, kHalted };

  void HoldContainer(uint64_t key, std::span<const int> fds) override;
  void DropContainer(uint64_t key) override { link_.Drop({HoldingTag::kContainer, key}); }
  void HoldJournal(int fd) override;
  void DropJournal(uint64_t name) override { link_.Drop({HoldingTag::kJournal, name}); }
  void StartWorker(Fd link) override { link_.Worker(link.get()); }
  void HoldFound(std::vector<net::FoundBackends> found) override;

  void OnPacket(EngineLink::Arrival arrival);
  void OnGive(HoldingName name, std::vector<Fd> fds);
  void Prepare();
  void RememberFound();
  void TakeAffinities();
  void Begin();
  void Adopt(uint64_t key, std::vector<Fd> fds);
  void Stop();
  void Leave();
  void Fail(const absl::Status& why);

  const EngineArguments arguments_;
  EngineLink link_;
  State state_ = State::kCollecting;
  std::optional<int> exit_status_;
  EngineRole::Given given_;
  uint64_t journal_name_ = 1;
  FoundLists found_;
  std::unique_ptr<RequestTimes> times_;
  std::unique_ptr<net::AffinityMemory> affinities_;
  std::unique_ptr<EngineRole> role_;
  ServiceSources sources_;
  std::unique_ptr<Accelerator> accelerator_;  // goes first: it uses the role's callbacks no more then
};

void EngineMain::HoldContainer(uint64_t key, std::span<const int> fds) {
  if (Result<void> held = link_.Hold({HoldingTag::kContainer, key}, fds); !held) {
    log::Error("container number {} would not outlive this engine: {}", key,
               log::Text(ToStatus(held.error(), "pass its descriptors on")));
  }
}

void EngineMain::HoldJournal(int fd) {
  (void)link_.Hold({HoldingTag::kJournal, journal_name_}, {{fd}});
}

void EngineMain::HoldFound(std::vector<net::FoundBackends> found) {
  found_.Note(found);
  const absl::StatusOr<Fd> file = found_.ToFile();
  absl::Status status = file.status();
  if (file.ok()) {
    if (Result<void> held = link_.Hold(kFoundLists, {{file->get()}}); !held)
      status = ToStatus(held.error(), "pass its descriptor on");
  }
  if (!status.ok())
    log::Error("what sources have found would not outlive this engine: {}", log::Text(status));
}

int EngineMain::Run() {
  while (!exit_status_) {
    const bool serving = state_ == State::kServing;
    std::array<pollfd, 3> sources{{{link_.fd(), link_.events(), 0},
                                   {serving ? accelerator_->event_fd() : -1, POLLIN, 0},
                                   {serving ? role_->event_fd() : -1, POLLIN, 0}}};
    if (poll(sources.data(), sources.size(), -1) < 0) continue;  // EINTR
    if (sources[1].revents != 0) accelerator_->HandleEvents();
    if (sources[2].revents != 0) role_->HandleEvents();
    if (sources[0].revents == 0) continue;
    link_.Flush();
    for (;;) {
      Result<EngineLink::Arrival> arrival = link_.Receive();
      if (arrival) {
        OnPacket(*std::move(arrival));
      } else if (arrival.error() == Errno{EAGAIN}) {
        break;
      } else {
        return 0;  // the keeper has closed the link
      }
      if (exit_status_) break;
    }
  }
  return *exit_status_;
}

void EngineMain::OnPacket(EngineLink::Arrival arrival) {
  const KeeperPacket& packet = arrival.packet;
  switch (static_cast<KeeperMessage>(packet.message)) {
    case KeeperMessage::kGive:
      return OnGive(packet.name(), std::move(arrival.fds));
    case KeeperMessage::kGiven:
      return Prepare();
    case KeeperMessage::kStart:
      return Begin();
    case KeeperMessage::kStop:
      return Stop();
    case KeeperMessage::kLeave:
      return Leave();
    case KeeperMessage::kReload:
      if (state_ == State::kServing) role_->Reload();
      return;
    case KeeperMessage::kPing:
      if (state_ == State::kServing) {
        accelerator_->CallRoll([this, sequence = packet.value] { link_.Pong(sequence); });
      } else {
        link_.Pong(packet.value);
      }
      return;
    case KeeperMessage::kUpgradeDone:
      if (role_ != nullptr) role_->Upgraded(absl::OkStatus());
      exit_status_ = 0;
      return;
    case KeeperMessage::kUpgradeFailed:
      if (role_ != nullptr) role_->Upgraded(absl::UnavailableError(std::string(packet.text_view())));
      return;
    case KeeperMessage::kFailed:
      log::Error("the keeper: {}", packet.text_view());
      return;
    default:
      return;  // of a keeper that knows more than we do
  }
}

// Not valid: our table had no room for it.
Fd FirstOf(std::vector<Fd>& fds) {
  return fds.empty() ? Fd() : std::move(fds.front());
}

void EngineMain::OnGive(HoldingName name, std::vector<Fd> fds) {
  if (name.tag == HoldingTag::kJournal) journal_name_ = std::max(journal_name_, name.id + 1);
  if (state_ == State::kHalted) return;
  const bool connection = name.tag == HoldingTag::kIntake && name.id != 0;
  // To end and start again is all that can be done about it.
  if (fds.empty() && !connection)
    return Fail(absl::ResourceExhaustedError("no descriptor is free; raise the limit (ulimit -n)"));
  if (state_ != State::kCollecting && connection) return role_->AdoptConnection(name.id, FirstOf(fds));
  if (state_ == State::kCollecting || name.tag != HoldingTag::kContainer) {
    given_[name] = std::move(fds);
    return;
  }
  Adopt(name.id, std::move(fds));
  if (state_ == State::kServing) accelerator_->Begin();
}

void EngineMain::Adopt(uint64_t key, std::vector<Fd> fds) {
  const absl::StatusOr<std::string> ordinary = role_->Adopt(key, std::move(fds));
  if (!ordinary.ok()) {
    log::Error("container number {} cannot be taken over: {}", key, log::Text(ordinary.status()));
    return DropContainer(key);
  }
  link_.Serving({HoldingTag::kContainer, key}, *ordinary);
}

// Everything slow: an engine before us may still be serving.
void EngineMain::Prepare() {
  if (arguments_.role == "agent") {
    role_ = std::make_unique<AgentRole>(
        arguments_.agent, [this] { link_.Upgrade(); },
        [this](HoldingName name, std::span<const int> fds) { (void)link_.Hold(name, fds); },
        [this](HoldingName name) { link_.Drop(name); }, [this](HoldingName name) { link_.Again(name); });
  } else {
    role_ = std::make_unique<RunRole>(arguments_.services);
  }
  AcceleratorOptions options{
      .affinity = arguments_.affinity == "float" ? Affinity::kFloat : Affinity::kPin,
      .lock_socket = arguments_.lock_socket,
      .opens_cgroups = arguments_.role == "agent",
      .warn = [](std::string_view line) { log::Warning("{}", line); },
      .custodian = this,
      .lasting_pids = arguments_.role != "agent",  // else it is the container's first process
      .balances = arguments_.role == "agent" || !arguments_.services.empty(),
      .make_source =
          [this](const net::ServiceSpec& service, net::Source::Tell tell,
                 net::Source::TellServices tell_services) {
            return sources_.Make(service, std::move(tell), std::move(tell_services));
          },
      .introduced =
          [this](uint64_t key, uint64_t netns, const std::vector<net::Publish>& publish,
                 std::vector<net::IpAddress> addresses) {
            role_->Introduced(key, netns, publish, std::move(addresses));
          },
  };
  if (given_.contains({HoldingTag::kMetrics, 0})) {
    options.reactors = static_cast<int>(AllowedCpus().size());
    times_ = std::make_unique<RequestTimes>(AllowedCpus().size());
    options.request_times = times_.get();
  }
  if (options.balances) {
    TakeAffinities();
    options.affinities = affinities_.get();
  }
  for (const auto& [name, fds] : given_) {
    if (name.tag == HoldingTag::kContainer) options.first_key = std::max(options.first_key, name.id + 1);
  }
  absl::StatusOr<std::unique_ptr<Accelerator>> accelerator = Accelerator::Start(options);
  if (!accelerator.ok()) return Fail(accelerator.status());
  accelerator_ = *std::move(accelerator);
  RememberFound();
  if (absl::Status status = role_->Prepare(*accelerator_, given_); !status.ok()) return Fail(status);
  state_ = State::kPrepared;
  for (auto& [name, fds] : given_) {
    if (name.tag == HoldingTag::kContainer) Adopt(name.id, std::move(fds));
    if (name.tag == HoldingTag::kIntake && name.id != 0) role_->AdoptConnection(name.id, FirstOf(fds));
  }
  std::erase_if(given_, [](const auto& entry) { return entry.first.tag != HoldingTag::kJournal; });
  link_.Prepared();
}

// What the sources had told an engine before us. We do without what is wrong with it.
void EngineMain::RememberFound() {
  const auto held = given_.find(kFoundLists);
  if (held == given_.end()) return;
  absl::StatusOr<std::vector<net::FoundBackends>> found = FoundLists::FromFile(held->second[0].get());
  if (!found.ok()) return log::Error("{}", log::Text(found.status()));
  accelerator_->Remember(*std::move(found));
}

// Those of the engine before us, which may still be serving and writing to them, or else new ones. Without
// any we serve as well.
void EngineMain::TakeAffinities() {
  absl::StatusOr<std::unique_ptr<net::AffinityMemory>> affinities = absl::NotFoundError("none are held");
  if (const auto held = given_.find(kAffinities); held != given_.end())
    affinities = net::AffinityMemory::Open(std::move(held->second[0]));
  if (!affinities.ok()) {
    if (!absl::IsNotFound(affinities.status()))
      log::Warning("affinities: {}", log::Text(affinities.status()));
    affinities = net::AffinityMemory::Create();
    if (!affinities.ok()) return log::Error("nothing is remembered: {}", log::Text(affinities.status()));
    (void)link_.Hold(kAffinities, {{(*affinities)->fd()}});
  }
  affinities_ = *std::move(affinities);
}

// From here on we are the one.
void EngineMain::Begin() {
  if (state_ != State::kPrepared) return;
  for (auto& [name, fds] : std::exchange(given_, {})) {
    if (name.tag != HoldingTag::kJournal) continue;
    if (absl::Status status = accelerator_->TakeOver(name.id, std::move(fds[0])); !status.ok()) {
      log::Error("calls that another engine has left unanswered are lost: {}", log::Text(status));
      DropJournal(name.id);
    }
  }
  state_ = State::kServing;
  accelerator_->Begin();
  role_->Begin();
  sources_.StartNoThread();
  const absl::StatusOr<std::string> confined = ConfineEngine();
  if (arguments_.role == "agent") {
    log::Info("{}", accelerator_->LocksInForce());
    if (!accelerator_->CanPublish())
      log::Warning("published ports stay inside: the container's network helper has to forward them");
    if (confined.ok()) {
      log::Info("confinement: {}", *confined);
    } else {
      log::Warning("confinement: {}", log::Text(confined.status()));
    }
  }
  link_.Ready(accelerator_->CanPublish() ? 1 : 0, accelerator_->LocksInForce());
}

void EngineMain::Stop() {
  if (state_ == State::kServing) accelerator_->Halt();
  state_ = State::kHalted;
  link_.Stopped();
}

void EngineMain::Leave() {
  if (role_ != nullptr) role_->Leave();
  exit_status_ = 0;
}

void EngineMain::Fail(const absl::Status& why) {
  link_.Failed(log::Text(why));
  exit_status_ = 1;
}

int RunEngineProcess(const EngineArguments& arguments) {
  prctl(PR_SET_NAME, "shunt-engine");
  std::signal(SIGPIPE, SIG_IGN);
  log::Start(arguments.verbose ? log::Level::kDebug : log::Level::kInfo);
  RaiseDescriptorLimit();
  absl::StatusOr<EngineLink> link = EngineLink::Adopt(arguments.link);
  if (!link.ok()) {
    log::Error("shunt engine: {}; it is `shunt agent` and `shunt run` that start it",
               log::Text(link.status()));
    return 2;
  }
  const int status = EngineMain(arguments, *std::move(link)).Run();
  // Threads may be in the middle of a call; everything that matters is with the keeper.
  std::fflush(nullptr);
  _exit(status);
}

}  // namespace

void AddEngineCommand(CLI::App& app, int& exit_status) {
  auto arguments = std::make_shared<EngineArguments>();
  CLI::App* const command = app.add_subcommand("engine", "Serves what the keeper holds; started by it alone");
  command->group("");  // not in the help
  command->add_option("--link", arguments->link)->required();
  command->add_option("role", arguments->role)->required()->check(CLI::IsMember({"agent", "run"}));
  command->add_option("--config", arguments->agent.config);
  command->add_option("--affinity", arguments->affinity)->check(CLI::IsMember({"pin", "float"}));
  command->add_option("--lock-socket", arguments->lock_socket);
  command->add_option("--services", arguments->services);
  command->add_option("--allow-uid", arguments->agent.allow_uids);
  command->add_option_function<std::string>("--resolver", [arguments](const std::string& text) {
    const absl::StatusOr<Resolver> resolver = ParseResolver(text);
    if (!resolver.ok()) throw CLI::ValidationError("--resolver", log::Text(resolver.status()));
    arguments->agent.resolver = *resolver;
  });
  command->add_option("--kubeconfig", arguments->agent.kubeconfig);
  command->add_option("--register", arguments->agent.registers)->check(CLI::IsMember({"etcd"}));
  command->add_flag("--strict", arguments->agent.strict);
  command->add_flag("--verbose", arguments->verbose);
  command->callback([arguments, &exit_status] {
    arguments->agent.verbose = arguments->verbose;
    exit_status = RunEngineProcess(*arguments);
  });
}

}  // namespace shunt
