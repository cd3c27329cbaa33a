// SPDX-License-Identifier: Apache-2.0
// HostPort: a port of the host that is promised to a container, and the container's listeners that are there.
//
// A container may be served by several reactors at once, for what is executed in it later comes with a
// listener of its own. What they must agree on is here, behind a lock: it is touched by binds to published
// ports and by what concerns their listeners, never by an ordinary connect. Nothing allocates.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "core/fd.h"
#include "core/result.h"
#include "handlers/container_memory.h"
#include "net/publish.h"
#include "net/sock_addr.h"

namespace shunt {

class HostPort {
 public:
  explicit HostPort(const net::Publish& publish) : publish_(publish) {}

  // Where a socket of this family goes. With AF_INET the host's address must not be an IPv6 one.
  net::SockAddr AddressFor(int family) const;

  // Shall a twin that is the same as `socket_fd` be bound there? 0, or the errno of the bind.
  //
  // With SO_REUSEPORT a bind joins whoever has the port already, if he is of our uid: a stolen share of
  // somebody's clients. So the first of a container's group must find the port free without it, and from then
  // on a socket of ours that never listens holds it. (Another process of our own uid could still join.)
  int Admit(int socket_fd, int family);

  // A listener has been moved here; the program has bound it to `bound_as`.
  void Remember(uint64_t cookie, const net::SockAddr& bound_as);
  // Control thread: what an engine before this one has noted of this port.
  void Restore(const PortMemory& memory);
  // Notes for an engine after this one which families a group of ours has.
  void NoteGuards(PortMemory& memory) const;
  // True for the latest kRemembered of them. Cookies are never given twice, so this cannot be stale.
  bool IsOurs(uint64_t cookie) const;
  // What the program has bound a socket of this family to last; not valid() if it has not.
  net::SockAddr BoundAs(int family) const;

 private:
  static constexpr size_t kRemembered = 256;  // one for each worker of the largest pre-forking server

  // A guard holds the port in one family.
  using enum PortMemory::Family;
  using Family = PortMemory::Family;
  Result<Fd> BoundGuard(Family family, bool join) const;
  bool Concerns(Family family, int socket_fd, int socket_family) const;
  int Guard(Family family);
  int AdmitAlone(int socket_fd, int socket_family);

  const net::Publish publish_;
  mutable std::mutex mutex_;
  std::array<Fd, kFamilies> guards_;
  std::array<uint64_t, kRemembered> cookies_{};
  size_t next_cookie_ = 0;
  std::array<net::SockAddr, kFamilies> bound_as_;
};

}  // namespace shunt
