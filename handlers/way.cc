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

}  // namespace shunt
