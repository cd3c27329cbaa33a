// SPDX-License-Identifier: Apache-2.0
// FuseServer: what the filesystems of tests have in common: the mount, the process that serves it, and the
// form of requests and replies. What is answered, or never, is for those who derive from it.
//
// Root of a user namespace may mount FUSE, in a mount namespace of its own.

#pragma once

#include <linux/fuse.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "core/fd.h"

namespace shunt {

class FuseServer {
 public:
  // Mounts over `directory`. If there is no FUSE here, valid() is false and errno says why.
  FuseServer(const char* name, const char* directory);
  virtual ~FuseServer() = default;
  FuseServer(const FuseServer&) = delete;
  FuseServer& operator=(const FuseServer&) = delete;

  bool valid() const { return device_.valid(); }
  // Serves in a process of its own, a child of the caller's that ends with it, and leaves the filesystem to
  // that. Its pid.
  pid_t Start();

 protected:
  // `body` is what follows the header; a zero stands behind it. Requests that open a session and those that
  // want no answer do not come here.
  virtual void Answer(const fuse_in_header& header, const char* body) = 0;

  void Fail(const fuse_in_header& to, int error) const { Send(to, -error, nullptr, 0); }
  void Reply(const fuse_in_header& to, const void* body, size_t size) const { Send(to, 0, body, size); }
  // For as long as a test lasts.
  void ReplyEntry(const fuse_in_header& to, const fuse_attr& attributes) const;
  void ReplyAttributes(const fuse_in_header& to, const fuse_attr& attributes) const;

 private:
  void Serve();
  void Send(const fuse_in_header& to, int error, const void* body, size_t size) const;

  Fd device_;
};

}  // namespace shunt
