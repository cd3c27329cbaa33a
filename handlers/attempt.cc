// SPDX-License-Identifier: Apache-2.0
// How the attempt on a socket stands, and what its errors say.

#include "handlers/attempt.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "net/connect_now.h"

namespace shunt {

bool TellsOfBackend(int error) {
  switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
      return true;
    default:
      return false;
  }
}

uint64_t SocketInode(int socket_fd) {
  struct stat status {};
  return fstat(socket_fd, &status) == 0 ? status.st_ino : 0;
}

void Disconnect(int socket_fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC};
  net::ConnectNow(socket_fd, &nowhere, sizeof(nowhere));
}

int ResultOf(int socket_fd, const net::SockAddr& address) {
  const int error = net::ConnectNow(socket_fd, address);
  if (error == EISCONN) return 0;
  return error == EALREADY ? EINPROGRESS : error;
}

int ResultAfterWait(int socket_fd, const net::SockAddr& address) {
  uint8_t state = 0;
  socklen_t size = sizeof(state);
  if (getsockopt(socket_fd, IPPROTO_TCP, TCP_INFO, &state, &size) != 0) return errno;
  if (state == TCP_SYN_SENT || state == TCP_SYN_RECV) return EINPROGRESS;
  if (state == TCP_LISTEN) return ECONNABORTED;
  if (state != TCP_CLOSE) return ResultOf(socket_fd, address);
  int error = 0;
  size = sizeof(error);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  if (error != 0) Disconnect(socket_fd);
  return error == 0 ? ECONNABORTED : error;
}

}  // namespace shunt
