// SPDX-License-Identifier: Apache-2.0
#include "handlers/way.h"

#include <netinet/in.h>

#include <algorithm>

namespace shunt {
namespace {

net::IpAddress Loopback(bool v6) {
  return v6 ? net::IpAddress::FromV6(in6addr_loopback) : net::IpAddress::FromV4({htonl(INADDR_LOOPBACK)});
}

// The address of the container that a connection to `ip` would go to; nothing if that is not its own.
std::optional<net::IpAddress> OwnAddress(const NetworkView& view, const net::IpAddress& ip) {
  if (ip.IsUnspecified()) return Loopback(ip.IsV6());
  const bool own = ip.IsLoopback() || std::find(view.own_addresses.begin(), view.own_addresses.end(), ip) !=
                                          view.own_addresses.end();
  return own ? std::optional(ip) : std::nullopt;
}

// The host's address of a port: its own if it was given one, else the loopback of the client's family.
net::IpAddress HostAddress(const net::Publish& publish, const net::IpAddress& inside) {
  if (!publish.host_ip) return Loopback(inside.IsV6());
  if (!publish.host_ip->IsUnspecified()) return *publish.host_ip;
  return Loopback(inside.IsV6() && publish.host_ip->IsV6());
}

// True if a connection to the host's `outside` gets to a listener that was moved there, and to nobody else,
// and if the program has bound that so that it takes connections to `inside`.
bool ReachesOwnListener(net::ListenerCensus& census, const HostPort& port, uint16_t host_port,
                        const net::IpAddress& inside, const net::IpAddress& outside) {
  bool found = false;
  bool stranger = false;
  const auto visit = [&](const net::ListeningSocket& listener) {
    if (!listener.Accepts(outside)) return;
    if (!port.IsOurs(listener.cookie)) {
      stranger = true;
      return;
    }
    net::ListeningSocket as_bound = listener;
    as_bound.ip = port.BoundAs(listener.family).ip();
    found = found || as_bound.Accepts(inside);
  };
  if (!census.Visit(AF_INET6, host_port, visit)) return false;
  if (outside.IsV4() && !census.Visit(AF_INET, host_port, visit)) return false;
  return found && !stranger;
}

}  // namespace

bool LeadsToHost(const Container& container, const net::SockAddr& peer) {
  const net::IpAddress ip = peer.ip();
  // A scope id is an interface's index in the container's namespace, and port 0 nobody's: the kernel's
  // business.
  if (peer.port() == 0 || peer.scope_id() != 0) return false;
  if (ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsBroadcast()) return false;
  if (ip.IsV6() && ip.IsLinkLocal()) return false;
  return !container.view->ordinary.Contains(ip);
}

Result<int> LockingDevice(SocketBench& bench, const Container& container, const net::SockAddr& peer) {
  const NetworkView& view = *container.view;
  switch (view.lock->lock.kind()) {
    case net::SocketLock::Kind::kProgram:
      return 0;
    case net::SocketLock::Kind::kNone:
      return Fail(EPERM);
    case net::SocketLock::Kind::kDevice:
      break;
  }
  const Result<int> device = bench.routes.DeviceFor(*view.host, peer.ip());
  if (!device || *device == 0) return Fail(EPERM);
  const std::vector<int>& open = view.open_devices;
  if (std::find(open.begin(), open.end(), *device) != open.end()) return Fail(EPERM);
  return *device;
}

std::optional<net::SockAddr> OwnPublishedPort(SocketBench& bench, const Container& container,
                                              const net::SockAddr& peer) {
  if (container.view->own_ports_lock == nullptr) return {};
  for (const PublishedPort& port : container.published) {
    if (port.publish.port != peer.port() || port.host == nullptr) continue;
    const std::optional<net::IpAddress> inside = OwnAddress(*container.view, peer.ip());
    if (!inside) return {};
    const net::IpAddress outside = HostAddress(port.publish, *inside);
    if (outside.IsV6() && peer.family() == AF_INET) continue;
    if (ReachesOwnListener(bench.listeners, *port.host, port.publish.host_port, *inside, outside))
      return net::SockAddr(outside, port.publish.host_port, peer.family());
  }
  return {};
}

}  // namespace shunt
