// SPDX-License-Identifier: Apache-2.0
#include "tests/support/held_directory.h"

#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <string>
#include <utility>

#include "tests/support/fuse_server.h"

namespace shunt {
namespace {

class Server final : public FuseServer {
 public:
  Server(const char* directory, Hold& hold) : FuseServer("held", directory), hold_(hold) {}

 private:
  void Answer(const fuse_in_header& header, const char* body) override {
    if (header.opcode == FUSE_MKDIR) ++hold_.made;
    const bool held = header.opcode == hold_.at && !hold_.holding.exchange(true);
    while (held && !hold_.let_go) sched_yield();
    switch (header.opcode) {
      case FUSE_LOOKUP:
        Entry(header, body, std::string(body).starts_with("deep"));
        break;
      case FUSE_MKDIR:
        Entry(header, body + sizeof(fuse_mkdir_in), /*make=*/true);
        break;
      case FUSE_GETATTR:
        ReplyAttributes(header, Directory(header.nodeid));
        break;
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
    ReplyEntry(header, Directory(node));
  }

  static fuse_attr Directory(uint64_t node) {
    fuse_attr attributes{};
    attributes.ino = node;
    attributes.mode = S_IFDIR | 0777;
    attributes.nlink = 2;
    return attributes;
  }

  Hold& hold_;
  std::map<std::pair<uint64_t, std::string>, uint64_t> nodes_;  // by parent and name
};

}  // namespace

pid_t HoldDirectory(const char* directory, Hold& hold) {
  Server server(directory, hold);
  return server.valid() ? server.Start() : -1;
}

}  // namespace shunt
