// SPDX-License-Identifier: Apache-2.0
// What comes in, from the owner, the starter, the engines and the clock. What follows from it stands in
// keeper_course.cc.

#include "tools/keeper.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/packet_socket.h"
#include "tools/stored_holdings.h"

namespace shunt {
namespace {

constexpr int kEventsPerTurn = 32;
// So that an engine that talks without end leaves time for the rest.
constexpr int kPacketsPerTurn = 64;
// Descriptors for whatever else the process does.
constexpr size_t kSpareDescriptors = 64;

// What an event is about: one of these, above the serial number of an engine.
constexpr uint64_t kStarterSource = uint64_t{1} << 56;
constexpr uint64_t kTimerSource = uint64_t{2} << 56;
constexpr uint64_t kStrandedSource = uint64_t{3} << 56;
constexpr uint64_t kManagerSource = uint64_t{4} << 56;
constexpr uint64_t kLinkSource = uint64_t{5} << 56;
constexpr uint64_t kProcessSource = uint64_t{6} << 56;
constexpr uint64_t kSerialMask = (uint64_t{1} << 56) - 1;

size_t DescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kSpareDescriptors;
  const auto most = static_cast<size_t>(limit.rlim_cur);
  return most > 2 * kSpareDescriptors ? most - kSpareDescriptors : most / 2;
}

void AddSource(int epoll_fd, int fd, uint64_t source, uint32_t events = EPOLLIN) {
  epoll_event event{.events = events, .data = {.u64 = source}};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void SetTimer(int timer_fd, std::chrono::steady_clock::time_point when) {
  using std::chrono::nanoseconds;
  itimerspec spec{};  // zero: never
  if (when != std::chrono::steady_clock::time_point::max()) {
    const int64_t ns = std::max<int64_t>(nanoseconds(when.time_since_epoch()).count(), 1);
    spec.it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  }
  timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, nullptr);
}

std::string DescribeEnd(pid_t pid, int status) {
  constexpr int kCannotExecute = 127;
  if (WIFSIGNALED(status)) return absl::StrCat("engine ", pid, " ended by signal ", WTERMSIG(status));
  if (WEXITSTATUS(status) == kCannotExecute) return absl::StrCat("engine ", pid, " could not be executed");
  return absl::StrCat("engine ", pid, " ended with status ", WEXITSTATUS(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Keeper>> Keeper::Create(KeeperOptions options, KeeperEvents events,
                                                       ServiceManager* manager) {
  absl::StatusOr<Starter> starter = Starter::Fork(options.starter);
  if (!starter.ok()) return starter.status();
  std::unique_ptr<Keeper> keeper(
      new Keeper(std::move(options), std::move(events), manager, *std::move(starter)));
  if (!keeper->epoll_.valid() || !keeper->timer_.valid() || keeper->stranded_.event_fd() < 0) {
    return absl::ResourceExhaustedError(
        "no descriptors are left for the keeper; raise the limit (ulimit -n)");
  }
  return keeper;
}

Keeper::Keeper(KeeperOptions options, KeeperEvents events, ServiceManager* manager, Starter starter)
    : options_(std::move(options)),
      events_(std::move(events)),
      manager_(manager),
      starter_(std::move(starter)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      holdings_(DescriptorLimit()) {
  AddSource(epoll_.get(), starter_.fd(), kStarterSource);
  AddSource(epoll_.get(), timer_.get(), kTimerSource);
  AddSource(epoll_.get(), stranded_.event_fd(), kStrandedSource);
  if (manager_ != nullptr && manager_->watchdog()) next_alive_ = Clock::now();
}

// Kills explicitly: the starter's end would do it too, a moment later.
Keeper::~Keeper() {
  const Clock::time_point now = Clock::now();
  if (engine_ != nullptr) engine_->Kill(now);
  if (next_ != nullptr) next_->Kill(now);
  for (const Engine& engine : departing_) engine->Kill(now);
}

// ---- the owner

absl::Status Keeper::Hold(HoldingName name, std::vector<Fd> fds) {
  const std::shared_ptr<const Holding> holding = Put(name, std::move(fds), /*stored=*/false);
  if (holding == nullptr) {
    return absl::ResourceExhaustedError("the keeper's descriptors are used up; raise the limit (ulimit -n)");
  }
  Pass(holding, nullptr);
  Wake();
  return absl::OkStatus();
}

absl::Status Keeper::HoldAdopted(HoldingName name, std::vector<Fd> fds) {
  const std::shared_ptr<const Holding> holding = Put(name, std::move(fds), /*stored=*/true);
  if (holding == nullptr) {
    return absl::ResourceExhaustedError("the keeper's descriptors are used up; raise the limit (ulimit -n)");
  }
  Pass(holding, nullptr);
  Wake();
  return absl::OkStatus();
}

void Keeper::Begin() {
  restart_at_ = Clock::now();
  Wake();
}

absl::Status Keeper::Upgrade() {
  if (leaving_ || ended_) return absl::UnavailableError("shunt is about to end");
  if (upgrading_) return absl::UnavailableError("an upgrade is under way");
  if (engine_ == nullptr || engine_->phase != Phase::kReady) {
    return absl::UnavailableError("the engine is only starting; try again");
  }
  upgrading_ = true;
  Request(/*upgrade=*/true);
  Wake();
  return absl::OkStatus();
}

void Keeper::Reload() {
  if (engine_ != nullptr && engine_->phase == Phase::kReady) engine_->Send(KeeperMessage::kReload);
  if (next_ != nullptr) next_->Send(KeeperMessage::kReload);
  Wake();
}

void Keeper::Leave() {
  if (leaving_ || ended_) return;
  leaving_ = true;
  upgrading_ = false;
  restart_at_.reset();
  if (manager_ != nullptr) manager_->Stopping();
  const Clock::time_point until = Clock::now() + options_.patience.leave;
  for (Engine* engine : {&engine_, &next_}) {
    if (*engine == nullptr) continue;
    (*engine)->Send(KeeperMessage::kLeave);
    Depart(std::move(*engine), until);
  }
  Wake();
}

// ---- events

void Keeper::HandleEvents() {
  std::array<epoll_event, kEventsPerTurn> events;
  const int count = epoll_wait(epoll_.get(), events.data(), kEventsPerTurn, 0);
  for (int i = 0; i < count; ++i) Dispatch(events[static_cast<size_t>(i)].data.u64);
  Advance();
  Arm(Clock::now());
}

void Keeper::Dispatch(uint64_t source) {
  const uint64_t serial = source & kSerialMask;
  switch (source & ~kSerialMask) {
    case kStarterSource:
      return ReadStarter();
    case kTimerSource: {
      uint64_t expirations = 0;
      if (read(timer_.get(), &expirations, sizeof(expirations)) < 0) return;
      return;
    }
    case kStrandedSource:
      if (answering_) stranded_.HandleEvents();
      return;
    case kManagerSource:
      return manager_->Flush();
    case kLinkSource:
      if (EngineProcess* const engine = Find(serial)) {
        engine->queue.Flush(engine->link.get());
        ReadLink(*engine);
      }
      return;
    case kProcessSource:
      if (EngineProcess* const engine = Find(serial)) OnProcessEnd(*engine);
      return;
    default:
      return;
  }
}

EngineProcess* Keeper::Find(uint64_t serial) {
  if (engine_ != nullptr && engine_->serial == serial) return engine_.get();
  if (next_ != nullptr && next_->serial == serial) return next_.get();
  for (const Engine& engine : departing_) {
    if (engine->serial == serial) return engine.get();
  }
  return nullptr;
}

void Keeper::ReadStarter() {
  for (;;) {
    Result<Starter::Arrival> arrival = starter_.Receive();
    if (arrival.has_value()) {
      starter_silent_ = false;
      if (arrival->report.kind == StarterReport::Kind::kStarted) {
        OnStarted(arrival->report, std::move(arrival->fds));
      } else {
        OnEnded(arrival->report);
      }
      continue;
    }
    if (arrival.error().code == EAGAIN) return;
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, starter_.fd(), nullptr);
    if (!leaving_) End(absl::InternalError("the process that starts engines has ended; start shunt again"));
    return;
  }
}

void Keeper::OnStarted(const StarterReport& report, std::vector<Fd> fds) {
  auto engine = std::make_unique<EngineProcess>();
  engine->link = std::move(fds[0]);
  engine->pidfd = std::move(fds[1]);
  engine->pid = report.pid;
  engine->serial = ++serials_;
  const Clock::time_point now = Clock::now();
  engine->deadline = now + options_.patience.prepare;
  const bool wanted = request_ && request_->sequence == report.sequence && !leaving_ && !ended_;
  if (!wanted) return engine->Kill(now);  // it came too late
  const bool upgrade = request_->upgrade;
  request_.reset();
  Watch(*engine);
  Engine& place = upgrade ? next_ : engine_;
  place = std::move(engine);
  Introduce(*place);
}

void Keeper::OnEnded(const StarterReport& report) {
  if (report.kind == StarterReport::Kind::kFailed) {
    if (!request_ || request_->sequence != report.sequence) return;
    return OnStartFailed(absl::StrCat("no engine could be started: ", std::strerror(report.detail)));
  }
  if (report.kind != StarterReport::Kind::kEnded || report.pid != last_pid_) return;
  last_end_ = DescribeEnd(report.pid, report.detail);
  // Somebody has killed it, which is no fault of its own. Should they all be killed before they can serve, as
  // where memory is short, they count in the end.
  if (!WIFSIGNALED(report.detail) || WTERMSIG(report.detail) != SIGKILL) return;
  if (!deaths_.empty()) deaths_.pop_back();
  if (!std::exchange(last_counted_, false) || ++early_kills_ > kMostEarlyKills || failures_ == 0) return;
  --failures_;
  if (restart_at_) restart_at_ = Clock::now();
}

void Keeper::ReadLink(EngineProcess& engine) {
  for (int i = 0; i < kPacketsPerTurn && engine.link.valid(); ++i) {
    KeeperPacket packet;
    Result<PacketArrival> arrival =
        ReceivePacket(engine.link.get(), std::as_writable_bytes(std::span(&packet, 1)), kHoldingDescriptors);
    if (arrival.has_value()) {
      OnPacket(engine, packet, std::move(arrival->fds), arrival->lost_fds);
      continue;
    }
    if (arrival.error().code == EAGAIN) return;
    const bool closed = arrival.error().code == EPIPE;
    CloseLink(engine);
    Lost(engine, closed ? "" : "sent what is no packet");
    return;
  }
}

void Keeper::OnProcessEnd(EngineProcess& engine) {
  // All of it, and not only some: nothing more can come.
  const uint64_t serial = engine.serial;
  constexpr int kMostTurns = 1000;  // far more than a socket holds, in case somebody else has the other end
  for (int i = 0; i < kMostTurns && engine.link.valid(); ++i) {
    pollfd readable{engine.link.get(), POLLIN, 0};
    if (poll(&readable, 1, 0) != 1) break;
    ReadLink(engine);
  }
  Lost(engine, "");
  const auto gone = std::find_if(departing_.begin(), departing_.end(),
                                 [serial](const Engine& one) { return one->serial == serial; });
  if (gone == departing_.end()) return;
  Unwatch(**gone);
  departing_.erase(gone);
}

void Keeper::OnPacket(EngineProcess& engine, const KeeperPacket& packet, std::vector<Fd> fds, bool lost_fds) {
  const auto message = static_cast<KeeperMessage>(packet.message);
  const bool well_formed = IsWellFormed(packet, lost_fds ? std::max<size_t>(fds.size(), 1) : fds.size());
  bool allowed = well_formed;
  if (well_formed && message == KeeperMessage::kHold)
    return OnHold(engine, packet.name(), std::move(fds), lost_fds);
  if (well_formed && message == KeeperMessage::kDrop) return Drop(packet.name());
  if (&engine != engine_.get() && &engine != next_.get()) return;  // the rest does not matter any more
  switch (message) {
    case KeeperMessage::kPrepared:
      allowed = allowed && engine.phase == Phase::kPreparing;
      if (allowed) engine.phase = Phase::kPrepared;
      break;
    case KeeperMessage::kReady:
      allowed = allowed && engine.phase == Phase::kStarted;
      if (allowed) OnReady(engine, packet);
      break;
    case KeeperMessage::kServing:
      if (allowed && events_.serving) events_.serving(packet.name(), packet.text_view());
      break;
    case KeeperMessage::kStopped:
      allowed = allowed && engine.phase == Phase::kStopping;
      if (allowed) engine.phase = Phase::kStopped;
      break;
    case KeeperMessage::kPong:
      allowed = allowed && packet.value > engine.answered && packet.value <= engine.pings;
      if (allowed) engine.answered = packet.value;
      break;
    case KeeperMessage::kUpgrade:
      if (allowed) OnUpgradeWanted(engine);
      break;
    case KeeperMessage::kWorker:
      if (allowed && !fds.empty())
        (void)starter_.Send({.kind = StarterRequest::Kind::kWorker}, {{fds[0].get()}});
      break;
    case KeeperMessage::kAgain:
      if (const auto held = holdings_.all().find(packet.name()); allowed && held != holdings_.all().end())
        engine.Send(MakePacket(KeeperMessage::kGive, packet.name()), held->second);
      break;
    case KeeperMessage::kFailed:
      if (allowed) engine.failure = std::string(packet.text_view());
      break;
    default:
      allowed = false;
  }
  if (allowed) return;
  CloseLink(engine);
  Lost(engine, absl::StrCat("sent message ", packet.message, ", which it must not"));
}

void Keeper::OnHold(EngineProcess& engine, HoldingName name, std::vector<Fd> fds, bool lost_fds) {
  const std::shared_ptr<const Holding> holding =
      lost_fds ? nullptr : Put(name, std::move(fds), /*stored=*/false);
  if (holding == nullptr) {
    engine.Send(MakePacket(KeeperMessage::kFailed, name, 0,
                           "the keeper's descriptors are used up; raise the limit (ulimit -n)"));
    return;
  }
  Pass(holding, &engine);
}

void Keeper::OnUpgradeWanted(EngineProcess& engine) {
  const absl::Status status = Upgrade();
  if (!status.ok())
    engine.Send(MakePacket(KeeperMessage::kUpgradeFailed, {}, 0, std::string(status.message())));
}

// ---- the table

std::shared_ptr<const Holding> Keeper::Put(HoldingName name, std::vector<Fd> fds, bool stored) {
  const auto found = holdings_.all().find(name);
  const std::shared_ptr<const Holding> before = found == holdings_.all().end() ? nullptr : found->second;
  std::shared_ptr<const Holding> holding = holdings_.Put(name, std::move(fds));
  if (holding == nullptr) return nullptr;
  if (manager_ != nullptr && !stored) {
    if (before != nullptr) RemoveHolding(*manager_, *before);
    StoreHolding(*manager_, *holding);
  }
  if (answering_ && name.tag == HoldingTag::kContainer) {
    if (before != nullptr) stranded_.Remove(*before);
    stranded_.Add(*holding);
  }
  return holding;
}

void Keeper::Drop(HoldingName name) {
  const std::shared_ptr<const Holding> dropped = holdings_.Drop(name);
  if (dropped == nullptr) return;
  if (manager_ != nullptr) RemoveHolding(*manager_, *dropped);
  if (answering_ && name.tag == HoldingTag::kContainer) stranded_.Remove(*dropped);
}

// To everybody who does not know it and will be there for a while.
void Keeper::Pass(const std::shared_ptr<const Holding>& holding, const EngineProcess* from) {
  const KeeperPacket packet = MakePacket(KeeperMessage::kGive, holding->name());
  if (engine_ != nullptr && engine_.get() != from && (next_ == nullptr || next_.get() != from)) {
    engine_->Send(packet, holding);
  }
  if (next_ != nullptr && next_.get() != from) next_->Send(packet, holding);
}

// ---- epoll and the clock

void Keeper::Watch(EngineProcess& engine) {
  engine.watched = EPOLLIN;
  AddSource(epoll_.get(), engine.link.get(), kLinkSource | engine.serial, engine.watched);
  AddSource(epoll_.get(), engine.pidfd.get(), kProcessSource | engine.serial);
}

// Explicitly: closing does not do it while the starter has a copy.
void Keeper::Unwatch(EngineProcess& engine) {
  CloseLink(engine);
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, engine.pidfd.get(), nullptr);
}

void Keeper::CloseLink(EngineProcess& engine) {
  if (!engine.link.valid()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, engine.link.get(), nullptr);
  engine.link.reset();
}

// Has HandleEvents() called soon.
void Keeper::Wake() {
  const itimerspec at_once{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 1}};
  timerfd_settime(timer_.get(), 0, &at_once, nullptr);
}

void Keeper::WatchManager() {
  if (manager_ == nullptr) return;
  if (const std::string complaint = manager_->TakeComplaint(); !complaint.empty()) Say(complaint);
  if (manager_->waiting() == manager_watched_) return;
  manager_watched_ = manager_->waiting();
  if (manager_watched_) {
    AddSource(epoll_.get(), manager_->fd(), kManagerSource, EPOLLOUT);
  } else {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, manager_->fd(), nullptr);
  }
}

void Keeper::Arm(Clock::time_point now) {
  constexpr std::chrono::milliseconds kLookAgain{10};
  Clock::time_point next = Clock::time_point::max();
  const auto consider = [&](Clock::time_point when) { next = std::min(next, when); };
  const auto consider_engine = [&](EngineProcess& engine) {
    if (engine.queue.descriptors_stuck()) consider(now + kLookAgain);
    const bool write = engine.queue.size() > 0 && !engine.queue.descriptors_stuck();
    const uint32_t wanted = write ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (!engine.link.valid() || wanted == engine.watched) return;
    engine.watched = wanted;
    epoll_event event{.events = wanted, .data = {.u64 = kLinkSource | engine.serial}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, engine.link.get(), &event);
  };
  for (const Engine* engine : {&engine_, &next_}) {
    if (*engine == nullptr) continue;
    consider_engine(**engine);
    if ((*engine)->phase == Phase::kReady) consider((*engine)->next_ping);
    if ((*engine)->HasDeadline()) consider((*engine)->deadline);
  }
  for (const Engine& engine : departing_) {
    consider_engine(*engine);
    if (!engine->killed) consider(engine->deadline);
    const Clock::time_point harmless = engine->killed_at + options_.patience.unkillable;
    if (engine->killed && engine->MayAct() && harmless > now) consider(harmless);
  }
  if (request_) consider(request_->deadline);
  if (restart_at_) consider(*restart_at_);
  if (next_alive_) consider(*next_alive_);
  WatchManager();
  SetTimer(timer_.get(), next);
}

}  // namespace shunt
