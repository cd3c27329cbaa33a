// SPDX-License-Identifier: Apache-2.0

#include "tools/run_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/confinement.h"
#include "core/filter.h"
#include "handlers/traps.h"
#include "tools/agent_settings.h"
#include "tools/counter_line.h"
#include "tools/harmless.h"
#include "tools/in_flight.h"
#include "tools/keeper.h"
#include "tools/run_network.h"
#include "tools/run_sandbox.h"

namespace shunt {
namespace {

constexpr HoldingName kContainer = {HoldingTag::kContainer, 2};
constexpr std::chrono::seconds kEnginePatience{30};

void Say(absl::string_view text) {
  std::fprintf(stderr, "shunt run: %s\n", Harmless({text.data(), text.size()}).c_str());
}

// True if a moved socket has another name on the host than the program gave it.
bool Renumbered(const std::vector<net::Publish>& publish) {
  for (const net::Publish& one : publish) {
    if (one.host_port != one.port || one.host_ip.has_value()) return true;
  }
  return false;
}

// Whoever reads what the command writes must see the end when the command closes it, not when we end.
void LetGoOfStandardStreams() {
  const Fd null_fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  dup2(null_fd.get(), STDIN_FILENO);
  dup2(null_fd.get(), STDOUT_FILENO);
}

class Run {
 public:
  explicit Run(const RunOptions& options) : options_(options) {}

  absl::Status Begin(const Terminal& terminal, Fd link) {
    // The filter first: it is built in memory that the command's process inherits.
    std::vector<sock_filter> filter;
    if (options_.accelerate) {
      TrapNeeds needs = {.renumbered = Renumbered(options_.publish)};
      if (options_.names_services) needs.handlers = {"getpeername"};
      absl::StatusOr<std::vector<sock_filter>> built = BuildFilter(Traps(needs), Denies(needs));
      if (!built.ok()) return built.status();
      filter = *std::move(built);
    }
    const SandboxOptions sandbox_options = {
        .command = options_.command,
        .rootfs = options_.rootfs,
        .user = options_.user.value_or(UserIds{}),
        .drop_groups = options_.user.has_value(),
        .install_filter = [&filter] { return InstallInCommand(filter); },
    };
    absl::StatusOr<Sandbox> container = Sandbox::Create(sandbox_options, terminal, link.get());
    if (!container.ok()) return container.status();
    container_.emplace(*std::move(container));
    link.reset();
    LetGoOfStandardStreams();
    if (!container_->shortcoming().empty()) degraded_.push_back(container_->shortcoming());
    return Connect();
  }

  // Serves the container until everything in it has ended.
  int Follow() {
    bool network_alive = network_.has_value();
    while (true) {
      pollfd fds[] = {{container_->ended_fd(), POLLIN, 0},
                      {keeper_ == nullptr ? -1 : keeper_->event_fd(), POLLIN, 0},
                      {network_alive ? network_->program.ended_fd() : -1, POLLIN, 0}};
      if (poll(fds, 3, -1) < 0 && errno != EINTR) break;
      if (fds[0].revents != 0) break;
      if (fds[1].revents != 0) keeper_->HandleEvents();
      if (fds[2].revents != 0) {
        network_alive = false;
        Say(absl::StrCat("the network program has ended; only accelerated connections still work: ",
                         network_->program.Complaint()));
      }
    }
    const int status = container_->Reap();
    if (options_.verbose && keeper_ != nullptr) SayCounters();
    return status;
  }

 private:
  // The reactor counts a call after its answer, which the command may have taken and ended with: the last
  // call is counted when the engine has let go of the container.
  void SayCounters() {
    constexpr auto kPatience = std::chrono::seconds(1);
    WaitFor(kPatience, [this] { return !keeper_->holdings().all().contains(kContainer); });
    Say(CounterLine(CountedInJournals()));
  }

  // Drives the keeper until something is so. False: it was not, in that time.
  bool WaitFor(std::chrono::milliseconds patience, const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!is_so()) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd event = {keeper_->event_fd(), POLLIN, 0};
      if (left.count() < 0 || poll(&event, 1, static_cast<int>(left.count()) + 1) == 0) return is_so();
      keeper_->HandleEvents();
    }
    return true;
  }

  // What all engines have counted.
  CounterValues CountedInJournals() const {
    CounterValues sum{};
    for (const auto& [name, holding] : keeper_->holdings().all()) {
      if (name.tag == HoldingTag::kJournal) AddJournal(holding->fds()[0], sum);
    }
    return sum;
  }

