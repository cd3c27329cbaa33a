// SPDX-License-Identifier: Apache-2.0
// Intake: the connections on which container runtimes hand us the seccomp listeners of their containers.
//
// The protocol is the OCI runtime specification's: a runtime connects, sends one JSON object (the container
// process state) with the descriptors beside it (SCM_RIGHTS), and the name "seccompFd" in its list `fds` says
// which of them is the listener. What real runtimes taught us, and what therefore holds here:
//   - An object is complete when its braces balance. runc 1.1 keeps the connection open for the container's
//     whole life, and the container hangs in its first trapped call until we serve: nobody may wait for the
//     end of the stream.
//   - crun connects early, and leaves without a word when the container fails to start: silence is no error.
//   - An object may come in pieces, with descriptors beside any of them, and another may follow it at once.
//     We never read across the end of an object, so its descriptors are those that arrived with its bytes.
//   - A listener whose object is unusable is still handed on: dropping it can hang the container for ever,
//     because `runc init` holds a copy of its own and therefore never learns that nobody answers.
//
// For the same reason an object that is all there stays in its socket, with its descriptors, until the
// receiver has returned: it is looked at by MSG_PEEK, which duplicates descriptors. Whoever accepts and keeps
// the connections, and gives them to one engine after the other (Adopt), loses nothing when one of them dies
// in between: the next one finds the object again, and marks it as `again`. Where descriptors are short,
// it waits there as well. An object that comes in several pieces is taken out piece by piece, since its
// sender may be waiting for room; it is lost if an engine dies before its end.
//
// All calls are for one control thread, and none blocks. The peers are those whom the rule lets in
// (core/peer.h); what others have sent is closed unread. All the same every connection is bounded in bytes,
// in descriptors and in time, and so is their number.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/limits.h"
#include "core/peer.h"

namespace shunt {

// What a runtime says about the process that it has put under a filter. Nothing of it is trustworthy; the
// texts may hold any bytes.
struct ContainerState {
  std::string id;  // never empty
  pid_t pid = 0;   // the process under the filter, in the runtime's pid namespace; 0: not told (crun exec)
  pid_t state_pid = 0;   // the container's first process; differs from `pid` for an exec; 0: not told
  std::string status;    // "creating"; "running" for an exec; may be empty
  std::string bundle;    // may be empty, or "." (crun exec)
  std::string metadata;  // linux.seccomp.listenerMetadata of the container's configuration
  std::map<std::string, std::string> annotations;
  size_t listener_index = 0;  // which of the descriptors is the listener
};

// Reads one container process state. The error says what is wrong with it.
absl::StatusOr<ContainerState> ParseContainerState(std::string_view json);

// Finds the end of a JSON object in a stream that comes in pieces.
class ObjectScanner {
 public:
  // Looks at the next bytes of the stream. Returns how many belong to the object (with what stands before
  // it), up to and including its last brace if done() is true afterwards. Looks at nothing once done() or
  // failed().
  size_t Feed(std::string_view bytes);

  bool done() const { return state_ == State::kDone; }
  // The stream holds something else where the object should begin.
  bool failed() const { return state_ == State::kFailed; }
  // The first brace has been seen.
  bool begun() const { return state_ != State::kBefore; }

 private:
  enum class State : unsigned char { kBefore, kInside, kString, kEscape, kDone, kFailed };

  void Step(char byte);

  State state_ = State::kBefore;
  size_t depth_ = 0;
};

// One thing that came in.
struct Handover {
  absl::Status status;   // not OK: why nothing is known about the container
  ContainerState state;  // meaningful if `status` is OK
  // Exactly one if `status` is OK; else every true listener that came: answer them all.
  std::vector<Fd> listeners;
  Peer peer;
  // The first one of its connection: who had that before us may have taken the listeners over already.
  bool again = false;
};

struct IntakeOptions {
  PeerRule peers;                                    // who may hand over
  size_t connections = limits::kRuntimeConnections;  // at once; beyond that the least promising one goes
  size_t object_bytes = size_t{1} << 20;
  std::chrono::milliseconds silence{60'000};  // how long a connection may be idle between objects
  std::chrono::milliseconds patience{5'000};  // how long an object may take from its first byte to its last
  // Keep the connection of that name no more; give it to us once more. May be empty.
  std::function<void(uint64_t name)> drop;
  std::function<void(uint64_t name)> ask;
};

class Intake {
 public:
  // How many descriptors may come beside one object. Runtimes send exactly one.
  static constexpr size_t kDescriptors = 64;

  using Receiver = std::function<void(Handover)>;

  // `receive` is called from HandleEvents().
  static absl::StatusOr<std::unique_ptr<Intake>> Start(IntakeOptions options, Receiver receive);
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  // Becomes readable when HandleEvents() has something to do. For the control thread's poll loop.
  int event_fd() const { return epoll_.get(); }
  void HandleEvents();

  // Takes a connection that is kept under `name`, which is never given twice. Nothing is done with it, and
  // nobody dropped for it, before HandleEvents(): another engine may still be at it. Not valid: no descriptor
  // was free for it; then it is asked for again after a while.
  void Adopt(uint64_t name, Fd socket);

  // Replaces the rule for connections to come.
  void Allow(PeerRule peers) { options_.peers = std::move(peers); }

  size_t connections() const { return connections_.size(); }

 private:
  using Clock = std::chrono::steady_clock;

  struct Connection {
    Fd socket;
    uint64_t name = 0;
    Peer peer;
    bool again = true;    // no object of it has been completed by us
    bool watched = true;  // false: there was no room for its descriptors
    size_t unread = 0;    // of `bytes`, which are still in the socket
    ObjectScanner scanner;
    std::string bytes;      // of the object that is arriving
    std::vector<Fd> fds;    // beside those bytes
    bool lost_fds = false;  // the kernel had to drop some
    size_t objects = 0;     // that are complete
    Clock::time_point deadline;
  };
  using Connections = std::map<int, Connection>;  // by socket
  struct Arrival {
    uint64_t name = 0;
    Fd socket;
  };

  Intake(IntakeOptions options, Receiver receive);

  void TakeArrivals();
  void Take(Arrival arrival);
  void MakeRoom();
  void TurnAway(uint64_t name, int socket) const;
  void Forget(Connections::iterator connection);
  void Read(Connections::iterator connection);
  enum class Next : unsigned char { kGoOn, kWait, kClose };
  // `seen` bytes more wait in the socket, and are in buffer_ already.
  Next ReadSome(Connection& connection, size_t seen);
  Next AwaitRoom(Connection& connection);
  static void TakeOut(Connection& connection);
  static bool HasKilled(const Connection& connection);
  void Complete(Connection& connection);
  void Refuse(Connection& connection, absl::Status why);
  void HandOn(Connection& connection, Handover handover);
  void Mention(absl::Status what, Peer peer);
  void CloseOverdue();
  void AskForMissing();
  void ArmTimer();

  IntakeOptions options_;
  Receiver receive_;
  std::vector<char> buffer_;
  Fd epoll_;
  Fd timer_;
  std::deque<Arrival> arrivals_;  // since HandleEvents()
  Connections connections_;
  std::deque<uint64_t> missing_;  // there was no descriptor for them
  Clock::time_point ask_again_;   // for what is missing
  Clock::time_point read_again_;  // what is not watched
  size_t unmentioned_ = 0;        // turned away since the last word about such
  Clock::time_point mentioned_;
};

}  // namespace shunt
