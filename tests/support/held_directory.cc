// SPDX-License-Identifier: Apache-2.0
#include "tests/support/held_directory.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "core/fd.h"

namespace shunt {
namespace {

class Server {
 public:
  Server(Fd device, Hold& hold) : device_(std::move(device)), hold_(hold) {}

  void Serve() {
    alignas(8) std::array<char, 256 * 1024> request;
    for (;;) {
      const ssize_t size = read(device_.get(), request.data(), request.size() - 1);
      if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
      request[static_cast<size_t>(size)] = '\0';
      fuse_in_header header;
      memcpy(&header, request.data(), sizeof(header));
      Answer(header, request.data() + sizeof(header));
    }
  }

 private:
  void Answer(const fuse_in_header& header, const char* body) {
    if (header.opcode == FUSE_MKDIR) ++hold_.made;
    const bool held = header.opcode == hold_.at && !hold_.holding.exchange(true);
    while (held && !hold_.let_go) sched_yield();
    switch (header.opcode) {
      case FUSE_INIT: {
        fuse_init_out init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = 31;
        init.max_write = 4096;
        Reply(header, &init, sizeof(init));
        break;
      }
      case FUSE_LOOKUP:
        Entry(header, body, std::string(body).starts_with("deep"));
        break;
      case FUSE_MKDIR:
        Entry(header, body + sizeof(fuse_mkdir_in), /*make=*/true);
        break;
      case FUSE_GETATTR: {
        fuse_attr_out attributes{};
        attributes.attr_valid = 3600;
        attributes.attr = Directory(header.nodeid);
        Reply(header, &attributes, sizeof(attributes));
        break;
      }
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;  // want no answer
      default:
        Fail(header, ENOSYS);
    }
    if (held) hold_.answered = true;
  }

  void Entry(const fuse_in_header& header, const char* name, bool make) {
    const auto found = nodes_.find({header.nodeid, name});
    if (found == nodes_.end() && !make) return Fail(header, ENOENT);
    const uint64_t node = found != nodes_.end() ? found->second : FUSE_ROOT_ID + 1 + nodes_.size();
    nodes_[{header.nodeid, name}] = node;
    fuse_entry_out entry{};
    entry.nodeid = node;
    entry.attr_valid = entry.entry_valid = 3600;
    entry.attr = Directory(node);
    Reply(header, &entry, sizeof(entry));
  }

  static fuse_attr Directory(uint64_t node) {
    fuse_attr attributes{};
    attributes.ino = node;
    attributes.mode = S_IFDIR | 0777;
    attributes.nlink = 2;
    return attributes;
  }

  void Fail(const fuse_in_header& to, int error) { Send(to, -error, nullptr, 0); }
  void Reply(const fuse_in_header& to, const void* body, size_t size) { Send(to, 0, body, size); }
  void Send(const fuse_in_header& to, int error, const void* body, size_t size) {
    std::array<char, 256> answer;
    fuse_out_header header{};
    header.len = static_cast<uint32_t>(sizeof(header) + size);
    header.error = error;
    header.unique = to.unique;
    memcpy(answer.data(), &header, sizeof(header));
    if (size > 0) memcpy(answer.data() + sizeof(header), body, size);
    (void)!write(device_.get(), answer.data(), header.len);
  }

  Fd device_;
  Hold& hold_;
  std::map<std::pair<uint64_t, std::string>, uint64_t> nodes_;  // by parent and name
};

}  // namespace

pid_t HoldDirectory(const char* directory, Hold& hold) {
  Fd device(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.valid()) return -1;
  const std::string options =
      "fd=" + std::to_string(device.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
  if (mount("held", directory, "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) return -1;
  const pid_t server = fork();
  if (server != 0) return server;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Server(std::move(device), hold).Serve();
  _exit(0);
}

}  // namespace shunt
