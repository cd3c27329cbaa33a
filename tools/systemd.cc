// SPDX-License-Identifier: Apache-2.0
#include "tools/systemd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/clock.h"
#include "core/packet_socket.h"

namespace shunt {
namespace {

constexpr int kFirstPassed = 3;     // SD_LISTEN_FDS_START
constexpr int kMostPassed = 65536;  // a number in the environment is no reason to count for ever
// Datagrams that wait while the manager is busy, for example starts itself anew.
constexpr size_t kMostWaiting = 4096;

// The variable's value, after which it is gone.
std::optional<std::string> Take(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  std::string result = value;
  unsetenv(name);
  return result;
}

// A number that is meant for us: the variable `pid_name`, if there is one, holds our pid.
std::optional<uint64_t> TakeNumber(const char* name, const char* pid_name) {
  const std::optional<std::string> text = Take(name);
  const std::optional<std::string> pid_text = pid_name == nullptr ? std::nullopt : Take(pid_name);
  uint64_t number = 0;
  pid_t pid = 0;
  if (!text || !absl::SimpleAtoi(*text, &number)) return std::nullopt;
  if (pid_text && (!absl::SimpleAtoi(*pid_text, &pid) || pid != getpid())) return std::nullopt;
  return number;
}

}  // namespace

ServiceManager ServiceManager::FromEnvironment(FdStore store) {
  ServiceManager manager;
  if (const std::optional<std::string> path = Take("NOTIFY_SOCKET")) manager.Connect(*path);
  const std::optional<uint64_t> room = TakeNumber("FDSTORE", nullptr);
  manager.stores_ = manager.socket_.valid() && (store == FdStore::kAlways || room.value_or(0) > 0);
  if (const std::optional<uint64_t> limit = TakeNumber("WATCHDOG_USEC", "WATCHDOG_PID");
      limit && *limit > 0) {
    manager.watchdog_ = std::chrono::microseconds(std::min<uint64_t>(*limit, INT64_MAX / 2000));
  }

  const bool ours = std::getenv("LISTEN_PID") != nullptr;
  const std::optional<uint64_t> count = TakeNumber("LISTEN_FDS", "LISTEN_PID");
  const std::vector<std::string> names = absl::StrSplit(Take("LISTEN_FDNAMES").value_or(""), ':');
  if (!ours || !count) return manager;
  for (size_t i = 0; i < std::min<uint64_t>(*count, kMostPassed); ++i) {
    const int fd = kFirstPassed + static_cast<int>(i);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) continue;  // there is none
    manager.passed_.push_back({i < names.size() ? names[i] : "", Fd(fd)});
  }
  return manager;
}

void ServiceManager::Connect(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || (path[0] != '/' && path[0] != '@') || path.size() >= sizeof(address.sun_path)) {
    return Complain(absl::StrCat("NOTIFY_SOCKET=", std::string(path), " is no socket's path"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  // Connected, since only then poll tells when there is room again.
  Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid() || connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return Complain(
        absl::StrCat("cannot reach the service manager on ", std::string(path), ": ", std::strerror(errno)));
  }
  socket_ = std::move(socket);
}

void ServiceManager::Reloading() {
  Tell(absl::StrCat("RELOADING=1\nMONOTONIC_USEC=", MonotonicNow() / 1000));
}

void ServiceManager::MainPid(pid_t pid) {
  Tell(absl::StrCat("MAINPID=", pid));
}

void ServiceManager::Status(std::string_view text) {
  std::string line(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  Tell("STATUS=" + line);
}

void ServiceManager::Store(const std::string& name, int fd) {
  // FDPOLL=0: it must not look whether the descriptor has an error or a hang-up, and drop it then.
  if (stores_) Tell(absl::StrCat("FDSTORE=1\nFDPOLL=0\nFDNAME=", name), fd);
}

void ServiceManager::Remove(const std::string& name) {
  if (stores_) Tell(absl::StrCat("FDSTOREREMOVE=1\nFDNAME=", name));
}

void ServiceManager::Tell(std::string_view text, int fd) {
  if (!socket_.valid()) return;
  if (waiting_.size() >= kMostWaiting) return Complain("the service manager does not read what we tell it");
  Datagram datagram{.text = std::string(text)};
  if (fd >= 0) datagram.fd.reset(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (fd >= 0 && !datagram.fd.valid()) {
    return Complain(absl::StrCat("cannot give the service manager a descriptor: ", std::strerror(errno)));
  }
  waiting_.push_back(std::move(datagram));
  Flush();
}

void ServiceManager::Flush() {
  while (!waiting_.empty()) {
    const Datagram& next = waiting_.front();
    const int fd = next.fd.get();
    const Result<void> sent = SendPacket(socket_.get(), std::as_bytes(std::span(next.text)),
                                         fd < 0 ? std::span<const int>() : std::span(&fd, 1));
    if (!sent.has_value()) {
      if (sent.error().code == EAGAIN) return;
      Complain(absl::StrCat("cannot tell the service manager: ", std::strerror(sent.error().code)));
    }
    waiting_.pop_front();
  }
}

void ServiceManager::Complain(std::string text) {
  if (!std::exchange(complained_, true)) complaint_ = std::move(text);
}

}  // namespace shunt
