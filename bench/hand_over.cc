// SPDX-License-Identifier: Apache-2.0

#include "bench/hand_over.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace shunt::bench {

int ConnectToAgent(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  std::strcpy(address.sun_path, path);
  const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection < 0 || connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0)
    return connection;
  return -1;  // whoever calls this ends then, and the descriptor with it
}

bool HandOver(int connection, const std::string& id, pid_t pid, const std::string& metadata, int listener) {
  const std::string number = std::to_string(pid);
  std::string state = R"({"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":)" + number +
                      R"(,"metadata":")" + metadata + R"(","state":{"ociVersion":"1.0.2-dev","id":")" + id +
                      R"(","status":"creating","pid":)" + number + R"(,"bundle":"/nonexistent"}})";
  iovec body{state.data(), state.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &listener, sizeof listener);
  return sendmsg(connection, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(state.size());
}

}  // namespace shunt::bench
