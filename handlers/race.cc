// SPDX-License-Identifier: Apache-2.0
#include "handlers/race.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "core/clock.h"
#include "core/task.h"
#include "handlers/attempt.h"
#include "handlers/connection.h"
#include "handlers/container.h"
#include "handlers/move.h"
#include "handlers/pending_signals.h"
#include "handlers/timed_call.h"
#include "handlers/way.h"
#include "net/connect_now.h"

namespace shunt {
namespace {

// The attempts of one call that are under way. In place 0 the first one: when that has failed, the place
// stays empty.
class Racers {
 public:
  Racers() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  bool valid() const { return epoll_.valid(); }
  int event_fd() const { return epoll_.get(); }
  bool first_runs() const { return racers_[0].fd.valid(); }
  bool empty() const {
    return std::ranges::none_of(racers_, [](const Racer& racer) { return racer.fd.valid(); });
  }
  bool has_room() const {
    return std::any_of(racers_.begin() + 1, racers_.end(),
                       [](const Racer& racer) { return !racer.fd.valid(); });
  }
  // When the one that has been under way for longest began.
  int64_t oldest() const {
    int64_t oldest = std::numeric_limits<int64_t>::max();
    for (const Racer& racer : racers_) {
      if (racer.fd.valid()) oldest = std::min(oldest, racer.begun_at);
    }
    return oldest;
  }

  void AddFirst(const Call& call, Fd fd, const Destination& to) { Add(call, racers_[0], std::move(fd), to); }
  // There is room.
  void Join(const Call& call, Fd fd, const Destination& to) {
    Add(call,
        *std::find_if(racers_.begin() + 1, racers_.end(), [](const Racer& one) { return !one.fd.valid(); }),
        std::move(fd), to);
  }

  enum class Seen : uint8_t { kNothing, kFailure, kWinner };
  // Looks at all of them; who began before `too_old` is out. If one has connected, `to` is about that one,
  // and the others are closed.
  Seen Look(const Call& call, int64_t too_old, Destination& to) {
    Seen seen = Seen::kNothing;
    for (Racer& racer : racers_) {
      if (!racer.fd.valid()) continue;
      int error = ResultAfterWait(racer.fd.get(), racer.address);
      if (error == EINPROGRESS && racer.begun_at > too_old) continue;
      if (error == EINPROGRESS) {
        Disconnect(racer.fd.get());
        error = ETIMEDOUT;
      }
      to.address = racer.address;
      to.slot = racer.slot;
      to.begun_at = racer.begun_at;
      NoteEnd(call, to, error);
      if (error == 0) {
        to.to_v4 = racer.to_v4;
        first_won_ = &racer == &racers_[0];
        winner_ = std::move(racer.fd);
        CloseAll();
        return Seen::kWinner;
      }
      error_ = error;
      Close(racer);
      seen = Seen::kFailure;
    }
    return seen;
  }

  // Before the answer.
  void CloseAll() {
    for (Racer& racer : racers_) Close(racer);
    epoll_.reset();
  }

  bool first_won() const { return first_won_; }
  Fd TakeWinner() { return std::move(winner_); }
  // Of the one that has failed last.
  int error() const { return error_; }
  void NoteError(int error) { error_ = error; }

 private:
  struct Racer {
    Fd fd;
    net::SockAddr address;
    uint32_t slot = Destination::kNoSlot;
    bool to_v4 = false;
    int64_t begun_at = 0;
    std::optional<InFlight> in_flight;
  };

  void Add(const Call& call, Racer& racer, Fd fd, const Destination& to) {
    epoll_event event{.events = EPOLLOUT, .data = {}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
    racer.fd = std::move(fd);
    racer.address = to.address;
    racer.slot = to.slot;
    racer.to_v4 = to.to_v4;
    racer.begun_at = to.begun_at;
    racer.in_flight.emplace(call, to.slot);
  }

  // The epoll does not forget what somebody else has open as well.
  void Close(Racer& racer) {
    if (racer.fd.valid()) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, racer.fd.get(), nullptr);
    racer.fd.reset();
    racer.in_flight.reset();
  }

