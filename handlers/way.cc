// SPDX-License-Identifier: Apache-2.0
#include "handlers/way.h"

#include <algorithm>

namespace shunt {

bool LeadsToHost(const Container& container, const net::SockAddr& peer) {
  const net::IpAddress ip = peer.ip();
  // A scope id is an interface's index in the container's namespace, and port 0 nobody's: the kernel's
  // business.
  if (peer.port() == 0 || peer.scope_id() != 0) return false;
  if (ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsBroadcast()) return false;
  if (ip.IsV6() && ip.IsLinkLocal()) return false;
  return !container.view->ordinary.Contains(ip);
}

bool LockFor(SocketBench& bench, const Container& container, const net::SockAddr& peer, int twin_fd) {
  const NetworkView& view = *container.view;
  switch (view.lock->lock.kind()) {
    case net::SocketLock::Kind::kProgram:
      return true;  // it is on every twin since it was made
    case net::SocketLock::Kind::kNone:
      return false;
    case net::SocketLock::Kind::kDevice:
      break;
  }
  const Result<int> device = bench.routes.DeviceFor(*view.host, peer.ip());
  if (!device || *device == 0) return false;
  if (std::find(view.open_devices.begin(), view.open_devices.end(), *device) != view.open_devices.end())
    return false;
  return net::BindToDevice(twin_fd, *device).has_value();
}

}  // namespace shunt
