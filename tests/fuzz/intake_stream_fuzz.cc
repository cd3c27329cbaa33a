// SPDX-License-Identifier: Apache-2.0
// What runtimes send to the agent's socket, through a true socket: any bytes in any pieces, with descriptors
// beside any of them, over several connections. A plain model says what must come of it.
//
// Bytes from 0xf8 up are not sent, they say what happens behind what stands before them:
//   f8  sent, with a listener and another file beside     fc  the agent looks
//   f9  sent, with a listener beside                      fd  the agent looks; the other connection goes on
//   fa  sent, with another file beside                    fe  the agent looks; this connection ends, and is a
//   fb  sent                                                  new one when it goes on

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/intake.h"
#include "core/socket_file.h"
#include "tests/support/listener.h"

namespace {

using shunt::Fd;
using shunt::Handover;
using shunt::Intake;

enum Mark : uint8_t { kBoth = 0xf8, kListener, kOther, kPlain, kLook, kSwitch, kEnd };

struct Outcome {
  std::string id;  // empty: unusable
  size_t listeners = 0;

  // MSG_PEEK shows the descriptors beside the next message as well if it stops exactly at the end of one that
  // has none. So what is refused may keep a listener that comes with what follows.
  bool IsAs(const Outcome& expected) const {
    return id == expected.id &&
           (id.empty() ? listeners >= expected.listeners : listeners == expected.listeners);
  }
};

// One socket for all inputs: whatever an input leaves behind shows in the next.
class Agent {
 public:
  Agent() {
    std::string folder = std::filesystem::temp_directory_path() / "shunt-fuzz-XXXXXX";
    SHUNT_CHECK(mkdtemp(folder.data()) != nullptr);
    folder_ = folder;
    auto door = shunt::SocketFile::Listen(folder_ / "socket");
    SHUNT_CHECK(door.ok());
    door_ = *std::move(door);
    shunt::IntakeOptions options;
    options.silence = options.patience = std::chrono::hours(24);
    auto intake = Intake::Start(std::move(options), [this](Handover handover) {
      SHUNT_CHECK(!handover.status.ok() || !handover.state.id.empty());
      outcomes.push_back({handover.status.ok() ? handover.state.id : "", handover.listeners.size()});
    });
    SHUNT_CHECK(intake.ok());
    intake_ = *std::move(intake);
  }
  ~Agent() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  Fd Connect() const {
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string path = folder_ / "socket";
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    SHUNT_CHECK(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
  }

  // Lets the agent look until it has seen everything.
  void Look() {
    for (;;) {
      Fd socket(accept4(door_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!socket.valid()) break;
      intake_->Adopt(++let_in_, std::move(socket));
    }
    intake_->HandleEvents();
    pollfd ready{intake_->event_fd(), POLLIN, 0};
    for (int rounds = 0; poll(&ready, 1, 0) == 1; ++rounds) {
      SHUNT_CHECK(rounds < 100'000);
      intake_->HandleEvents();
    }
  }

  size_t connections() const { return intake_->connections(); }

  std::vector<Outcome> outcomes;

 private:
  std::filesystem::path folder_;
  shunt::SocketFile door_;
  uint64_t let_in_ = 0;
  std::unique_ptr<Intake> intake_;
};

// A runtime at the other end, and what is to be expected of what it sends.
class Runtime {
 public:
  Runtime(Agent& agent, int listener, int other)
      : agent_(agent), socket_(agent.Connect()), listener_(listener), other_(other) {}

  void Send(const std::string& piece, bool with_listener, bool with_other, std::vector<Outcome>& expected) {
    if (piece.empty()) return;  // nothing is sent then, descriptors neither
    std::vector<int> fds;
    if (with_listener) fds.push_back(listener_);
    if (with_other) fds.push_back(other_);
    alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control{};
    iovec bytes{const_cast<char*>(piece.data()), piece.size()};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      *header = {
          .cmsg_len = CMSG_LEN(fds.size() * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
      std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (over_) return;  // the agent has hung up, or will when it looks
    if (sent < 0 && (errno == EAGAIN || errno == ETOOMANYREFS)) {
      agent_.Look();  // much is on its way
      sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    SHUNT_CHECK(sent == static_cast<ssize_t>(piece.size()));
    for (const int fd : fds) fds_.push_back(fd == listener_);
    Read(piece, expected);
  }

  // The connection ends.
  void Close(std::vector<Outcome>& expected) {
    socket_.reset();
    if (!over_ && (scanner_.begun() || !fds_.empty())) Refuse(expected);
    over_ = true;
  }

 private:
  void Read(std::string_view piece, std::vector<Outcome>& expected) {
    while (!piece.empty()) {
      const size_t used = scanner_.Feed(piece);
      bytes_.append(piece.substr(0, used));
      piece.remove_prefix(used);
      if (scanner_.failed() || fds_.size() > Intake::kDescriptors) {
        over_ = true;
        return Refuse(expected);
      }
      if (scanner_.done()) Complete(expected);
    }
  }

  void Complete(std::vector<Outcome>& expected) {
    const auto state = shunt::ParseContainerState(bytes_);
    if (!state.ok() || state->listener_index >= fds_.size() || !fds_[state->listener_index])
      return Refuse(expected);
    expected.push_back({state->id, 1});
    Forget();
  }

  void Refuse(std::vector<Outcome>& expected) {
    expected.push_back({"", static_cast<size_t>(std::count(fds_.begin(), fds_.end(), true))});
    Forget();
  }

  void Forget() {
    scanner_ = {};
    bytes_.clear();
    fds_.clear();
  }

  Agent& agent_;
  Fd socket_;
  const int listener_;
  const int other_;
  bool over_ = false;  // the agent has heard enough
  shunt::ObjectScanner scanner_;
  std::string bytes_;
  std::vector<bool> fds_;  // beside those bytes: is it a listener?
};

int LowestFreeNumber() {
  return Fd(dup(0)).get();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Fd kListenerFile = shunt::MakeListener();
  static const Fd kOtherFile(open("/dev/null", O_RDONLY | O_CLOEXEC));
  static Agent agent;
  SHUNT_CHECK(kListenerFile.valid() && kOtherFile.valid());
  const int free_before = LowestFreeNumber();

  agent.outcomes.clear();
  std::vector<Outcome> expected;
  std::array<std::unique_ptr<Runtime>, 2> runtimes;
  size_t now = 0;
  const auto runtime = [&]() -> Runtime& {
    if (!runtimes[now])
      runtimes[now] = std::make_unique<Runtime>(agent, kListenerFile.get(), kOtherFile.get());
    return *runtimes[now];
  };
  const auto end = [&](std::unique_ptr<Runtime>& ending) {
    if (!ending) return;
    agent.Look();
    ending->Close(expected);
    ending.reset();
    agent.Look();
  };
  std::string piece;
  for (size_t i = 0; i <= size; ++i) {
    const uint8_t byte = i < size ? data[i] : uint8_t{kPlain};
    if (byte < kBoth || byte > kEnd) {
      piece += static_cast<char>(byte);
      continue;
    }
    runtime().Send(piece, byte == kBoth || byte == kListener, byte == kBoth || byte == kOther, expected);
    piece.clear();
    if (byte == kLook || byte == kSwitch) agent.Look();
    if (byte == kSwitch) now = 1 - now;
    if (byte == kEnd) end(runtimes[now]);
  }
  for (auto& left : runtimes) end(left);
  SHUNT_CHECK(std::ranges::equal(agent.outcomes, expected, &Outcome::IsAs));
  SHUNT_CHECK(agent.connections() == 0 && LowestFreeNumber() == free_before);
  return 0;
}