  Fd epoll_;
  std::array<Racer, 4> racers_;  // at the same time; one that has failed leaves its place to another one
  Fd winner_;
  bool first_won_ = false;
  int error_ = ECONNREFUSED;
};

// A twin of the first one, which is connecting and not bound to a port by its program.
Result<Twin> RacerOf(const Call& call, const TargetSocket& first, const net::NumberedLock& lock, int device) {
  Result<Twin> twin = ReplacementFor(first);
  if (!twin) return twin;
  Result<Fd> made = BenchOf(call).twins.Take(lock, first.facts.family, device);
  if (!made) return tl::unexpected(made.error());
  twin->fd = *std::move(made);
  BindTo unbound;
  if (CarryOver(call, first, *twin, unbound) != Counter::count_) return Fail(EOPNOTSUPP);
  return twin;
}

bool ReachesBothFamilies(const TargetSocket& socket, const net::Service& service) {
  if (socket.facts.family != AF_INET6 || service.v4 == nullptr || service.v6 == nullptr) return false;
  int only_v6 = 0;
  socklen_t size = sizeof(only_v6);
  return getsockopt(socket.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, &size) == 0 && only_v6 == 0;
}

enum class Joined : uint8_t {
  kYes,
  kFailed,  // at once, and another one may do better
  kNobody,  // there is none any more
};

// The next backend, of the other family if there is one. The socket under `number` is still `inode`.
Joined JoinNext(Call& call, int number, uint64_t inode, Racers& racers, Destination& to) {
  to.place = {};
  to.joins = true;
  const net::Service* const service = ServiceNow(call, to.service);
  const NetworkView* const view = ViewOf(call);
  const std::optional<TargetSocket> first = TakeSocket(call, number);
  if (service == nullptr || view == nullptr || view->lock == nullptr || !first || first->info.ino != inode ||
      !call.StillValid()) {
    return Joined::kNobody;
  }
  const bool both = ReachesBothFamilies(*first, *service);
  if (both) to.to_v4 = !to.to_v4;
  Picked picked = PickNext(call, *service, first->facts.family, to);
  if (both && picked != Picked::kYes) {
    to.to_v4 = !to.to_v4;
    picked = PickNext(call, *service, first->facts.family, to);
  }
  if (picked != Picked::kYes) return Joined::kNobody;
  if (!LeadsToHost(*view, to.address)) return Joined::kFailed;
  const Result<int> device = LockingDevice(BenchOf(call), *view, to.address);
  if (!device) return Joined::kFailed;
  Result<Twin> twin = RacerOf(call, *first, *view->lock, *device);
  if (!twin) return Joined::kNobody;
  to.begun_at = MonotonicNow();
  const int error = net::ConnectNow(twin->fd.get(), to.address);
  if (error != 0 && error != EINPROGRESS) {
    NoteEnd(call, to, error);
    racers.NoteError(error);
    return TellsOfBackend(error) ? Joined::kFailed : Joined::kNobody;
  }
  to.place.Begin();
  racers.Join(call, std::move(twin->fd), to);
  call.counters.Add(Counter::failed_over);
  return Joined::kYes;
}

// Puts the winner in the place of the first one, which is connecting, or has failed.
Task Install(Call call, int number, uint64_t inode, Fd winner, Destination to) {
  for (; call.attempts < kPutOffAtMost; ++call.attempts) {
    std::optional<TargetSocket> first = TakeSocket(call, number);
    if (!call.StillValid()) co_return Reply::Gone();
    if (!first || first->info.ino != inode) break;
    Result<Twin> twin = ReplacementFor(*first);
    if (!twin) break;
    std::optional<SocketClaim> claim = ClaimSocket(call, number, *first);
    if (claim) {
      twin->fd = std::move(winner);
      twin->claim = *std::move(claim);
      if (ClaimTwin(call, *twin)) {
        const Reply reply = Move(call, number, *std::move(first), *std::move(twin), to);
        co_return reply;
      }
      winner = std::move(twin->fd);
    }
    co_await Pause(call, kPutOffFor);
  }
  co_return Reply::Fail(ECONNABORTED);
}

Task RunRace(Call call, Fd first, int64_t send_timeout_ns, Destination to) {
  int64_t& deadline = call.record.deadline_ns;
  if (deadline == 0 && send_timeout_ns > 0) deadline = MonotonicNow() + send_timeout_ns;
  const int number = call.record.number;
  const uint64_t inode = SocketInode(first.get());
  Racers racers;
  if (!racers.valid()) {
    first.reset();
    co_return Reply::Continue();  // the kernel goes on
  }
  call.alone = false;
  racers.AddFirst(call, std::move(first), to);
  bool more = true;  // backends that may join
  int64_t next_at = to.begun_at + to.race_after_ns;
  Racers::Seen seen = Racers::Seen::kNothing;
  {
    const TimedCalls::Mark waiting(ContainerOf(call).timed_calls, call.notification.tid,
                                   deadline == 0 ? 0 : inode);
    while (seen != Racers::Seen::kWinner) {
      while (more && racers.has_room() && MonotonicNow() >= next_at) {
        const Joined joined = JoinNext(call, number, inode, racers, to);
        if (joined == Joined::kYes) next_at = MonotonicNow() + to.race_after_ns;
        more = joined != Joined::kNobody;
      }
      if (racers.empty() && !more) break;
      const int64_t now = MonotonicNow();
      int64_t end = now + kLookAfterNs;
      if (deadline != 0) end = std::min(end, deadline);
      if (more) end = std::min(end, racers.oldest() + to.timeout_ns);
      if (more && racers.has_room()) end = std::min(end, next_at);
      co_await PollFd(call, racers.event_fd(), POLLIN, std::max<int64_t>(end - now, 1));
      if (!call.StillValid() || call.seat.ended) co_return Reply::Gone();
      // The last ones take as long as the kernel tries.
      const int64_t too_old = more ? MonotonicNow() - to.timeout_ns : std::numeric_limits<int64_t>::min();
      seen = racers.Look(call, too_old, to);
      if (seen == Racers::Seen::kWinner) break;
      if (seen == Racers::Seen::kFailure) next_at = MonotonicNow();
      const bool first_runs = racers.first_runs();
      if (SignalKeptBack(call.notification.tid)) {
        racers.CloseAll();
        co_return deadline == 0 && first_runs ? Reply::Continue() : Reply::Fail(EINTR);
      }
      if (deadline != 0 && MonotonicNow() >= deadline) {
        racers.CloseAll();
        co_return Reply::Fail(first_runs ? EINPROGRESS : racers.error());
      }
    }
  }
  racers.CloseAll();
  if (seen != Racers::Seen::kWinner) co_return Reply::Fail(racers.error());
  Fd winner = racers.TakeWinner();
  if (racers.first_won()) {
    winner.reset();
    co_return Reply::Return(0);
  }
  NoteOvertaking(call, to);
  to.joins = false;
  to.slot = Destination::kNoSlot;  // its end has been noted
  to.overtook = true;
  const Reply reply =
      Start(Install(call, number, inode, std::move(winner), to), /*if_no_slot=*/Reply::Fail(ENOBUFS));
  co_return reply;
}

}  // namespace

bool MayRace(const Call& call, const Destination& to) {
  if (to.race_after_ns == 0 || !to.in_its_network || to.is_last() || !MayWait(call)) return false;
  const net::Service* const service = ServiceNow(call, to.service);
  if (service == nullptr) return false;
  const auto size = [](const net::PickTable* table) { return table == nullptr ? 0 : table->size(); };
  return size(service->v4.get()) + size(service->v6.get()) > static_cast<size_t>(to.begun);
}

Reply Race(Call& call, Twin first, const Destination& to) {
  const int64_t send_timeout_ns = first.has_send_timeout ? ReadSendTimeout(first.fd.get()) : 0;
  return Start(RunRace(call, std::move(first.fd), send_timeout_ns, to), /*if_no_slot=*/Reply::Continue());
}

}  // namespace shunt
