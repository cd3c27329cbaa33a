// SPDX-License-Identifier: Apache-2.0
#include "net/connect_now.h"

#include <cerrno>

#include "core/patience.h"

namespace shunt::net {

int ConnectNow(int socket_fd, const sockaddr* address, socklen_t size) {
  const Patience::Wait wait(Patience::Wait::Bound::kAlways);
  if (connect(socket_fd, address, size) == 0) return 0;
  if (errno != EINTR) return errno;
  wait.GiveUp();
  return EINPROGRESS;
}

int ConnectNow(int socket_fd, const SockAddr& address) {
  return ConnectNow(socket_fd, address.data(), address.size());
}

}  // namespace shunt::net
