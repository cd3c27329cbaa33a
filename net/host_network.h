// SPDX-License-Identifier: Apache-2.0
// HostNetwork: what the engine knows of the host's network, for locking a twin to one device by
// SO_BINDTODEVICE.
//
// HostNetwork is an immutable snapshot, read by the control thread and shared with the reactors; after a
// change (OpenRouteMonitor) a new one takes its place. RouteCache answers "which device leads to this peer?"
// and belongs to one reactor.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/ip_address.h"
#include "net/rtnetlink.h"
#include "net/subnet_set.h"

namespace shunt::net {

class HostNetwork {
 public:
  // Reads the network namespace of the socket. Takes milliseconds with thousands of routes.
  static absl::StatusOr<HostNetwork> Read(int route_socket_fd);

  // Differs between any two snapshots of this process; never 0.
  uint64_t generation() const { return generation_; }

  const std::vector<Interface>& interfaces() const { return interfaces_; }
  const std::vector<InterfaceAddress>& addresses() const { return addresses_; }

  // The device, whose name is the one for SO_BINDTODEVICE; nullptr if there is none. Lives as long as the
  // snapshot.
  const Interface* Find(int ifindex) const;

  // The device that owns the host's own address `ip`; 0 if it lives on lo, be it only among others, or is a
  // loopback address; nothing if it is not the host's.
  std::optional<int> OwnerOf(const IpAddress& ip) const;

  // Could a socket that is bound to this device reach any of these networks? Where that is not known: true.
  //
  // Loopback addresses are behind no device but lo. All the rest of IPv4 is behind every device: where no
  // route leads through it, a socket that is bound to a device takes any address to be on its link, and a
  // neighbour answers there for each of its own addresses (tried on 6.18; a test pins it). IPv6 needs a route
  // through the device, in any table.
  bool Behind(int ifindex, const SubnetSet& networks) const;

 private:
  bool HasRouteV6(int ifindex, const Subnet& subnet) const;

  uint64_t generation_ = 0;
  std::vector<Interface> interfaces_;
  std::vector<InterfaceAddress> addresses_;
  std::vector<Route> routes_v6_;
  bool routes_known_ = false;
};

// The devices to which connections are to be locked, remembered. A fixed size, no heap after construction,
// one thread.
class RouteCache {
 public:
  // A socket of its own, of OpenRouteSocket() in the host's network namespace.
  explicit RouteCache(Fd route_socket) : route_socket_(std::move(route_socket)) {}

  // The index of the device that a socket is to be bound to for reaching `destination`, or 0 if there is none
  // (the address is on the loopback device, or no ordinary unicast peer). Costs one netlink question when not
  // remembered. Fails as a connect() to there would, for example ENETUNREACH; failures are not remembered.
  Result<int> DeviceFor(const HostNetwork& network, const IpAddress& destination);

 private:
  static constexpr size_t kEntries = 256;  // of 24 bytes: 6 KiB for each reactor

  struct Entry {
    IpAddress destination;
    int ifindex = kEmpty;
  };
  static constexpr int kEmpty = -1;

  Result<int> Ask(const HostNetwork& network, const IpAddress& destination) const;

  Fd route_socket_;
  uint64_t generation_ = 0;  // of the snapshot that the entries were made with
  std::array<Entry, kEntries> entries_;
};

// The networks of all devices of the socket's network namespace, the loopback networks always included: where
// a container's own peers live. ResourceExhausted if they do not fit into a set.
absl::StatusOr<SubnetSet> ContainerNetworks(int route_socket_fd);
// The addresses of all its devices, the loopback device's included.
absl::StatusOr<std::vector<IpAddress>> ContainerAddresses(int route_socket_fd);
// Those of them by which others on its networks could reach it: of devices like Ethernet, and good beyond one
// link.
absl::StatusOr<std::vector<IpAddress>> OutwardAddresses(int route_socket_fd);

}  // namespace shunt::net
