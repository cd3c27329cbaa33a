// SPDX-License-Identifier: Apache-2.0
#include "handlers/swap.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/reactor.h"
#include "handlers/socket_call.h"

namespace shunt {
namespace {

net::OptionSet OptionsToRead(const Call& call, int socket_fd, Home home, bool& stays) {
  const Container& container = ContainerOf(call);
  stays = false;
  const net::OptionSet all = home == Home::kHost ? net::OptionSet::kAllOfTwin : net::OptionSet::kAll;
  if (!container.exact_traps) return all;
  if (container.facts.rare_options.empty() && container.facts.stay.empty()) return net::OptionSet::kHot;
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return all;
  stays = container.facts.stay.MayHave(cookie);
  return container.facts.rare_options.MayHave(cookie) ? all : net::OptionSet::kHot;
}

// What was rare on the container's socket is so on its twin.
void MarkRare(const Call& call, int twin_fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(twin_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0)
    ContainerOf(call).facts.rare_options.Mark(cookie);
}

net::IpAddress Anywhere(int family) {
  return family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress();
}

}  // namespace

Result<std::optional<net::SockAddr>> SourceOf(const SocketBench& bench, TargetSocket& socket) {
  const net::SockAddr& local = socket.facts.local;
  if (local.ip().IsLoopback()) return Fail(EADDRNOTAVAIL);
  if (!socket.BoundToPort(bench)) return std::nullopt;
  // Any other address of the container's means: whatever address the host takes.
  return net::SockAddr(Anywhere(socket.facts.family), local.port(),
                       static_cast<sa_family_t>(socket.facts.family));
}

Counter CarryOver(const Call& call, const TargetSocket& socket, Twin& twin, BindTo& bind_to) {
  const net::TwinDefaults& defaults = BenchOf(call).defaults(socket.facts.family);
  const int twin_fd = twin.fd.get();
  bool stays;
  const net::OptionSet options = OptionsToRead(call, socket.fd.get(), socket.home, stays);
  if (stays) return Counter::kept_options;
  if (options != net::OptionSet::kHot) MarkRare(call, twin_fd);
  const auto carry = [&](net::CarryPhase phase) {
    const net::Carried carried = net::CarryOptions(socket.fd.get(), twin_fd, defaults, options, phase);
    twin.has_send_timeout = carried.send_timeout;
    return carried.complete();
  };
  if (!bind_to.address) return carry(net::CarryPhase::kWhole) ? Counter::count_ : Counter::kept_options;
  if (!carry(net::CarryPhase::kBeforeBind)) return Counter::kept_options;
  if (bind(twin_fd, bind_to.address->data(), bind_to.address->size()) != 0) {
    bind_to.error = errno;
    return Counter::kept_source;
  }
  return carry(net::CarryPhase::kAfterBind) ? Counter::count_ : Counter::kept_options;
}

bool WasShutDown(int socket_fd) {
  pollfd closed{.fd = socket_fd, .events = POLLRDHUP};
  return poll(&closed, 1, 0) == 1 && (closed.revents & POLLRDHUP) != 0;
}

std::optional<SocketClaim> ClaimSocket(const Call& call, int number, const TargetSocket& socket) {
  SocketClaim claim;
  if (!claim.Add(ContainerOf(call).claims, socket.info.ino)) return {};
  // Before we had it, somebody may have moved it.
  if (!call.alone) {
    const Result<DescriptorInfo> now = call.target().Describe(number);
    if (!now || now->ino != socket.info.ino) return {};
  }
  return claim;
}

bool ClaimTwin(const Call& call, Twin& twin) {
  if (call.alone) return true;
  struct stat status;
  return fstat(twin.fd.get(), &status) == 0 && twin.claim.Add(ContainerOf(call).claims, status.st_ino);
}

Result<Twin> ReplacementFor(const TargetSocket& socket) {
  const int flags = socket.info.flags;
  if ((flags & O_ASYNC) != 0) return Fail(EOPNOTSUPP);  // signals go by F_SETOWN, which is never replayed
  return Twin{.flags = flags & kCarriedFlags, .cloexec = (flags & O_CLOEXEC) != 0};
}

namespace {

void Note(JournalRecord& record, Stage stage, int number, uint64_t inode, int flags,
          const net::SockAddr& address) {
  record.number = number;
  record.inode = inode;
  record.flags = flags;
  record.NoteAddress({reinterpret_cast<const std::byte*>(address.data()), address.size()});
  record.Enter(stage);
}

}  // namespace

void NoteStart(const Call& call, int number, int flags, const net::SockAddr& address) {
  Note(call.record, Stage::kStarting, number, /*inode=*/0, flags, address);
}

Swapped SwapIn(const Call& call, int number, Fd& old_socket, uint64_t old_inode, const Twin& twin,
               const net::SockAddr& address) {
  Note(call.record, Stage::kInstalling, number, old_inode, twin.flags, address);
  net::HolderProbe& probe = BenchOf(call).holders;
  if (!probe.Arm(old_socket.get())) return Swapped::kNotAtAll;
  // Before any thread of the target can use it.
  ContainerOf(call).facts.has_twins.store(true, std::memory_order_release);
  const Result<void> installed =
      call.listener.Install(call.notification.id, twin.fd.get(), number, twin.cloexec);
  if (!installed) {
    probe.Disarm(old_socket.get());
    return installed.error() == Errno{EINTR} ? Swapped::kTooSlow : Swapped::kNotAtAll;
  }
  old_socket.reset();
  if (probe.StillHeld()) return Swapped::kShared;
  call.record.Enter(Stage::kStarting);
  return Swapped::kAlone;
}

HalfSwap FindHalfSwap(const Call& call) {
  const JournalRecord& record = call.record;
  HalfSwap half{.socket = TakeSocket(call, record.number)};
  if (!half.socket) return half;
  if (half.socket->info.ino == record.inode) {
    half.state = HalfSwap::State::kNotBegun;
  } else if (half.socket->home == Home::kHost) {
    half.state = HalfSwap::State::kSwapped;
  } else if (half.socket->home == Home::kContainer) {
    half.state = HalfSwap::State::kHome;
  }
  half.maybe_shared = record.stage.load(std::memory_order_relaxed) == Stage::kInstalling;
  half.address =
      net::SockAddr::Parse(std::span(record.address).first(record.address_size)).value_or(net::SockAddr());
  return half;
}

TakenBack PutBack(const Call& call, int number, const Result<net::Holder>& holder,
                  const net::SocketIdentity& socket, bool cloexec) {
  if (holder) {
    Fd stranger;
    const Result<Fd> old_socket = net::TakeHeld(*holder, socket, stranger);
    if (stranger.valid()) LeaveAlone(call, std::move(stranger));
    if (old_socket) {
      const Result<void> installed =
          call.listener.Install(call.notification.id, old_socket->get(), number, cloexec);
      if (installed) {
        call.counters.Add(Counter::kept_shared);
        return TakenBack::kYes;
      }
      if (installed.error() == Errno{EINTR}) return TakenBack::kTooSlow;
    }
  }
  if (!holder && holder.error() == Errno{ENOTSOCK}) NoteExchange(call);
  // After an engine's death it is only a suspicion that somebody holds it.
  if (!call.resumed()) call.counters.Add(Counter::shared_lost);
  return TakenBack::kNo;
}

namespace {

// A target's note: [0] the container's epoll count at which its epolls were looked for, plus one; [1] how
// many there were; [2] and [3] up to four of their numbers. More than that is not kept: the next swap looks
// again.
constexpr size_t kNotedEpolls = 4;

bool ReadNote(const Call& call, net::EpollSet& epolls) {
  const std::array<uint64_t, 4>& note = call.target().note();
  const Container& container = ContainerOf(call);
  if (!container.exact_traps || note[0] != container.facts.epolls_made + 1) return false;
  epolls.count = note[1];
  for (size_t i = 0; i < epolls.count; ++i)
    epolls.fds[i] = static_cast<int>(note[2 + i / 2] >> (32 * (i % 2)));
  return true;
}

void WriteNote(const Call& call, uint64_t epolls_made, const net::EpollSet& epolls) {
  if (epolls.count > kNotedEpolls) return;
  std::array<uint64_t, 4>& note = call.target().note();
  note = {epolls_made + 1, epolls.count, 0, 0};
  for (size_t i = 0; i < epolls.count; ++i) {
    note[2 + i / 2] |= uint64_t{static_cast<uint32_t>(epolls.fds[i])} << (32 * (i % 2));
  }
}

}  // namespace

bool KnownUnwatched(const Call& call, int number, int socket_fd) {
  const Container& container = ContainerOf(call);
  if (container.facts.epolls_coming != 0) return false;
  if (container.exact_traps && container.facts.epolls_made == 0) return true;
  net::EpollSet epolls;
  if (!ReadNote(call, epolls)) return false;
  if (epolls.count == 0) return true;
  const Result<net::EpollSet> watchers = net::FindWatchers(call.notification.tid, number, socket_fd, epolls);
  return watchers && watchers->count == 0 && !watchers->stale;
}

WatcherSearch::WatcherSearch(const Call& call, int number, int socket_fd, int twin_fd)
    : tid_(call.notification.tid),
      pidfd_(fcntl(call.target().PidFd().value_or(-1), F_DUPFD_CLOEXEC, 0)),
      number_(number),
      socket_fd_(socket_fd),
      twin_fd_(twin_fd),
      epolls_made_(ContainerOf(call).facts.epolls_made) {}

void WatcherSearch::Run(net::SideTable& table) {
  epolls_ = net::FindEpolls(tid_);
  if (!epolls_ || epolls_->count == 0) return;
  const Result<net::EpollSet> watchers = net::FindWatchers(tid_, number_, socket_fd_, *epolls_);
  if (!watchers) {
    result_ = tl::unexpected(watchers.error());
    return;
  }
  if (watchers->count == 0) return;
  net::EpollMigration migration(pidfd_.get(), number_, socket_fd_, twin_fd_, *watchers);
  migration.Run(table);
  result_ = migration.result();
  migrated_ = watchers->count;
}

bool WatcherSearch::Done(const Call& call) const {
  if (!epolls_ || !result_) return false;
  if (ContainerOf(call).facts.epolls_coming == 0) WriteNote(call, epolls_made_, *epolls_);
  for (size_t i = 0; i < migrated_; ++i) call.counters.Add(Counter::epolls_migrated);
  return true;
}

}  // namespace shunt
