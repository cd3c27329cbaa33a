// SPDX-License-Identifier: Apache-2.0
// The swap: what connect and bind do to get a locked twin in under the container's descriptor.
//
//   CarryOver      makes a twin the same as the container's socket
//   WatcherSearch  adds it to the epolls that watch the container's socket
//   SwapIn         installs it, and sees whether somebody else holds the old socket
//   TakeSwapBack   takes the swap back in that case
//
// Whatever goes wrong before the installation leaves the container's socket as it was.

#pragma once

#include <fcntl.h>

#include <optional>
#include <utility>

#include "core/call.h"
#include "core/reactor.h"
#include "core/task.h"
#include "handlers/container.h"
#include "handlers/side_call.h"
#include "handlers/socket_call.h"
#include "net/epoll_migration.h"

namespace shunt {

// The file status flags that a program can set and that mean something on a socket.
inline constexpr int kCarriedFlags = O_NONBLOCK | O_APPEND;

// A twin that is ready to be installed.
struct Twin {
  Fd fd;
  // The file status flags that the program shall find; until it is started the twin has O_NONBLOCK.
  int flags = 0;
  bool cloexec = false;
  bool has_send_timeout = true;  // SO_SNDTIMEO may be set
  SocketClaim claim;             // held until the socket has been moved and started
};

// Claims the container's socket under `number`, which `socket` was taken from, for a call that is about to
// move it. Nothing: another call is at it, or it has just been moved; the call has to be put off.
std::optional<SocketClaim> ClaimSocket(const Call& call, int number, const TargetSocket& socket);

// The same for the twin, which is about to be installed. False cannot be but by a collision of places: put
// off as well.
bool ClaimTwin(const Call& call, Twin& twin);

// How long a call is put off, in nanoseconds, and how often before the kernel is left to deal with it.
inline constexpr int64_t kPutOffFor = 100'000;
inline constexpr uint32_t kPutOffAtMost = 20'000;

// Where a twin is to be bound before the options that want it bound.
struct BindTo {
  std::optional<net::SockAddr> address;  // none: leave it unbound
  int error = 0;                         // the errno of the bind, if it failed
};

// The source port that the program has bound, as the other network can have it too. Nothing: none bound.
// EADDRNOTAVAIL for a loopback address, which leads nowhere else.
Result<std::optional<net::SockAddr>> SourceOf(const SocketBench& bench, TargetSocket& socket);

// Copies the options and binds the twin. Counter::count_ if it is now the same as the container's socket,
// else what to count: the socket stays on its ordinary path and the twin is no longer fresh.
Counter CarryOver(const Call& call, const TargetSocket& socket, Twin& twin, BindTo& bind_to);

// True if shutdown(2) was called on the unconnected socket: it says ENOTCONN, and counts for a later
// connection all the same. (One of the sending side alone cannot be seen.)
bool WasShutDown(int socket_fd);

// The file status flags and FD_CLOEXEC that a replacement of the socket must have. EOPNOTSUPP: it has some
// that it cannot.
Result<Twin> ReplacementFor(const TargetSocket& socket);

// What a swap came to.
enum class Swapped : uint8_t {
  kAlone,     // the twin is in place and nobody else holds the old socket
  kShared,    // the twin is in place, but somebody (a dup, a fork, a message in flight) holds the old socket
  kNotAtAll,  // the target has gone or the number is not open any more: nothing happened
  kTooSlow,   // the target got no CPU in time: nothing happened, and it may be tried again
};

// Installs `twin` as descriptor `number`, and then closes our duplicate of the old socket, whose inode is
// `old_inode`. `address` is what the twin is to be connected to or the program has bound, for whoever goes on
// if we die.
Swapped SwapIn(const Call& call, int number, Fd& old_socket, uint64_t old_inode, const Twin& twin,
               const net::SockAddr& address);

// Notes that the socket `number`, which is a twin already, may be connecting to `address` from now on.
void NoteStart(const Call& call, int number, int flags, const net::SockAddr& address);

// What an engine before this one has left of a swap that it had begun (Stage::kInstalling or later).
struct HalfSwap {
  enum class State : uint8_t {
    kNotBegun,  // the descriptor still has the old socket: the call is to be handled from the beginning
    kSwapped,   // the twin is in place
    kHome,      // a socket of the container's own network is in place: the call went home
    kGone,      // the descriptor is closed, or something else by now
  };
  State state = State::kGone;
  std::optional<TargetSocket> socket;  // what is in place
  bool maybe_shared = false;           // nobody has looked yet whether somebody else holds the old socket
  net::SockAddr address;               // as it was given to SwapIn
};
HalfSwap FindHalfSwap(const Call& call);

// What taking a swap back came to.
enum class TakenBack : uint8_t {
  kYes,
  kNo,       // the old socket is not to be had (its other copy is in flight), so the swap stands
  kTooSlow,  // the target got no CPU in time. One socket must not become two, so it has to be tried again
};

// Tries to take a swap back that came to kShared: `holder` is what a HolderSearch on the side thread has
// found.
TakenBack PutBack(const Call& call, int number, const Result<net::Holder>& holder,
                  const net::SocketIdentity& socket, bool cloexec);

// The whole of it: searches and tries until it comes to something. The call is then answered by
// `if_taken_back(call)`; where the swap stands, by `otherwise(call, twin)`.
template <typename IfTakenBack, typename Otherwise>
Task TakeSwapBack(Call call, int number, Twin twin, net::SocketIdentity old_socket, IfTakenBack if_taken_back,
                  Otherwise otherwise) {
  // The twin is in place and not what it shall be. A signal may send the caller here again meanwhile.
  call.alone = false;
  (void)ClaimTwin(call, twin);
  TakenBack taken_back = TakenBack::kTooSlow;
  while (taken_back == TakenBack::kTooSlow && !call.seat.ended) {
    // Anew each time: the other holder may move it meanwhile.
    net::HolderSearch search(call.notification.tid, old_socket);
    const bool searched = co_await OnSide(call, search);
    taken_back = TakenBack::kNo;
    if (searched) taken_back = PutBack(call, number, search.result(), old_socket, twin.cloexec);
    int64_t rest = taken_back == TakenBack::kTooSlow ? Reactor::kBreath : 0;
    for (; rest > 0 && !call.seat.ended; rest = call.reactor.RestOf(call.seat)) co_await Pause(call, rest);
  }
  if (taken_back == TakenBack::kYes) {
    twin = {};  // and its claims
    const Reply reply = if_taken_back(call);
    co_return reply;
  }
  call.record.Enter(Stage::kStarting);
  const Reply reply = otherwise(call, std::move(twin));  // what it was given is closed by now
  co_return reply;
}

// True if it is certain, and cheap to know, that no epoll of the target watches its descriptor `number`,
// whose file `socket_fd` duplicates. Otherwise the swap has to wait for a WatcherSearch.
bool KnownUnwatched(const Call& call, int number, int socket_fd);

// Looks for the epolls of the target that watch the socket and adds the twin to them, on the side thread. For
// use in a task:
//   WatcherSearch search(call, number, socket_fd, twin_fd);
//   if (!co_await OnSide(call, search) || !search.Done(call)) co_return Reply::Continue();
class WatcherSearch final : public net::SideJob {
 public:
  // The descriptors stay open until the job is finished.
  WatcherSearch(const Call& call, int number, int socket_fd, int twin_fd);

  void Run(net::SideTable& table) override;

  // On the reactor, afterwards: remembers what was found. False: a registration cannot be carried over, or
  // may have been overlooked; the socket must stay on the ordinary path and the twin must go.
  bool Done(const Call& call) const;

 private:
  const pid_t tid_;
  const Fd pidfd_;  // our own: the cache of targets closes its one when it needs the place
  const int number_;
  const int socket_fd_;
  const int twin_fd_;
  const uint64_t epolls_made_;
  Result<net::EpollSet> epolls_;
  size_t migrated_ = 0;
  Result<void> result_;
};

}  // namespace shunt
