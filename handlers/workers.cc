// SPDX-License-Identifier: Apache-2.0
#include "handlers/workers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/clock.h"
#include "core/packet_socket.h"
#include "core/reactor.h"
#include "handlers/container.h"
#include "handlers/policy_json.h"
#include "handlers/remarks.h"

namespace shunt {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kStartTime = 10'000 * kMillisecond;
constexpr int64_t kAlmostLongestDeed = kLongestDeed.count() * 900 * kMillisecond;
// How often a call is given to another worker because the last one has died, or was in other namespaces.
constexpr int kAttempts = 16;
// How long a call waits for a desk whose worker is on its way out: on a busy machine its end may take
// seconds.
constexpr int64_t kLeaveTime = 10'000 * kMillisecond;

// FNV-1a.
constexpr uint64_t kEmptyHash = 0xcbf29ce484222325;
uint64_t Hash(uint64_t hash, std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) hash = (hash ^ std::to_integer<uint64_t>(byte)) * 0x100000001b3;
  return hash;
}

// The highest bit tells it from the inode numbers that LostReplies is also used with.
uint64_t Fingerprint(uint64_t registers, std::string_view text) {
  return Hash(registers, std::as_bytes(std::span(text))) | uint64_t{1} << 63;
}

uint64_t NamespaceOf(pid_t tid, const char* which) {
  std::array<char, 48> path;
  snprintf(path.data(), path.size(), "/proc/%d/ns/%s", tid, which);
  struct stat info {};
  return stat(path.data(), &info) == 0 ? info.st_ino : 0;
}

