// SPDX-License-Identifier: Apache-2.0

#include "tools/run_engine.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/confinement.h"
#include "core/filter.h"
#include "handlers/traps.h"
#include "tools/counter_line.h"
#include "tools/harmless.h"
#include "tools/run_network.h"
#include "tools/run_sandbox.h"

namespace shunt {
namespace {

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
      const TrapNeeds needs = {.renumbered = Renumbered(options_.publish)};
      absl::StatusOr<std::vector<sock_filter>> built = BuildFilter(Traps(needs), Denies());
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
                      {accelerator_ == nullptr ? -1 : accelerator_->event_fd(), POLLIN, 0},
                      {network_alive ? network_->program.ended_fd() : -1, POLLIN, 0}};
      if (poll(fds, 3, -1) < 0 && errno != EINTR) break;
      if (fds[0].revents != 0) break;
      if (fds[1].revents != 0) accelerator_->HandleEvents();
      if (fds[2].revents != 0) {
        network_alive = false;
        Say(absl::StrCat("the network program has ended; only accelerated connections still work: ",
                         network_->program.Complaint()));
      }
    }
    const int status = container_->Reap();
    if (options_.verbose && accelerator_ != nullptr) SayCounters();
    return status;
  }

 private:
  // The reactor counts a call after its answer, which the command may have taken and ended with: the last
  // call is counted when the reactor has let go of the listener.
  void SayCounters() {
    constexpr int kPatienceMs = 1000;
    pollfd event = {accelerator_->event_fd(), POLLIN, 0};
    while (serving_ && poll(&event, 1, kPatienceMs) > 0) accelerator_->HandleEvents();
    Say(CounterLine(*accelerator_));
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
    if (options_.accelerate) StartAccelerator();
    const bool engine_publishes = accelerator_ != nullptr && accelerator_->CanPublish();
    if (!options_.publish.empty() && !engine_publishes && options_.net == RunOptions::Net::kNone) {
      return absl::FailedPreconditionError(
          absl::StrCat("--publish ", options_.publish[0].ToString(),
                       " is not possible with --net none here: ", WhyNotPublish()));
    }
    if (absl::Status status = StartOrdinaryNetwork(!engine_publishes); !status.ok()) return status;
    const bool serve = accelerator_ != nullptr;
    absl::StatusOr<Fd> listener =
        container_->Prepare(network_.has_value() ? network_->resolv_conf : "", serve);
    if (!listener.ok()) return listener.status();
    if (serve) {
      ContainerSpec spec = {.name = options_.command[0],
                            .pid = container_->pid(),
                            .ignore = options_.ignore,
                            .exact_traps = true};
      if (engine_publishes) spec.publish = options_.publish;
      serving_ = true;
      const absl::StatusOr<std::string> ordinary =
          accelerator_->Serve(*std::move(listener), std::move(spec), [this] { serving_ = false; });
      if (!ordinary.ok()) return ordinary.status();
      if (!ordinary->empty()) degraded_.push_back(absl::StrCat("nothing is accelerated: ", *ordinary));
    }
    const absl::StatusOr<std::string> confinement = ConfineEngine();
    confinement_ = confinement.ok() ? *confinement : std::string(confinement.status().message());
    if (!confinement.ok()) degraded_.push_back(absl::StrCat("confinement: ", confinement_));
    Report(serve);
    return container_->Start();
  }

  // A machine that cannot accelerate runs the command all the same, as slowly as without us.
  void StartAccelerator() {
    absl::StatusOr<std::unique_ptr<Accelerator>> started = Accelerator::Start(options_.accelerator);
    if (started.ok()) {
      accelerator_ = *std::move(started);
    } else {
      degraded_.push_back(absl::StrCat("nothing is accelerated: ", started.status().message()));
    }
  }

  std::string WhyNotPublish() const {
    if (!options_.accelerate) return "it takes the engine, which --no-accelerate forbids";
    if (accelerator_ == nullptr) return "it takes the engine, which did not start";
    return accelerator_->LocksInForce();
  }

  absl::Status StartOrdinaryNetwork(bool forward) {
    const std::vector<net::Publish> ports = forward ? options_.publish : std::vector<net::Publish>();
    if (forward && !ports.empty() && accelerator_ != nullptr) {
      // Why, the verbose line says anyway.
      degraded_.push_back(absl::StrCat("published ports are forwarded by the network program",
                                       options_.verbose ? "" : ": " + accelerator_->LocksInForce()));
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
      Say(absl::StrCat("network: ", network_name_, "; ids: ", container_->id_map().description, "; ",
                       accelerated ? accelerator_->LocksInForce() : "not accelerated", "; confinement: ",
                       confinement_, degraded_.empty() ? "" : "; ", absl::StrJoin(degraded_, "; ")));
    } else if (!degraded_.empty()) {
      Say(absl::StrJoin(degraded_, "; "));
    }
  }

  const RunOptions& options_;
  std::optional<Sandbox> container_;
  std::optional<Network> network_;
  std::string network_name_ = "none";
  std::unique_ptr<Accelerator> accelerator_;
  std::string confinement_;
  bool serving_ = false;               // the reactor has not let go of the listener yet
  std::vector<std::string> degraded_;  // what is less than a user would expect
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
