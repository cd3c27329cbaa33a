// SPDX-License-Identifier: Apache-2.0
// SocketFile: a listening unix socket and its node in the file system.
//
// The node is made with its final mode from the first moment, a socket there on which nobody answers is
// replaced, and anything else is left alone. Who passes the descriptor on to another process gives it the
// identity as well, so that only the node that was made is removed in the end, by whoever is the last.

#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"

namespace shunt {

// Which node it is. All zero: not ours to remove.
struct NodeIdentity {
  dev_t device = 0;
  ino_t inode = 0;
};

class SocketFile {
 public:
  SocketFile() = default;

  // Listens on `path`, for our own user, root and `others`. The error names the path and what to do.
  static absl::StatusOr<SocketFile> Listen(std::string path, std::span<const uid_t> others = {});
  // What another process has made.
  static SocketFile Adopt(Fd socket, std::string path, NodeIdentity node);

  int fd() const { return socket_.get(); }
  const std::string& path() const { return path_; }
  NodeIdentity node() const { return node_; }
  Fd Release() { return std::move(socket_); }

  // Exactly these may connect beside our own user and root, from now on. Whoever could connect could fill the
  // queue in which all wait, so it is the kernel that keeps everybody else out, by an access control list.
  absl::Status Admit(std::span<const uid_t> others);
  // The filesystem has no such lists, and therefore everybody may connect.
  bool open_to_all() const { return open_to_all_; }
  // Whether `path` still leads to it. False for one that is not ours to remove.
  static bool IsInPlace(const std::string& path, NodeIdentity node);

  // Removes the node from the file system, unless somebody has replaced it.
  void Remove() const;

 private:
  Fd socket_;
  std::string path_;
  NodeIdentity node_;
  bool open_to_all_ = false;
};

}  // namespace shunt