  static absl::StatusOr<Fd> InstallInCommand(const std::vector<sock_filter>& filter) {
    Result<Fd> listener = InstallFilter(filter, FilterWait::kInterruptible);
    if (listener.has_value()) return *std::move(listener);
    if (listener.error().code == EBUSY) {
      return absl::FailedPreconditionError(
          "seccomp calls are already trapped out here, perhaps by another shunt; use --no-accelerate");
    }
    return ToStatus(listener.error(), "install the command's seccomp filter");
  }

  // Gives the container its networks, the ordinary and the fast one, and lets the command go.
  absl::Status Connect() {
    if (options_.accelerate) StartEngine();
    const bool engine_publishes = keeper_ != nullptr && engine_publishes_;
    if (!options_.publish.empty() && !engine_publishes && options_.net == RunOptions::Net::kNone) {
      return absl::FailedPreconditionError(
          absl::StrCat("--publish ", options_.publish[0].ToString(),
                       " is not possible with --net none here: ", WhyNotPublish()));
    }
    if (absl::Status status = StartOrdinaryNetwork(!engine_publishes); !status.ok()) return status;
    const bool serve = keeper_ != nullptr;
    absl::StatusOr<Fd> listener =
        container_->Prepare(network_.has_value() ? network_->resolv_conf : "", serve);
    if (!listener.ok()) return listener.status();
    if (serve) {
      if (absl::Status status = Serve(*std::move(listener), engine_publishes); !status.ok()) return status;
      const absl::StatusOr<std::string> confinement = ConfineKeeper();
      confinement_ = confinement.ok() ? *confinement : std::string(confinement.status().message());
      if (!confinement.ok()) degraded_.push_back(absl::StrCat("confinement: ", confinement_));
    }
    Report(serve);
    return container_->Start();
  }

  // Gives the container to the keeper, and through it to the engine.
  absl::Status Serve(Fd listener, bool engine_publishes) {
    ContainerSpec spec = {.name = options_.command[0],
                          .owner = getuid(),
                          .pid = container_->pid(),
                          .ignore = options_.ignore,
                          .exact_traps = true};
    if (engine_publishes) spec.publish = options_.publish;
    absl::StatusOr<Fd> memory = MemoryFor(spec);
    if (!memory.ok()) return memory.status();
    std::vector<Fd> held;
    held.push_back(std::move(listener));
    held.push_back(*std::move(memory));
    if (absl::Status status = keeper_->Hold(kContainer, std::move(held)); !status.ok()) return status;
    if (!WaitFor(kEnginePatience, [this] { return ordinary_.has_value(); }))
      return absl::UnavailableError("the engine does not take the container");
    if (!ordinary_->empty()) degraded_.push_back(absl::StrCat("nothing is accelerated: ", *ordinary_));
    return absl::OkStatus();
  }

  // A machine that cannot accelerate runs the command all the same, as slowly as without us.
  void StartEngine() {
    KeeperOptions options{.starter = {.arguments = EngineArguments()},
                          .say = [this](absl::string_view text) { OnKeeperSays(text); },
                          .fail_in_flight = FailInFlight};
    KeeperEvents events{.ready =
                            [this](uint64_t flags, std::string_view locks) {
                              engine_publishes_ = flags != 0;
                              locks_ = locks;
                              ready_ = true;
                            },
                        .serving = [this](HoldingName /*name*/, std::string_view text) { ordinary_ = text; },
                        .upgraded = nullptr,
                        .ended = nullptr};
    absl::StatusOr<std::unique_ptr<Keeper>> keeper =
        Keeper::Create(std::move(options), std::move(events), /*manager=*/nullptr);
    if (!keeper.ok()) {
      degraded_.push_back(absl::StrCat("nothing is accelerated: ", keeper.status().message()));
      return;
    }
    keeper_ = *std::move(keeper);
    if (absl::Status status = HoldServices(); !status.ok())
      degraded_.push_back(absl::StrCat("nothing is balanced: ", status.message()));
    keeper_->Begin();
    if (WaitFor(kEnginePatience, [this] { return ready_ || keeper_->gave_up(); }) && ready_) return;
    degraded_.push_back(absl::StrCat("nothing is accelerated: ", keeper_says_));
    keeper_.reset();
  }

