// SPDX-License-Identifier: Apache-2.0
// StuckFile: a file on a FUSE mount whose server leaves everybody but the process that made it waiting for
// ever when a descriptor is closed, and everybody who reads what is in it. What a hostile container hands the
// engine.
//
// The server is a process of its own, so that it can be killed while the other waits for it.
//
// Root of a user namespace may mount FUSE, in a mount namespace of its own.

#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "core/fd.h"

namespace shunt {

class StuckFile {
 public:
  // Mounts over `directory`. fd() is -1 and errno says why if there is no FUSE here.
  explicit StuckFile(const char* directory) : own_(getpid()) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    device_ = Fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!device_.valid()) return;
    const std::string options =
        "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
    if (mount("stuck", directory, "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) return;
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      Serve();
      _exit(0);
    }
    device_.reset();
    file_ = Fd(open((std::string(directory) + "/file").c_str(), O_RDWR | O_CLOEXEC));
  }

  int fd() const { return file_.get(); }

 private:
  void Serve() {
    alignas(8) std::array<char, 256 * 1024> request;
    for (;;) {
      const ssize_t size = read(device_.get(), request.data(), request.size());
      if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
      fuse_in_header header;
      memcpy(&header, request.data(), sizeof(header));
      Answer(header);
    }
  }

  void Answer(const fuse_in_header& header) {
    fuse_attr attributes{};
    attributes.ino = header.opcode == FUSE_LOOKUP ? 2 : header.nodeid;
    attributes.mode = attributes.ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0666;
    attributes.nlink = 1;
    attributes.size = 4096;
    switch (header.opcode) {
      case FUSE_INIT: {
        fuse_init_out init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = 31;
        init.max_write = 4096;
        return Reply(header, &init, sizeof(init));
      }
      case FUSE_LOOKUP: {
        fuse_entry_out entry{};
        entry.nodeid = 2;
        entry.attr_valid = entry.entry_valid = 3600;
        entry.attr = attributes;
        return Reply(header, &entry, sizeof(entry));
      }
      case FUSE_GETATTR: {
        fuse_attr_out attr{};
        attr.attr_valid = 3600;
        attr.attr = attributes;
        return Reply(header, &attr, sizeof(attr));
      }
      case FUSE_OPEN: {
        fuse_open_out opened{};
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

  void Reply(const fuse_in_header& to, const void* body, size_t size) {
    std::array<char, 256> answer;
    fuse_out_header header{};
    header.len = static_cast<uint32_t>(sizeof(header) + size);
    header.unique = to.unique;
    memcpy(answer.data(), &header, sizeof(header));
    if (size > 0) memcpy(answer.data() + sizeof(header), body, size);
    (void)!write(device_.get(), answer.data(), header.len);
  }

  const pid_t own_;
  Fd device_;
  Fd file_;
};

}  // namespace shunt
