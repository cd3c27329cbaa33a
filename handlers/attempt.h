// SPDX-License-Identifier: Apache-2.0
// What attempts to reach a backend are made of, for those that come one after the other (handlers/balance.cc)
// and those that race (handlers/race.cc): the pick, how an attempt stands, and what is noted of its end.

#pragma once

#include <cstdint>

#include "core/call.h"
#include "handlers/container.h"
#include "handlers/destination.h"
#include "net/balancer/service_table.h"

namespace shunt {

// The service of this id as it is now; nullptr: it is not configured any more. Good until the call waits.
const net::Service* ServiceNow(const Call& call, int64_t id);

enum class Picked : uint8_t {
  kYes,
  kNone,  // there is none that was not tried
  kFull,  // those that there are have all the connections that they may have
};

// The next backend, in the form that a socket of `family` takes. Where others wait for a place, it is not for
// this call, unless it is `its_turn`.
Picked PickNext(const Call& call, const net::Service& service, int family, Destination& to,
                bool its_turn = false);

// True if this error of a connect is about the backend, so that another one may do.
bool TellsOfBackend(int error);

// An attempt that has joined another one has come first: whoever remembers, remembers its backend.
void NoteOvertaking(const Call& call, const Destination& to);

// Counts how an attempt has ended, and tells who decides about backends what may matter.
void NoteEnd(const Call& call, const Destination& to, int error);

// What has become of a connection that we have just begun: 0, EINPROGRESS or why it failed, which is thereby
// taken out of the socket, so that it can be connected anew. The kernel does not begin anew where it has
// begun before.
int ResultOf(int socket_fd, const net::SockAddr& address);

// What has become of a connection to `address` that was awaited: 0, EINPROGRESS, or why it failed, which is
// thereby taken out of the socket, so that it can be connected anew. Another thread may have disconnected it
// meanwhile: ECONNABORTED.
int ResultAfterWait(int socket_fd, const net::SockAddr& address);

// Never waits, whatever the program does to the socket meanwhile.
void Disconnect(int socket_fd);

uint64_t SocketInode(int socket_fd);

// Short tasks are always to find a slot: attempts that wait leave them some.
bool MayWait(const Call& call);

// An attempt whose end is awaited, as others see it.
class InFlight {
 public:
  InFlight(const Call& call, uint32_t slot)
      : counts_(slot == Destination::kNoSlot ? nullptr : &BenchOf(call).services().CountsOf(slot)) {
    if (counts_ != nullptr) counts_->Begin();
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  ~InFlight() {
    if (counts_ != nullptr) counts_->End();
  }

 private:
  net::BackendCounts* const counts_;
};

}  // namespace shunt
