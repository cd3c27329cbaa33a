// SPDX-License-Identifier: Apache-2.0
// StuckFile: a file on a FUSE mount whose server leaves everybody but the process that made it waiting for
// ever when a descriptor is closed, and everybody who reads what is in it. What a hostile container hands the
// engine.
//
// The server is a process of its own, so that it can be killed while the other waits for it.

#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <string>

#include "core/fd.h"
#include "tests/support/fuse_server.h"

namespace shunt {

class StuckFile {
 public:
  // Mounts over `directory`. fd() is -1 and errno says why if there is no FUSE here.
  explicit StuckFile(const char* directory) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    Server server(directory);
    if (!server.valid()) return;
    server.Start();
    file_ = Fd(open((std::string(directory) + "/file").c_str(), O_RDWR | O_CLOEXEC));
  }

  int fd() const { return file_.get(); }

 private:
  class Server final : public FuseServer {
   public:
    explicit Server(const char* directory) : FuseServer("stuck", directory), own_(getpid()) {}

   private:
    void Answer(const fuse_in_header& header, const char* /*body*/) override {
      fuse_attr attributes{};
      attributes.ino = header.opcode == FUSE_LOOKUP ? 2 : header.nodeid;
      attributes.mode = attributes.ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0666;
      attributes.nlink = 1;
      attributes.size = 4096;
      switch (header.opcode) {
        case FUSE_LOOKUP:
          return ReplyEntry(header, attributes);
        case FUSE_GETATTR:
          return ReplyAttributes(header, attributes);
        case FUSE_OPEN: {
          const fuse_open_out opened{};
          return Reply(header, &opened, sizeof(opened));
        }
        case FUSE_FLUSH:
          // The tasks of this process are known by number; the engine is outside, or another one.
          if (IsOwn(static_cast<pid_t>(header.pid))) return Reply(header, nullptr, 0);
          return;
        default:
          return;
      }
    }

    bool IsOwn(pid_t tid) const {
      const std::string path = "/proc/" + std::to_string(own_) + "/task/" + std::to_string(tid);
      return access(path.c_str(), F_OK) == 0;
    }

    const pid_t own_;
  };

  Fd file_;
};

}  // namespace shunt
