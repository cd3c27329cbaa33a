// SPDX-License-Identifier: Apache-2.0
#include "net/peer_connections.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "net/held_descriptors.h"
#include "net/proc_numbers.h"
#include "net/side_thread.h"

namespace shunt::net {
namespace {

// Copies are of what was a socket when we looked. If it has been exchanged for another file meanwhile, to
// close that may take as long as its server likes.
bool ShutDown(Fd copy, const SockAddr& peer) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (getsockopt(copy.get(), SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) {
    if (errno == ENOTSOCK) CloseElsewhere(std::move(copy));
    return false;
  }
  sockaddr_storage name{};
  size = sizeof(name);
  if (protocol != IPPROTO_TCP || getpeername(copy.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0)
    return false;
  const Result<SockAddr> found = SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
  return found && found->ip() == peer.ip() && found->port() == peer.port() &&
         shutdown(copy.get(), SHUT_RDWR) == 0;
}

size_t ShutDownIn(pid_t pid, uint64_t mount, const SockAddr& peer) {
  size_t count = 0;
  const Fd directory = OpenFdInfoDirectory(pid);
  const Result<Fd> pidfd = directory.valid() ? OpenPidFd(pid) : Fail(ESRCH);
  if (!pidfd) return 0;
  (void)ForEachNumber(directory.get(), [&](int number) {
    if (ReadFdInfo(directory.get(), number).mount != mount) return true;
    Fd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd->get(), number, 0)));
    if (copy.valid() && ShutDown(std::move(copy), peer)) ++count;
    return true;
  });
  return count;
}

}  // namespace

Result<size_t> ShutDownConnections(pid_t pid, const SockAddr& peer) {
  const Result<uint64_t> mount = MountOfSockets();
  if (!mount) return tl::unexpected(mount.error());
  const Result<Namespace> network = NetworkOf(pid);
  if (!network) return tl::unexpected(network.error());
  const pid_t self = getpid();
  if (const Result<Namespace> own = NetworkOf(self); !own || *own == *network) return 0;
  const Fd processes(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!processes.valid()) return FailErrno();
  size_t count = 0;
  const Result<void> walked = ForEachNumber(processes.get(), [&](pid_t process) {
    if (process == self) return true;
    if (const Result<Namespace> other = NetworkOf(process); other && *other == *network)
      count += ShutDownIn(process, *mount, peer);
    return true;
  });
  if (!walked) return tl::unexpected(walked.error());
  return count;
}

}  // namespace shunt::net
