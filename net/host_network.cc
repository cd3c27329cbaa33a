// SPDX-License-Identifier: Apache-2.0
// HostNetwork, RouteCache and ContainerNetworks.

#include "net/host_network.h"

#include <linux/rtnetlink.h>

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shunt::net {
namespace {

Subnet LoopbackV4() {
  return Subnet(IpAddress(0, 0xffff7f000000), 8);
}
Subnet LoopbackV6() {
  return Subnet(IpAddress(0, 1), 128);
}

bool IsLoopbackNetwork(const Subnet& subnet) {
  return LoopbackV4().Covers(subnet) || LoopbackV6().Covers(subnet);
}

// Routes that say "nothing goes there".
bool Refuses(uint8_t route_type) {
  return route_type == RTN_UNREACHABLE || route_type == RTN_BLACKHOLE || route_type == RTN_PROHIBIT ||
         route_type == RTN_THROW;
}

}  // namespace

absl::StatusOr<HostNetwork> HostNetwork::Read(int route_socket_fd) {
  static std::atomic<uint64_t> last_generation{0};
  HostNetwork network;
  network.generation_ = last_generation.fetch_add(1, std::memory_order_relaxed) + 1;

  absl::StatusOr<std::vector<Interface>> interfaces = DumpInterfaces(route_socket_fd);
  if (!interfaces.ok()) return interfaces.status();
  network.interfaces_ = *std::move(interfaces);

  absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(route_socket_fd);
  if (!addresses.ok()) return addresses.status();
  network.addresses_ = *std::move(addresses);

  // A router with the Internet's table has too many to list. Without them Behind() says yes; the rest works.
  const absl::StatusOr<std::vector<Route>> routes = DumpRoutes(route_socket_fd);
  network.routes_known_ = routes.ok();
  if (!routes.ok()) return network;
  for (const Route& route : *routes) {
    if (!route.destination.IsV4() && !Refuses(route.type)) network.routes_v6_.push_back(route);
  }
  return network;
}

const Interface* HostNetwork::Find(int ifindex) const {
  for (const Interface& interface : interfaces_) {
    if (interface.ifindex == ifindex) return &interface;
  }
  return nullptr;
}

std::optional<int> HostNetwork::OwnerOf(const IpAddress& ip) const {
  if (ip.IsLoopback()) return 0;
  std::optional<int> owner;
  for (const InterfaceAddress& address : addresses_) {
    if (address.ip != ip) continue;
    if (address.is_loopback_device) return 0;
    if (!owner) owner = address.ifindex;
  }
  return owner;
}

bool HostNetwork::Behind(int ifindex, const SubnetSet& networks) const {
  const Interface* const device = Find(ifindex);
  const bool is_loopback = device == nullptr || device->is_loopback;
  for (const Subnet& subnet : networks) {
    if (is_loopback) return true;
    if (IsLoopbackNetwork(subnet)) continue;
    if (subnet.IsV4() || !routes_known_ || HasRouteV6(ifindex, subnet)) return true;
  }
  return false;
}

bool HostNetwork::HasRouteV6(int ifindex, const Subnet& subnet) const {
  for (const Route& route : routes_v6_) {
    // A next hop whose device was not told may be anywhere.
    const bool through_device = route.ifindex == ifindex || route.ifindex == 0;
    if (through_device && route.destination.Overlaps(subnet)) return true;
  }
  return false;
}

Result<int> RouteCache::DeviceFor(const HostNetwork& network, const IpAddress& destination) {
  if (generation_ != network.generation()) {
    entries_.fill(Entry{});
    generation_ = network.generation();
  }
  Entry& entry = entries_[destination.Hash() % kEntries];
  if (entry.ifindex != kEmpty && entry.destination == destination) return entry.ifindex;
  Result<int> device = Ask(network, destination);
  if (device) entry = Entry{destination, *device};
  return device;
}

Result<int> RouteCache::Ask(const HostNetwork& network, const IpAddress& destination) const {
  // The kernel would say lo for these, but a socket that is bound to lo reaches all of the host's loopback.
  if (const std::optional<int> owner = network.OwnerOf(destination)) return *owner;
  // Which link is meant is said by a scope id, and an index in the container's network means nothing in the
  // host's.
  if (destination.IsV6() && destination.IsLinkLocal()) return 0;
  const Result<RouteAnswer> route = LookUpRoute(route_socket_.get(), destination);
  if (!route) return Fail(route.error().code);
  if (route->type != RTN_UNICAST) return 0;
  const Interface* const device = network.Find(route->ifindex);
  // A device that the snapshot does not know: a new snapshot is on its way.
  if (device == nullptr || device->is_loopback) return 0;
  return device->ifindex;
}

absl::StatusOr<SubnetSet> ContainerNetworks(int route_socket_fd) {
  const absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(route_socket_fd);
  if (!addresses.ok()) return addresses.status();
  SubnetSet networks;
  bool fits = networks.Add(LoopbackV4()) && networks.Add(LoopbackV6());
  for (const InterfaceAddress& address : *addresses) {
    // On a point-to-point link our own address lies outside of the network.
    fits = fits && networks.Add(address.network) &&
           networks.Add(Subnet(address.ip, address.ip.IsV4() ? 32 : 128));
  }
  if (!fits) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a network namespace with more than ", SubnetSet::kCapacity, " networks of its own"));
  }
  return networks;
}

absl::StatusOr<std::vector<IpAddress>> ContainerAddresses(int route_socket_fd) {
  const absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(route_socket_fd);
  if (!addresses.ok()) return addresses.status();
  std::vector<IpAddress> ips;
  for (const InterfaceAddress& address : *addresses) ips.push_back(address.ip);
  return ips;
}

absl::StatusOr<std::vector<IpAddress>> OutwardAddresses(int route_socket_fd) {
  const absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(route_socket_fd);
  if (!addresses.ok()) return addresses.status();
  std::vector<IpAddress> ips;
  for (const InterfaceAddress& address : *addresses) {
    if (address.is_ethernet_device && !address.ip.IsLinkLocal() && !address.ip.IsLoopback())
      ips.push_back(address.ip);
  }
  return ips;
}

}  // namespace shunt::net
