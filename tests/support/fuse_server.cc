// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fuse_server.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <string>

namespace shunt {
namespace {

constexpr uint64_t kForLong = 3600;  // seconds

}  // namespace

FuseServer::FuseServer(const char* name, const char* directory)
    : device_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
  if (!device_.valid()) return;
  const std::string options =
      "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other";
  if (mount(name, directory, "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) device_.reset();
}

pid_t FuseServer::Start() {
  const pid_t server = fork();
  if (server == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Serve();
    _exit(0);
  }
  device_.reset();
  return server;
}

void FuseServer::Serve() {
  alignas(8) std::array<char, 256 * 1024> request;
  for (;;) {
    const ssize_t size = read(device_.get(), request.data(), request.size() - 1);
    if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
    request[static_cast<size_t>(size)] = '\0';
    fuse_in_header header;
    memcpy(&header, request.data(), sizeof(header));
    switch (header.opcode) {
      case FUSE_INIT: {
        fuse_init_out init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = 31;
        init.max_write = 4096;
        Reply(header, &init, sizeof(init));
        break;
      }
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        break;  // want no answer
      default:
        Answer(header, request.data() + sizeof(header));
    }
  }
}

void FuseServer::ReplyEntry(const fuse_in_header& to, const fuse_attr& attributes) const {
  fuse_entry_out entry{};
  entry.nodeid = attributes.ino;
  entry.attr_valid = entry.entry_valid = kForLong;
  entry.attr = attributes;
  Reply(to, &entry, sizeof(entry));
}

void FuseServer::ReplyAttributes(const fuse_in_header& to, const fuse_attr& attributes) const {
  fuse_attr_out answer{};
  answer.attr_valid = kForLong;
  answer.attr = attributes;
  Reply(to, &answer, sizeof(answer));
}

void FuseServer::Send(const fuse_in_header& to, int error, const void* body, size_t size) const {
  std::array<char, 256> answer;
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof(header) + size);
  header.error = error;
  header.unique = to.unique;
  memcpy(answer.data(), &header, sizeof(header));
  if (size > 0) memcpy(answer.data() + sizeof(header), body, size);
  (void)!write(device_.get(), answer.data(), header.len);
}

}  // namespace shunt