  absl::Status HoldServices() {
    if (options_.services.empty()) return absl::OkStatus();
    absl::StatusOr<Fd> text = HeldText(options_.services_text);
    if (!text.ok()) return text.status();
    std::vector<Fd> held;
    held.push_back(*std::move(text));
    return keeper_->Hold({HoldingTag::kSettings, 0}, std::move(held));
  }

  std::vector<std::string> EngineArguments() const {
    std::vector<std::string> arguments = {
        "run", "--affinity", options_.accelerator.affinity == Affinity::kFloat ? "float" : "pin"};
    if (!options_.accelerator.lock_socket.empty())
      arguments.insert(arguments.end(), {"--lock-socket", options_.accelerator.lock_socket});
    if (!options_.services.empty()) arguments.insert(arguments.end(), {"--services", options_.services});
    return arguments;
  }

  // That an engine was restarted is nobody's business who did not ask.
  void OnKeeperSays(absl::string_view text) {
    keeper_says_ = std::string(text);
    if (options_.verbose && ready_) Say(text);
  }

  std::string WhyNotPublish() const {
    if (!options_.accelerate) return "it takes the engine, which --no-accelerate forbids";
    if (keeper_ == nullptr) return "it takes the engine, which did not start";
    return locks_;
  }

  absl::Status StartOrdinaryNetwork(bool forward) {
    const std::vector<net::Publish> ports = forward ? options_.publish : std::vector<net::Publish>();
    if (forward && !ports.empty() && keeper_ != nullptr) {
      // Why, the verbose line says anyway.
      degraded_.push_back(absl::StrCat("published ports are forwarded by the network program",
                                       options_.verbose ? "" : ": " + locks_));
    }
    switch (options_.net) {
      case RunOptions::Net::kNone:
        return absl::OkStatus();
      case RunOptions::Net::kSlirp4netns:
        return StartOne(NetworkKind::kSlirp4netns, ports);
      case RunOptions::Net::kPasta:
        return StartOne(NetworkKind::kPasta, ports);
      case RunOptions::Net::kBest:
        break;
    }
    std::vector<std::string> failures;
    for (const NetworkKind kind : {NetworkKind::kSlirp4netns, NetworkKind::kPasta}) {
      if (!NetworkInstalled(kind)) continue;
      absl::Status status = StartOne(kind, ports);
      if (status.ok()) return status;
      failures.emplace_back(status.message());
    }
    if (failures.empty()) failures.emplace_back("neither is installed: apt install slirp4netns");
    const std::string why =
        absl::StrCat("neither slirp4netns nor pasta runs: ", absl::StrJoin(failures, "; "));
    if (!ports.empty()) return absl::UnavailableError(absl::StrCat("cannot publish: ", why));
    degraded_.push_back(absl::StrCat("no network: ", why, " (--net none if none is wanted)"));
    return absl::OkStatus();
  }

  absl::Status StartOne(NetworkKind kind, const std::vector<net::Publish>& ports) {
    absl::StatusOr<Network> started = StartNetwork(kind, container_->pid(), ports);
    if (!started.ok()) return started.status();
    network_.emplace(*std::move(started));
    network_name_ = NetworkName(kind);
    return absl::OkStatus();
  }

  // One line, and none if all is as it should be and nobody asked.
  void Report(bool accelerated) const {
    if (options_.verbose) {
      Say(absl::StrCat(
          "network: ", network_name_, "; ids: ", container_->id_map().description, "; ",
          accelerated ? absl::StrCat(locks_, "; confinement: ", confinement_) : "not accelerated",
          degraded_.empty() ? "" : "; ", absl::StrJoin(degraded_, "; ")));
    } else if (!degraded_.empty()) {
      Say(absl::StrJoin(degraded_, "; "));
    }
  }

  const RunOptions& options_;
  std::optional<Sandbox> container_;
  std::optional<Network> network_;
  std::string network_name_ = "none";
  std::unique_ptr<Keeper> keeper_;
  bool ready_ = false;
  bool engine_publishes_ = false;
  std::string locks_;                    // which are in force
  std::string confinement_;              // of this process
  std::string keeper_says_;              // what it said last
  std::optional<std::string> ordinary_;  // why nothing is accelerated, or "", once the engine has told
  std::vector<std::string> degraded_;    // what is less than a user would expect
};

}  // namespace

int RunEngine(const RunOptions& options, const Terminal& terminal, Fd link) {
  Run run(options);
  if (absl::Status status = run.Begin(terminal, std::move(link)); !status.ok()) {
    Say(status.message());
    return 1;
  }
  return run.Follow();
}

}  // namespace shunt
