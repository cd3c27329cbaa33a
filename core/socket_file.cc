// SPDX-License-Identifier: Apache-2.0
#include "core/socket_file.h"

#include <fcntl.h>
#include <sys/acl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "core/result.h"

namespace shunt {
namespace {

absl::Status SystemError(int code, std::string_view what) {
  return ToStatus(Errno{code}, what);
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path \"", path, "\" has ", path.size(),
                                                   " bytes: choose one of 1 to ",
                                                   sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int ConnectOrBind(int (*call)(int, const sockaddr*, socklen_t), int fd, const sockaddr_un& address) {
  return call(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
}

// Removes a socket that an earlier process has left behind.
absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError(errno, absl::StrCat("look at ", path));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " exists and is no socket: remove it, or choose another path"));
  }
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return SystemError(errno, "make a unix socket");
  const int error = ConnectOrBind(connect, probe.get(), address);
  if (error == 0 || error == EAGAIN) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process answers on ", path, ": stop it, or choose another path"));
  }
  if (error != ECONNREFUSED) return SystemError(error, absl::StrCat("ask who owns ", path));
  if (unlink(path.c_str()) != 0) return SystemError(errno, absl::StrCat("remove the stale socket ", path));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SocketFile> SocketFile::Listen(std::string path, std::span<const uid_t> others) {
  const absl::StatusOr<sockaddr_un> address = AddressOf(path);
  if (!address.ok()) return address.status();

  // Two processes that start at once must not remove each other's socket as a stale one.
  const std::string parent = ParentOf(path);
  const Fd lock(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid()) {
    return SystemError(errno, absl::StrCat("open the folder ", parent, " of the socket (create it first)"));
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return SystemError(errno,
                       absl::StrCat("lock ", parent, " (another process is starting on a socket there)"));
  }

  SocketFile made;
  made.socket_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = made.socket_.get();
  if (fd < 0) return SystemError(errno, "make a unix socket");
  // bind() gives the node the mode of the socket's inode less the umask: there is no moment with a wider
  // mode.
  if (fchmod(fd, 0600) != 0) return SystemError(errno, "set the mode of a unix socket");
  int error = ConnectOrBind(bind, fd, *address);
  if (error == EADDRINUSE) {
    if (absl::Status status = RemoveStale(path, *address); !status.ok()) return status;
    error = ConnectOrBind(bind, fd, *address);
  }
  if (error != 0)
    return SystemError(error, absl::StrCat("make the socket ", path, " (may we write to ", parent, "?)"));

  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return SystemError(errno, absl::StrCat("look at ", path));
  made.node_ = {.device = info.st_dev, .inode = info.st_ino};
  made.path_ = std::move(path);
  if (absl::Status status = made.Admit(others); !status.ok()) return status;
  if (listen(fd, SOMAXCONN) != 0) return SystemError(errno, absl::StrCat("listen on ", made.path_));
  return made;
}

SocketFile SocketFile::Adopt(Fd socket, std::string path, NodeIdentity node) {
  SocketFile adopted;
  adopted.socket_ = std::move(socket);
  adopted.path_ = std::move(path);
  adopted.node_ = node;
  return adopted;
}

absl::Status SocketFile::Admit(std::span<const uid_t> others) {
  // Where a service manager made it, its unit says who may connect.
  if (node_.inode == 0) return absl::OkStatus();
  std::string text = "u::rw,g::-,o::-";
  for (const uid_t uid : others) absl::StrAppend(&text, ",u:", uid, ":rw");
  if (!others.empty()) text += ",m::rw";
  const acl_t list = acl_from_text(text.c_str());
  const absl::Cleanup free_list = [list] { acl_free(list); };
  const bool set = list != nullptr && acl_set_file(path_.c_str(), ACL_TYPE_ACCESS, list) == 0;
  open_to_all_ = !set && errno == EOPNOTSUPP && !others.empty();
  if (set) return absl::OkStatus();
  if (errno != EOPNOTSUPP || chmod(path_.c_str(), open_to_all_ ? 0666 : 0600) != 0)
    return SystemError(errno, absl::StrCat("say who may connect to ", path_));
  return absl::OkStatus();
}

bool SocketFile::IsInPlace(const std::string& path, NodeIdentity node) {
  struct stat info {};
  return node.inode != 0 && lstat(path.c_str(), &info) == 0 && info.st_dev == node.device &&
         info.st_ino == node.inode;
}

void SocketFile::Remove() const {
  if (IsInPlace(path_, node_)) unlink(path_.c_str());
}

}  // namespace shunt