// A worker is there, be it of this engine or of one before it: it holds the lock (core/desk.h).
bool IsManned(const ContainerMemory& memory, const Desk& desk) {
  struct flock lock = LockOfDesk(memory.OffsetOf(desk));
  return fcntl(memory.fd(), F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// An earlier call of this thread is on a desk that is not this reactor's. What an engine before us has left
// there counts until its worker is through with it.
bool IsBusyElsewhere(const Call& call) {
  const ContainerMemory& memory = ContainerOf(call).memory;
  for (size_t i = 0; i < memory.desks().size(); ++i) {
    const Desk& desk = memory.desks()[i];
    const DeskState state = desk.state.load(std::memory_order_acquire);
    if (state == DeskState::kFree || desk.tid.load(std::memory_order_relaxed) != call.notification.tid)
      continue;
    const bool of_this_engine = desk.given_by == ContainerOf(call).incarnation;
    if (of_this_engine && i / Workers::kMost == call.place) continue;
    if (of_this_engine || (state < DeskState::kDone && IsManned(memory, desk))) return true;
  }
  return false;
}

void Clear(Desk& desk) {
  desk.tid.store(0, std::memory_order_relaxed);
  desk.hurry.store(false, std::memory_order_relaxed);
  desk.state.store(DeskState::kFree, std::memory_order_release);
}

// Whom a worker is started for: descriptors that are this thread's for ever.
struct Entrance {
  Fd user, mount;  // namespaces
  Fd status;
};

// Of whoever has this number now, and all of it of the same thread.
Result<Entrance> FindEntrance(pid_t tid) {
  std::array<char, 24> path;
  snprintf(path.data(), path.size(), "/proc/%d", tid);
  const Fd thread(open(path.data(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!thread.valid()) return FailErrno();
  const auto open_there = [&thread](const char* what) {
    return Fd(openat(thread.get(), what, O_RDONLY | O_CLOEXEC));
  };
  Entrance entrance{
      .user = open_there("ns/user"), .mount = open_there("ns/mnt"), .status = open_there("status")};
  if (!entrance.user.valid() || !entrance.mount.valid() || !entrance.status.valid()) return FailErrno();
  return entrance;
}

// Has a worker begin at this bench's desk. Control thread. EBUSY: the one before is still there.
int Begin(const Container& container, int listener, Workers::Bench& bench, const Entrance& entrance) {
  if (IsManned(container.memory, *bench.desk)) return EBUSY;
  Clear(*bench.desk);
  Result<std::pair<Fd, Fd>> pair = MakePacketSockets();
  if (!pair) return pair.error().code;
  WorkerSetup setup{.desk_offset = container.memory.OffsetOf(*bench.desk),
                    .mounts_offset = container.memory.OffsetOf(container.facts.mounts)};
  if (container.policy.needs_builder()) {
    const std::string orders = PolicyToJson(container.policy).dump();
    if (orders.size() > setup.orders.size()) return E2BIG;
    std::ranges::copy(orders, setup.orders.data());
    setup.orders_size = static_cast<uint32_t>(orders.size());
  }
  const std::array<int, WorkerSetup::kDescriptors> fds = {entrance.user.get(), entrance.mount.get(), listener,
                                                          container.memory.fd(), entrance.status.get()};
  const Result<void> sent = SendPacket(pair->first.get(), std::as_bytes(std::span(&setup, 1)), fds);
  if (!sent) return sent.error().code;
  container.worker_source->StartWorker(std::move(pair->second));
  bench.link = std::move(pair->first);
  return 0;
}

struct StartJob final : ControlJob {
  StartJob(const Call& its_call, Workers::Bench& its_bench, Entrance its_entrance)
      : call(its_call), bench(its_bench), entrance(std::move(its_entrance)) {}

  void Run() override { error = Begin(ContainerOf(call), call.listener.fd(), bench, entrance); }

  const Call& call;
  Workers::Bench& bench;
  Entrance entrance;
  int error = 0;
};

// Nobody gets into the container: its programs see an EPERM that nothing of theirs explains. Once in its
// life.
struct Complaint final : ControlJob {
  Complaint(const Container& its_container, int its_error) : container(its_container), error(its_error) {}

  void Run() override {
    const bool forbidden = error == EPERM || error == EACCES;
    container.worker_source->Warn(absl::StrFormat(
        "container %s: calls that are to be done inside it fail with EPERM, as no process gets there: %s%s",
        container.name, std::strerror(error),
        forbidden ? " (it is not this user's: let an agent of its user, or of root, serve it)" : ""));
  }

  const Container& container;
  const int error;
};

// Once in the container's life for each remark.
struct Remarking final : ControlJob {
  Remarking(const Container& its_container, const WorkResult& result)
      : container(its_container), remark(result.remark), about(result.about) {}

  void Run() override {
    about.back() = '\0';
    container.worker_source->Warn(
        absl::StrFormat("container %s: %s", container.name, TextOf(remark, about.data())));
  }

  const Container& container;
  const Remark remark;
  decltype(WorkResult::about) about;  // a copy: the desk may be somebody else's by then
};

// The worker says whether it is in. Not 0: why it is not.
int Greet(Workers::Bench& bench) {
  WorkerHello hello;
  const Result<PacketArrival> arrival =
      ReceivePacket(bench.link.get(), std::as_writable_bytes(std::span(&hello, 1)), 0);
  if (!arrival) return arrival.error().code;
  bench.user_namespace = hello.user_namespace;
  bench.mount_namespace = hello.mount_namespace;
  return hello.error;
}

bool Knock(const Workers::Bench& bench, const Reactor& reactor) {
  const WorkerCall cpu = reactor.cpu();
  return send(bench.link.get(), &cpu, sizeof(cpu), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(cpu);
}

// The worker has knocked. False: it has ended.
bool HasKnocked(const Workers::Bench& bench) {
  char knock;
  return recv(bench.link.get(), &knock, 1, MSG_DONTWAIT) == 1;
}

// The worker has done it, and a signal had taken the caller out meanwhile: should the kernel restart the
// call, it shall find this. But what a dead one has done is done for whoever has its number next. Before the
// desk is free.
void NoteIfLost(LostReplies& lost, const Desk& desk) {
  const WorkResult& result = desk.result;
  if (result.send_error == 0 || result.send_error == ESRCH) return;
  if (result.value >= 0 || desk.request.may_be_done)
    lost.Note(desk.request.tid, desk.request.fingerprint, Reply::Return(std::max<int64_t>(result.value, 0)));
}

// What the worker has sent, or could not send.
Reply Sent(const WorkResult& result) {
  if (result.send_error != 0) return Reply::Gone();
  return Reply::Sent(ReplyOf(result.value).error());
}

// What an engine before this one has begun: its worker may still be at it. Nothing: it has to be done
// (again).
struct LeftWork {
  std::optional<Reply> reply;
  bool may_be_done = false;
};

LeftWork Look(const Desk& desk) {
  switch (desk.state.load(std::memory_order_acquire)) {
    case DeskState::kDone:
    case DeskState::kSent:
      if (desk.result.elsewhere) return {};
      return {.reply = ReplyOf(desk.result.value)};
    case DeskState::kBegun:
      return {.reply = {}, .may_be_done = true};
    case DeskState::kFree:
    case DeskState::kGiven:
      break;
  }
  return {};
}

// What a call has learnt so far.
struct Progress {
  bool may_be_done = false;
  uint64_t user_namespace = 0, mount_namespace = 0;  // the caller's; 0: not known
  int attempts = 0;
  int64_t desk_busy_since = 0;
};

// Lays the work on the desk. A reply is the answer instead.
std::optional<Reply> Give(Call& call, Workers::Bench& bench, DeedName deed, Prepare prepare,
                          Progress& progress) {
  Container& container = ContainerOf(call);
  WorkRequest& request = bench.desk->request;
  request.call = call.notification.id;
  request.tid = call.notification.tid;
  request.deed = static_cast<uint32_t>(deed);
  if (const std::optional<Reply> reply = prepare(call, request)) return reply;
  request.registers = FingerprintOf(call.notification);
  request.fingerprint = Fingerprint(request.registers, {request.text.data(), request.text_size});
  // Not before: in between yet another call of the same thread could have come, and have missed it.
  const std::optional<Reply> lost = container.facts.lost_replies.Take(request.tid, request.fingerprint);
  progress.may_be_done = progress.may_be_done || lost;
  request.may_be_done = progress.may_be_done;
  if (!call.StillValid()) {
    if (lost) container.facts.lost_replies.Note(request.tid, request.fingerprint, *lost);
    return Reply::Gone();
  }
  bench.desk->tid.store(call.notification.tid, std::memory_order_relaxed);
  bench.desk->given_by.store(container.incarnation, std::memory_order_relaxed);
  bench.desk->state.store(DeskState::kGiven, std::memory_order_release);
  call.record.number = static_cast<int32_t>(bench.desk - container.memory.desks().data());
  call.record.Enter(Stage::kWithWorker);
  return {};
}

// Looks at what has become of it. Nothing: it has to be done (again).
std::optional<Reply> TakeResult(Call& call, Workers::Bench& bench, bool alive, Progress& progress) {
  Container& container = ContainerOf(call);
  Desk& desk = *bench.desk;
  const DeskState state = desk.state.load(std::memory_order_acquire);
  const WorkResult& result = desk.result;
  if (state == DeskState::kSent) {
    const Reply reply = Sent(result);
    NoteIfLost(container.facts.lost_replies, desk);
    Clear(desk);
    return reply;
  }
  // The desk stays as it is until another worker comes to it: should we die, the next engine has to know. But
  // it is nobody's any more.
  if (!alive) desk.tid.store(0, std::memory_order_relaxed);
  if (state == DeskState::kDone && !result.elsewhere) return ReplyOf(result.value);
  if (result.elsewhere) {
    progress.user_namespace = result.user_namespace;
    progress.mount_namespace = result.mount_namespace;
    if (progress.user_namespace == 0 || progress.mount_namespace == 0) {
      // A worker in a namespace within the caller's sees nothing of the caller. If we do not either, or if
      // the worker was in the right place, then nobody inside does.
      progress.user_namespace = NamespaceOf(desk.request.tid, "user");
      progress.mount_namespace = NamespaceOf(desk.request.tid, "mnt");
      const bool right_place = progress.user_namespace == bench.user_namespace &&
                               progress.mount_namespace == bench.mount_namespace;
      if (progress.user_namespace == 0 || progress.mount_namespace == 0 || right_place) {
        if (alive) Clear(desk);
        return Reply::Fail(EPERM);
      }
    }
  }
  progress.may_be_done = progress.may_be_done || state == DeskState::kBegun;
  if (alive) Clear(desk);
  return {};
}

Task Perform(Call call, DeedName deed, Prepare prepare) {
  Container& container = ContainerOf(call);
  Workers& workers = container.workers[call.place];
  LostReplies& lost = container.facts.lost_replies;
  Progress progress;

  if (call.record.stage.load(std::memory_order_relaxed) == Stage::kWithWorker) {
    const size_t number = static_cast<size_t>(call.record.number) % (2 * Workers::kMost);
    Workers::Bench& claimed = container.workers[number / Workers::kMost].bench(number % Workers::kMost);
    claimed.claimed = true;
    const Desk& left = *claimed.desk;
    while (left.state.load() < DeskState::kDone && IsManned(container.memory, left) && !call.seat.ended)
      co_await Pause(call, kMillisecond);
    const LeftWork work = left.request.call == call.notification.id ? Look(left) : LeftWork();
    claimed.claimed = false;
    if (work.reply) co_return *work.reply;
    progress.may_be_done = work.may_be_done;
  }

  workers.Reap(lost);
  // Of those that wait some may be this thread's, which signals have interrupted: they shall not keep their
  // slots.
  workers.WakeAll();
  bool waited = false;
  int refusal = 0;
  while (progress.attempts < kAttempts && !call.seat.ended) {
    if (std::exchange(waited, true) && !call.StillValid()) co_return Reply::Gone();
    // An earlier call of this thread is first. On one of our desks its end is announced; on another reactor's
    // nobody tells us.
    if (workers.IsBusyFor(call.notification.tid, FingerprintOf(call.notification))) {
      co_await workers.Changed(lost);
      continue;
    }
    if (IsBusyElsewhere(call)) {
      co_await Pause(call, kMillisecond / 4);
      continue;
    }
    Workers::Bench* bench = workers.TakeIdle(progress.user_namespace, progress.mount_namespace);
    if (bench == nullptr) {
      Workers::Bench* coming = workers.Coming();
      const bool ours = coming == nullptr;
      int error = 0;
      if (ours) {
        if (const int64_t delay = workers.DelayOfStart(MonotonicNow()); delay > 0) {
          if (workers.somebody_pauses) {
            co_await workers.Changed(lost);
            continue;
          }
          workers.somebody_pauses = true;
          co_await Pause(call, delay);
          workers.somebody_pauses = false;
          workers.WakeAll();
          continue;
        }
        Result<Entrance> entrance = FindEntrance(call.notification.tid);
        if (!call.StillValid()) co_return Reply::Gone();  // it may be somebody else's
        if (!entrance) {
          refusal = entrance.error().code;
          break;
        }
        coming = workers.TakePlace();
        if (coming == nullptr) {
          co_await workers.Changed(lost);
          continue;
        }
        StartJob job(call, *coming, *std::move(entrance));
        co_await OnControl(call, job);
        error = job.error;
        if (error == 0) workers.CountStart(MonotonicNow());
      } else if (std::exchange(coming->awaited, true)) {
        co_await workers.Changed(lost);
        continue;
      }
      if (error == 0 && co_await PollFd(call, coming->link.get(), POLLIN, kStartTime) < 0) error = ETIMEDOUT;
      if (error == 0) error = Greet(*coming);
      if (error != 0) Workers::Dismiss(*coming);
      workers.GiveBack(*coming, error != 0 ? Workers::Bench::State::kEmpty : Workers::Bench::State::kIdle);
      if (error == 0 || call.seat.ended) continue;
      // Its predecessor is on its way out, or somebody has killed it, or it was not started for us.
      const int64_t now = MonotonicNow();
      if (error == EBUSY && progress.desk_busy_since == 0) progress.desk_busy_since = now;
      const bool again =
          error == EBUSY ? now - progress.desk_busy_since < kLeaveTime : error == EPIPE || !ours;
      if (!again) {
        refusal = error;
        break;
      }
      if (error != EBUSY) ++progress.attempts;
      co_await Pause(call, kMillisecond);
      continue;
    }

    std::optional<Reply> reply = Give(call, *bench, deed, prepare, progress);
    if (reply) {
      workers.GiveBack(*bench, Workers::Bench::State::kIdle);
      co_return *reply;
    }
    const int64_t given = MonotonicNow();
    Workers::Outcome outcome{.knock = PollFd(call, bench->link.get(), POLLIN, 0)};
    bench->outcome = &outcome;
    bool alive = Knock(*bench, call.reactor);
    while (alive) {
      const int32_t polled = co_await outcome.knock;
      if (outcome.seen) break;
      alive = polled > 0 && HasKnocked(*bench);
      const DeskState state = bench->desk->state.load();
      if (state == DeskState::kSent || (state == DeskState::kDone && bench->desk->result.elsewhere)) break;
      if (state == DeskState::kDone)
        bench->desk->hurry.store(true);  // it was an old knock; there is one to come
    }
    const WorkResult& result = outcome.seen ? outcome.result : bench->desk->result;
    const uint32_t remark = result.remark == Remark::kNone ? 0 : 1u << static_cast<uint32_t>(result.remark);
    if ((remark & ~container.remarks.fetch_or(remark)) != 0) {
      Remarking remarking(container, result);
      co_await OnControl(call, remarking);
    }
    if (outcome.seen) co_return Sent(outcome.result);  // the bench is not ours any more

    bench->outcome = nullptr;
    if (!alive) Workers::Dismiss(*bench);
    reply = TakeResult(call, *bench, alive, progress);
    workers.GiveBack(*bench, alive ? Workers::Bench::State::kIdle : Workers::Bench::State::kEmpty);
    if (reply) co_return *reply;
    // It has taken the whole time that there is for a deed, and would again.
    if (!alive && MonotonicNow() - given >= kAlmostLongestDeed) co_return Reply::Fail(EIO);
    if (!progress.may_be_done) call.record.Enter(Stage::kReceived);
    ++progress.attempts;
  }
  if (refusal != 0) {
    if (refusal != ESRCH && !container.has_complained.exchange(true)) {
      Complaint complaint(container, refusal);
      co_await OnControl(call, complaint);
    }
    co_return Reply::Fail(EPERM);
  }
  co_return call.seat.ended ? Reply::Gone() : Reply::Fail(EIO);
}

}  // namespace

Workers::Workers(std::span<Desk> desks) {
  for (size_t i = 0; i < benches_.size(); ++i) benches_[i].desk = &desks[i];
}

Workers::Bench* Workers::TakeIdle(uint64_t user_namespace, uint64_t mount_namespace) {
  Bench* latest = nullptr;
  for (Bench& bench : benches_) {
    if (bench.state != Bench::State::kIdle) continue;
    if (user_namespace != 0 &&
        (bench.user_namespace != user_namespace || bench.mount_namespace != mount_namespace))
      continue;
    if (latest == nullptr || bench.used > latest->used) latest = &bench;
  }
  if (latest != nullptr) latest->state = Bench::State::kBusy;
  return latest;
}

int64_t Workers::DelayOfStart(int64_t now) const {
  return std::max<int64_t>(starts_paid_until_ - (kStartsAtOnce - 1) * kBetweenStarts - now, 0);
}

void Workers::CountStart(int64_t now) {
  starts_paid_until_ = std::max(starts_paid_until_, now) + kBetweenStarts;
}

Workers::Bench* Workers::TakePlace() {
  Bench* best = nullptr;
  const auto is_better = [](const Bench& bench, const Bench& than) {
    const bool empty = bench.state == Bench::State::kEmpty;
    const bool than_empty = than.state == Bench::State::kEmpty;
    return empty != than_empty ? empty : bench.used < than.used;
  };
  for (Bench& bench : benches_) {
    if (bench.state != Bench::State::kEmpty && bench.state != Bench::State::kIdle) continue;
    if (bench.claimed) continue;
    if (best == nullptr || is_better(bench, *best)) best = &bench;
  }
  if (best == nullptr) return nullptr;
  Dismiss(*best);
  best->state = Bench::State::kStarting;
  best->awaited = true;
  return best;
}

Workers::Bench* Workers::Coming() {
  for (Bench& bench : benches_) {
    if (bench.state == Bench::State::kStarting) return &bench;
  }
  return nullptr;
}

// Between the answer and the note that it was sent another call of the thread may come; that is the same call
// once more only if its registers are the same.
bool Workers::IsBusyFor(pid_t tid, uint64_t registers) const {
  return std::ranges::any_of(benches_, [&](const Bench& bench) {
    if (bench.outcome == nullptr || bench.desk->tid.load(std::memory_order_relaxed) != tid) return false;
    return bench.desk->state.load() < DeskState::kDone || bench.desk->request.registers == registers;
  });
}

void Workers::Reap(LostReplies& lost) {
  for (Bench& bench : benches_) {
    if (bench.outcome == nullptr || bench.desk->state.load() != DeskState::kSent) continue;
    Outcome& outcome = *std::exchange(bench.outcome, nullptr);
    outcome.seen = true;
    outcome.result = bench.desk->result;
    outcome.knock.Stop();
    NoteIfLost(lost, *bench.desk);
    Clear(*bench.desk);
    GiveBack(bench, Bench::State::kIdle);
  }
}

bool Workers::Hurry(LostReplies& lost) {
  for (Bench& bench : benches_) {
    if (bench.outcome != nullptr) bench.desk->hurry.store(true);
  }
  const uint64_t before = clock_;
  Reap(lost);
  return clock_ != before;
}

void Workers::GiveBack(Bench& bench, Bench::State state) {
  bench.state = state;
  bench.used = ++clock_;
  WakeAll();
}

void Workers::WakeAll() {
  // All of them, for they wait for different things; who waits again is in line behind those who do not.
  Change* change = std::exchange(first_, nullptr);
  last_ = &first_;
  while (change != nullptr) std::exchange(change, change->next)->waiter.resume();
}

void StartFirstWorker(Container& container, int listener, pid_t pid) {
  if (!container.policy.needs_workers() || container.memory.fd() < 0) return;
  const Result<Entrance> entrance = FindEntrance(pid != 0 ? pid : container.first_process);
  if (!entrance) return;
  Workers& workers = container.workers[0];
  Workers::Bench& bench = *workers.TakePlace();
  if (Begin(container, listener, bench, *entrance) == 0) {
    bench.awaited = false;
    workers.CountStart(MonotonicNow());
  } else {
    workers.GiveBack(bench, Workers::Bench::State::kEmpty);
  }
}

Reply DoInside(Call& call, DeedName deed, Prepare prepare) {
  return Start(Perform(call, deed, prepare), /*if_no_slot=*/Reply::Fail(ENOMEM));
}

// Up to the end of a page at first: what lies behind the string may be out of the caller's reach.
Result<size_t> ReadPath(const Call& call, uint64_t address, std::span<char> into) {
  constexpr size_t kPage = 4096;
  into = into.first(std::min<size_t>(into.size(), PATH_MAX));
  size_t size = 0;
  while (size < into.size()) {
    const size_t to_page_end = kPage - (address + size) % kPage;
    const std::span<char> piece = into.subspan(size, std::min(to_page_end, into.size() - size));
    const Result<size_t> got = call.target().ReadMemory(address + size, std::as_writable_bytes(piece));
    if (!got || *got == 0) return Fail(EFAULT);
    if (const void* end = std::memchr(piece.data(), 0, *got); end != nullptr)
      return static_cast<size_t>(static_cast<const char*>(end) - into.data());
    if (*got < piece.size()) return Fail(EFAULT);
    size += *got;
  }
  return Fail(ENAMETOOLONG);
}

uint64_t FingerprintOf(const Notification& notification) {
  const std::array<uint64_t, 2> call = {notification.arch, static_cast<uint32_t>(notification.nr)};
  return Hash(Hash(kEmptyHash, std::as_bytes(std::span(call))), std::as_bytes(std::span(notification.args)));
}

}  // namespace shunt
