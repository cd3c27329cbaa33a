// SPDX-License-Identifier: Apache-2.0
// An engine that does what a test tells it: `scripted_engine engine --link 3 SOCKET`.
//
// It connects to the test's SOCKET, says hello, repeats there all that it hears from the keeper, and obeys.
// The first command says whether it is obliging: such an engine answers the keeper by itself as a real one
// would. Everything on that socket is one line of text in a packet of fixed size, with descriptors where they
// belong.

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "core/packet_socket.h"
#include "tests/tools/engine_script.h"
#include "tools/engine_link.h"

namespace shunt {
namespace {

Fd ConnectToTest(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) std::exit(3);
  return socket;
}

class ScriptedEngine {
 public:
  ScriptedEngine(EngineLink link, Fd test) : link_(std::move(link)), test_(std::move(test)) {}

  int Run() {
    Tell("hello " + std::to_string(getpid()) + " " + Identity("/proc/self/exe") + " " + OpenDescriptors());
    pollfd first{test_.get(), POLLIN, 0};
    poll(&first, 1, -1);
    Obey();
    for (;;) {
      pollfd sources[] = {{test_.get(), POLLIN, 0}, {link_.fd(), deaf_ ? short{0} : link_.events(), 0}};
      poll(sources, 2, -1);
      if (sources[0].revents != 0) Obey();
      if (deaf_) continue;
      link_.Flush();
      if (sources[1].revents != 0) Listen();
    }
  }

 private:
  void Tell(const std::string& text) {
    const ScriptLine line = MakeLine(text);
    (void)SendPacket(test_.get(), std::as_bytes(std::span(&line, 1)), {});
  }

  // "3,4": the numbers of what is open, beside 0, 1, 2 and the socket to the test.
  std::string OpenDescriptors() const {
    std::string result;
    for (int fd = 3; fd < 1024; ++fd) {
      struct stat info;
      if (fd == test_.get() || fstat(fd, &info) != 0) continue;
      result += (result.empty() ? "" : ",") + std::to_string(fd);
    }
    return result;
  }

  void Listen() {
    Result<EngineLink::Arrival> arrival = link_.Receive();
    if (!arrival.has_value()) {
      if (arrival.error().code == EAGAIN) return;
      Tell("closed");
      std::exit(0);
    }
    const KeeperPacket& packet = arrival->packet;
    std::string text = MessageName(packet.message);
    if (packet.tag != 0) text += " " + std::to_string(packet.tag) + " " + std::to_string(packet.id);
    if (packet.value != 0) text += " " + std::to_string(packet.value);
    for (const Fd& fd : arrival->fds)
      text += " " + Identity(("/proc/self/fd/" + std::to_string(fd.get())).c_str());
    if (packet.text_size != 0) text += " " + std::string(packet.text_view());
    Tell(text);
    if (obliging_) Oblige(packet);
  }

  void Oblige(const KeeperPacket& packet) {
    switch (static_cast<KeeperMessage>(packet.message)) {
      case KeeperMessage::kGiven:
        return link_.Prepared();
      case KeeperMessage::kStart:
        return link_.Ready(7, "serving");
      case KeeperMessage::kPing:
        return link_.Pong(packet.value);
      case KeeperMessage::kStop:
        return link_.Stopped();
      case KeeperMessage::kLeave:
        std::exit(0);
      default:
        return;
    }
  }

  void Obey() {
    ScriptLine line;
    Result<PacketArrival> arrival =
        ReceivePacket(test_.get(), std::as_writable_bytes(std::span(&line, 1)), 8);
    if (!arrival.has_value()) {
      if (arrival.error().code == EAGAIN) return;
      std::exit(0);  // the test is gone
    }
    std::vector<int> fds;
    for (const Fd& fd : arrival->fds) fds.push_back(fd.get());
    std::istringstream words(std::string(line.text));
    std::string word;
    uint32_t tag = 0;
    uint64_t id = 0;
    words >> word;
    if (word == "obliging") obliging_ = true;
    if (word == "wait") obliging_ = false;
    if (word == "deaf") deaf_ = true;
    if (word == "prepared") link_.Prepared();
    if (word == "ready") link_.Ready(0, "serving");
    if (word == "stopped") link_.Stopped();
    if (word == "upgrade") link_.Upgrade();
    if (word == "exit" && words >> tag) std::exit(static_cast<int>(tag));
    if (word == "failed") link_.Failed("the reason why");
    if (word == "pong" && words >> id) link_.Pong(id);
    if (word == "serving" && words >> tag >> id) link_.Serving({static_cast<HoldingTag>(tag), id}, "a name");
    if (word == "again" && words >> tag >> id) link_.Again({static_cast<HoldingTag>(tag), id});
    if (word == "drop" && words >> tag >> id) link_.Drop({static_cast<HoldingTag>(tag), id});
    if (word == "hold" && words >> tag >> id) (void)link_.Hold({static_cast<HoldingTag>(tag), id}, fds);
    // What no EngineLink would send: any bytes, any number of descriptors.
    if (word == "bytes" && words >> id) {
      const std::string bytes(id, 'x');
      (void)SendPacket(link_.fd(), std::as_bytes(std::span(bytes)), fds);
    }
    if (word == "message" && words >> tag >> id) {
      KeeperPacket packet = MakePacket(static_cast<KeeperMessage>(tag), {});
      packet.tag = static_cast<uint32_t>(id);
      words >> packet.text_size;
      (void)SendPacket(link_.fd(), std::as_bytes(std::span(&packet, 1)), fds);
    }
  }

  EngineLink link_;
  Fd test_;
  bool obliging_ = false;
  bool deaf_ = false;  // does not read its link
};

}  // namespace
}  // namespace shunt

int main(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[1], "engine") != 0 || std::strcmp(argv[2], "--link") != 0) return 2;
  absl::StatusOr<shunt::EngineLink> link = shunt::EngineLink::Adopt(std::atoi(argv[3]));
  if (!link.ok()) return 4;
  return shunt::ScriptedEngine(*std::move(link), shunt::ConnectToTest(argv[4])).Run();
}
