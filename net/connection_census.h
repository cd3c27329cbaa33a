// SPDX-License-Identifier: Apache-2.0
// ConnectionCensus: which TCP connections there are in this network namespace, and how far away their peers
// are, as the kernel knows it (sock_diag).
//
// Never by descriptors of ours: one that we held would keep a connection that its program has closed. Any
// user may ask. A dump takes about a microsecond for each connection to the ports in question, and a quarter
// of that for each other one, as long as the ports are few. No heap after construction; one thread.

#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "absl/functional/function_ref.h"
#include "core/result.h"
#include "net/ip_address.h"
#include "net/netlink.h"
#include "net/sock_diag.h"

namespace shunt::net {

// One that is being made, is there, or that the peer has closed and the program has not.
struct OpenConnection {
  IpAddress peer;  // IPv4 in either family
  uint16_t port = 0;
  uint32_t min_rtt_us = 0;  // the shortest of its last minutes; 0: not asked for, or none was seen
};

// Reads one message of sock_diag's answer, without its header. Nothing if it is no such connection.
std::optional<OpenConnection> ReadOpenConnection(netlink::Bytes payload);

class ConnectionCensus {
 public:
  // As SockDiag::Open() (net/sock_diag.h).
  static Result<ConnectionCensus> Open();

  // So many ports of peers the kernel is told to look for. It compares them one by one.
  static constexpr size_t kMostPorts = 32;

  // Calls visit() for each connection of both families whose peer has one of these ports; and for others, if
  // they are more than kMostPorts, or the kernel is too old to look for ports.
  Result<void> Visit(bool with_rtt, std::span<const uint16_t> ports,
                     absl::FunctionRef<void(const OpenConnection&)> visit);

 private:
  explicit ConnectionCensus(SockDiag diag) : diag_(std::move(diag)) {}

  SockDiag diag_;
  bool filters_ = true;  // false: the kernel is too old for it
};

}  // namespace shunt::net
