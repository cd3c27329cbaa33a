// SPDX-License-Identifier: Apache-2.0
// ListenerCensus: who listens on a TCP port of this network namespace, as the kernel knows it (sock_diag).
//
// A port number alone says nothing about whose it is: a listener may have gone and a stranger come. The
// kernel tells each socket's cookie (SO_COOKIE), by which one's own sockets are known again. Any user may
// ask. No heap after construction; one thread.

#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "core/result.h"
#include "net/ip_address.h"
#include "net/netlink.h"
#include "net/sock_diag.h"

namespace shunt::net {

struct ListeningSocket {
  uint64_t cookie = 0;
  sa_family_t family = AF_UNSPEC;  // AF_INET or AF_INET6
  IpAddress ip;                    // unspecified: every address of its family
  bool v6_only = false;            // AF_INET6: takes no IPv4 clients

  // True if it takes clients that connect to `destination`, unless somebody who listens on just that address
  // does.
  bool Accepts(const IpAddress& destination) const;
};

// Reads one message of sock_diag's answer, without its header. Nothing if it is no listening socket on `port`
// (host byte order).
std::optional<ListeningSocket> ReadListeningSocket(netlink::Bytes payload, uint16_t port);

class ListenerCensus {
 public:
  // As SockDiag::Open() (net/sock_diag.h).
  static Result<ListenerCensus> Open();

  // Calls visit() for each listening socket of this family on `port` (host byte order), whatever its address
  // and device.
  Result<void> Visit(sa_family_t family, uint16_t port,
                     absl::FunctionRef<void(const ListeningSocket&)> visit);

 private:
  explicit ListenerCensus(SockDiag diag) : diag_(std::move(diag)) {}

  SockDiag diag_;
};

}  // namespace shunt::net
