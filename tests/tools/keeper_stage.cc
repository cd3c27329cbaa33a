// SPDX-License-Identifier: Apache-2.0
#include "tests/tools/keeper_stage.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/check.h"
#include "core/packet_socket.h"
#include "tests/tools/engine_script.h"

namespace shunt {
namespace {

constexpr std::chrono::seconds kPatience{30};

}  // namespace

bool RemoteEngine::Heard(const std::string& line) const {
  return std::find(heard.begin(), heard.end(), line) != heard.end();
}

size_t RemoteEngine::Count(const std::string& first_word) const {
  return static_cast<size_t>(std::count_if(heard.begin(), heard.end(), [&](const std::string& line) {
    return line.substr(0, line.find(' ')) == first_word;
  }));
}

void RemoteEngine::Do(const std::string& command, const std::vector<int>& fds) const {
  const ScriptLine line = MakeLine(command);
  (void)SendPacket(socket.get(), std::as_bytes(std::span(&line, 1)), fds);
}

KeeperStage::KeeperStage() {
  char name[] = "/tmp/keeper-XXXXXX";
  SHUNT_CHECK(mkdtemp(name) != nullptr);
  folder = name;
  program = folder + "/engine";
  std::filesystem::copy_file(ScriptedEngine(), program);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder + "/test.sock";
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  listener_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  SHUNT_CHECK(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 &&
              listen(listener_.get(), SOMAXCONN) == 0);
  options.starter = {.arguments = {path}, .program = program};
  options.say = [this](absl::string_view text) { said.emplace_back(text); };
}

KeeperStage::~KeeperStage() {
  keeper.reset();
  std::filesystem::remove_all(folder);
}

void KeeperStage::Create() {
  const KeeperEvents events = {
      .ready =
          [this](uint64_t, std::string_view text) {
            ++ready;
            ready_text = text;
          },
      .serving =
          [this](HoldingName name, std::string_view text) {
            serving.push_back(std::to_string(static_cast<uint32_t>(name.tag)) + " " +
                              std::to_string(name.id) + " " + std::string(text));
          },
      .upgraded = [this](const absl::StatusOr<std::string>& how) { upgrades.push_back(how.status()); },
      .ended = [this](const absl::Status& status) { ended = status; },
  };
  absl::StatusOr<std::unique_ptr<Keeper>> created = Keeper::Create(options, events, manager);
  SHUNT_CHECK(created.ok());
  keeper = *std::move(created);
}

void KeeperStage::Start() {
  Create();
  keeper->Begin();
}

bool KeeperStage::Until(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    Turn(20);
  }
  return true;
}

RemoteEngine* KeeperStage::NextEngine() {
  const auto there = [this] { return engines.size() > taken_ && engines[taken_]->pid != 0; };
  return Until(there) ? engines[taken_++].get() : nullptr;
}

bool KeeperStage::Ready(size_t count) {
  return Until([&] { return ready >= count; });
}

std::istringstream KeeperStage::FieldsOf(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text;  // empty if it has gone, for which an iterator would throw
  std::getline(stat, text);
  const size_t name_end = text.rfind(')');
  return std::istringstream(name_end == std::string::npos ? "" : text.substr(name_end + 1));
}

bool KeeperStage::MayAct(pid_t pid) {
  std::istringstream fields = FieldsOf(pid);
  std::string state, skipped;
  unsigned long flags = 0;
  fields >> state >> skipped >> skipped >> skipped >> skipped >> skipped >> flags;
  constexpr unsigned long kExiting = 0x4;  // the kernel's PF_EXITING
  return !fields.fail() && (flags & kExiting) == 0;
}

bool KeeperStage::Ends(pid_t pid) {
  return Until([&] { return !MayAct(pid); });
}

void KeeperStage::ReplaceProgram(const std::string& by) {
  std::filesystem::copy_file(by, folder + "/new");
  std::filesystem::rename(folder + "/new", program);
}

std::string KeeperStage::ScriptedEngine() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "scripted_engine";
}

void KeeperStage::Turn(int timeout_ms) {
  std::vector<pollfd> sources = {{keeper == nullptr ? -1 : keeper->event_fd(), POLLIN, 0},
                                 {listener_.get(), POLLIN, 0}};
  for (const auto& engine : engines) sources.push_back({engine->socket.get(), POLLIN, 0});
  poll(sources.data(), sources.size(), timeout_ms);
  // Those who were there when we looked; Accept() adds more.
  for (size_t i = 2; i < sources.size(); ++i) {
    if (sources[i].revents != 0) Hear(*engines[i - 2]);
  }
  if (sources[0].revents != 0) keeper->HandleEvents();
  if (sources[1].revents != 0) Accept();
}

void KeeperStage::Accept() {
  Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return;
  engines.push_back(std::make_unique<RemoteEngine>());
  engines.back()->socket = std::move(socket);
  engines.back()->Do(obliging ? "obliging" : "wait");
}

void KeeperStage::Hear(RemoteEngine& engine) {
  for (;;) {
    ScriptLine line;
    const Result<PacketArrival> arrival =
        ReceivePacket(engine.socket.get(), std::as_writable_bytes(std::span(&line, 1)), 0);
    if (!arrival.has_value()) {
      if (arrival.error().code != EAGAIN) engine.socket.reset();
      return;
    }
    std::istringstream words(std::string(line.text));
    std::string word;
    words >> word;
    if (word == "hello") {
      words >> engine.pid >> engine.program >> engine.descriptors;
    } else {
      engine.heard.emplace_back(line.text);
    }
  }
}

Thing::Thing() : fd(memfd_create("thing", MFD_CLOEXEC)) {
  identity = Identity(("/proc/self/fd/" + std::to_string(fd.get())).c_str());
}

Fd Thing::Copy() const {
  return Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

std::string GiveLine(HoldingName name, const std::vector<const Thing*>& things) {
  std::string line =
      "give " + std::to_string(static_cast<uint32_t>(name.tag)) + " " + std::to_string(name.id);
  for (const Thing* thing : things) line += " " + thing->identity;
  return line;
}

std::vector<Fd> Copies(const std::vector<const Thing*>& things) {
  std::vector<Fd> fds;
  for (const Thing* thing : things) fds.push_back(thing->Copy());
  return fds;
}

}  // namespace shunt
