// SPDX-License-Identifier: Apache-2.0
// Carries socket options from a container's socket to its twin: one pass over the table, reads first, few
// writes.
//
// Reading the hot options is a price that every accelerated connect pays, and half of it is entering the
// kernel. So a row that the family or the kernel does not have is never asked for, one SO_BUF_LOCK stands for
// both buffers, and the twin itself is read only where something was written.

#include "net/twin_options.h"

#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/fd.h"

namespace shunt::net {
namespace {

constexpr const char* kSignalOwner = "F_SETOWN";
constexpr const char* kSignalNumber = "F_SETSIG";
constexpr const char* kBufferLocks = "SO_BUF_LOCK";
constexpr int kSoAttachFilter = 26;
constexpr int kTcpCongestion = 13;

// The hot rows stand first, so that a swap without rare options never looks at the others.
constexpr size_t kHotRows = [] {
  size_t count = 0;
  while (count < kSocketOptions.size() && kSocketOptions[count].use == OptionUse::kHot) ++count;
  return count;
}();
constexpr size_t kSendTimeoutRow = [] {
  size_t row = 0;
  while (kSocketOptions[row].level != kLevelSocket || kSocketOptions[row].name != SO_SNDTIMEO) ++row;
  return row;
}();
static_assert(kSendTimeoutRow < kHotRows);
static_assert(std::none_of(kSocketOptions.begin() + kHotRows, kSocketOptions.end(),
                           [](const SocketOption& option) { return option.use == OptionUse::kHot; }),
              "hot rows have to come first in kSocketOptions");

// Large enough for every row: IPv6 extension headers are cut off at 64 bytes, which is enough to see that
// they exist.
struct ReadValue {
  socklen_t size;
  alignas(8) std::array<unsigned char, 64> bytes;

  bool AllZero() const {
    return std::all_of(bytes.begin(), bytes.begin() + size, [](unsigned char byte) { return byte == 0; });
  }
  int AsInt() const {
    int value = 0;
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
  }
  bool SameAs(const TwinDefaults::Value& other) const {
    return size == other.size && std::memcmp(bytes.data(), other.bytes.data(), size) == 0;
  }
  bool SameAs(const ReadValue& other) const {
    return size == other.size && std::memcmp(bytes.data(), other.bytes.data(), size) == 0;
  }
};

// The length to ask for. SO_TIMESTAMPING has grown a second word and others may: asking for the kind's own
// size keeps a value comparable across kernels.
socklen_t SizeToAsk(const SocketOption& option) {
  switch (option.kind) {
    case OptionKind::kInt:
      return 4;
    case OptionKind::kU64:
    case OptionKind::kLinger:
      return 8;
    case OptionKind::kTimeval:
    case OptionKind::kName:
      return 16;
    case OptionKind::kBytes:
    case OptionKind::kNone:
      return 64;
  }
  return 64;
}

bool IsFilter(const SocketOption& option) {
  return option.level == kLevelSocket && option.name == kSoAttachFilter;
}

bool Read(int fd, const SocketOption& option, ReadValue* value) {
  value->size = SizeToAsk(option);
  if (!IsFilter(option))
    return getsockopt(fd, option.level, option.name, value->bytes.data(), &value->size) == 0;
  // With length 0 the kernel writes nothing and gives the number of instructions; with another length it
  // would write eight times as many bytes as it was told.
  value->size = 0;
  if (getsockopt(fd, option.level, option.name, nullptr, &value->size) != 0) return false;
  value->bytes[0] = value->size != 0;
  value->size = 1;
  return true;
}

bool HasNoSuchOption(int error) {
  return error == ENOPROTOOPT || error == EOPNOTSUPP;
}

// Writes and reads back: the kernel clamps, rounds and ignores without an error.
bool Write(int twin_fd, const SocketOption& option, const ReadValue& value) {
  if (setsockopt(twin_fd, option.level, option.name, value.bytes.data(), value.size) != 0) return false;
  ReadValue now;
  return Read(twin_fd, option, &now) && now.SameAs(value);
}

// The kernel doubles what it is given. SO_SNDBUFFORCE is never used, so more than the host's limit does not
// fit.
bool WriteBuffer(int twin_fd, const SocketOption& option, const ReadValue& value) {
  const int half = value.AsInt() / 2;
  if (setsockopt(twin_fd, option.level, option.name, &half, sizeof(half)) != 0) return false;
  ReadValue now;
  return Read(twin_fd, option, &now) && now.SameAs(value);
}

bool WriteCongestionControl(int twin_fd, const SocketOption& option, const TwinDefaults& defaults,
                            const ReadValue& value) {
  const auto* name = reinterpret_cast<const char*>(value.bytes.data());
  if (!defaults.MayChooseCongestionControl(std::string_view(name, strnlen(name, value.size)))) return false;
  return Write(twin_fd, option, value);
}

// The container's value is in `value` and differs from a fresh twin's. False: it cannot be carried over.
bool CarryValue(int twin_fd, const SocketOption& option, const TwinDefaults& defaults,
                const ReadValue& value) {
  switch (option.rule) {
    case OptionRule::kSame:
      if (option.level == kLevelTcp && option.name == kTcpCongestion) {
        return WriteCongestionControl(twin_fd, option, defaults, value);
      }
      return Write(twin_fd, option, value);
    case OptionRule::kNonzeroOnly:
      return value.AllZero() || Write(twin_fd, option, value);
    case OptionRule::kSkipValue:
      return value.AsInt() == option.parameter || Write(twin_fd, option, value);
    case OptionRule::kAtMost:
      if (static_cast<uint32_t>(value.AsInt()) > static_cast<uint32_t>(option.parameter)) return false;
      return Write(twin_fd, option, value);
    case OptionRule::kHalfIfLocked:
      return WriteBuffer(twin_fd, option, value);
    case OptionRule::kZeroOrOrdinaryPath:
    case OptionRule::kOrdinaryPath:
      return false;
  }
  return false;
}

// One row from the container's socket to the twin. False: it cannot be carried over.
bool CarryRow(int socket_fd, int twin_fd, size_t row, const TwinDefaults& defaults, ReadValue& value) {
  const SocketOption& option = kSocketOptions[row];
  if (!Read(socket_fd, option, &value)) return HasNoSuchOption(errno);
  switch (option.rule) {
    case OptionRule::kZeroOrOrdinaryPath:
      return value.AllZero();
    case OptionRule::kAtMost: {
      // SO_PRIORITY: IP_TOS has just changed the twin's, so the fresh value says nothing.
      ReadValue twin;
      if (!Read(twin_fd, option, &twin)) return false;
      if (value.SameAs(twin)) return true;
      break;
    }
    case OptionRule::kHalfIfLocked:  // a locked buffer is written even if it is as large as a fresh one
      break;
    default:
      if (value.SameAs(defaults.value(row))) return true;
  }
  return CarryValue(twin_fd, option, defaults, value);
}

bool InPhase(const SocketOption& option, CarryPhase phase) {
  return phase == CarryPhase::kWhole || option.before_bind == (phase == CarryPhase::kBeforeBind);
}

// F_SETOWN and F_SETSIG are never replayed: the signals would be sent with the engine's right to send them.
const char* SignalObstacle(int socket_fd) {
  f_owner_ex owner{};
  if (fcntl(socket_fd, F_GETOWN_EX, &owner) != 0 || owner.pid != 0) return kSignalOwner;
  if (fcntl(socket_fd, F_GETSIG) != 0) return kSignalNumber;
  return nullptr;
}

}  // namespace

Result<TwinDefaults> TwinDefaults::Learn(int family) {
  const Fd fresh(socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fresh.valid()) return FailErrno();
  int locks = 0;
  socklen_t size = sizeof(locks);
  if (getsockopt(fresh.get(), SOL_SOCKET, kSoBufLock, &locks, &size) != 0) return FailErrno();

  TwinDefaults defaults;
  for (size_t row = 0; row < kSocketOptions.size(); ++row) {
    const SocketOption& option = kSocketOptions[row];
    Value& known = defaults.values_[row];
    if (option.use == OptionUse::kUnreadable || (option.level == kLevelIp6 && family != AF_INET6)) continue;
    ReadValue value;
    if (!Read(fresh.get(), option, &value)) {
      if (HasNoSuchOption(errno)) continue;
      return FailErrno();
    }
    known.known = true;
    known.size = static_cast<uint8_t>(std::min<size_t>(value.size, known.bytes.size()));
    std::memcpy(known.bytes.data(), value.bytes.data(), known.size);
  }

  // Unreadable (no /proc, or a network namespace that hides it) leaves the list empty: then nothing but the
  // host's own default is carried over.
  const Fd list(open("/proc/sys/net/ipv4/tcp_allowed_congestion_control", O_RDONLY | O_CLOEXEC));
  if (list.valid()) {
    const ssize_t length =
        read(list.get(), defaults.congestion_controls_.data(), defaults.congestion_controls_.size() - 1);
    if (length > 0 && defaults.congestion_controls_[static_cast<size_t>(length) - 1] == '\n') {
      defaults.congestion_controls_[static_cast<size_t>(length) - 1] = '\0';
    }
  }
  return defaults;
}

bool TwinDefaults::MayChooseCongestionControl(std::string_view name) const {
  std::string_view rest(congestion_controls_.data());
  while (!name.empty() && !rest.empty()) {
    const size_t blank = rest.find(' ');
    if (rest.substr(0, blank) == name) return true;
    if (blank == std::string_view::npos) return false;
    rest.remove_prefix(blank + 1);
  }
  return false;
}

namespace {

// What a lock of ours leaves behind: SO_BINDTODEVICE, SO_BINDTOIFINDEX, SO_LOCK_FILTER, SO_ATTACH_FILTER.
constexpr bool IsLock(const SocketOption& option) {
  return option.level == kLevelSocket &&
         (option.name == 25 || option.name == 62 || option.name == 44 || option.name == 26);
}

}  // namespace

Carried CarryOptions(int socket_fd, int twin_fd, const TwinDefaults& defaults, OptionSet set,
                     CarryPhase phase) {
  Carried carried;
  int buffer_locks = 0;
  if (phase != CarryPhase::kBeforeBind) {
    socklen_t size = sizeof(buffer_locks);
    if (getsockopt(socket_fd, SOL_SOCKET, kSoBufLock, &buffer_locks, &size) != 0)
      return {.obstacle = kBufferLocks};
    if (const char* obstacle = SignalObstacle(socket_fd)) return {.obstacle = obstacle};
  }
  const size_t rows = set == OptionSet::kHot ? kHotRows : kSocketOptions.size();
  for (size_t row = 0; row < rows; ++row) {
    const SocketOption& option = kSocketOptions[row];
    if (!defaults.value(row).known || !InPhase(option, phase)) continue;
    if (set == OptionSet::kAllOfTwin && IsLock(option)) continue;
    if (option.rule == OptionRule::kHalfIfLocked && (buffer_locks & option.parameter) == 0) continue;
    ReadValue value;
    if (!CarryRow(socket_fd, twin_fd, row, defaults, value)) return {.obstacle = option.label};
    if (row == kSendTimeoutRow) carried.send_timeout = !value.AllZero();
  }
  return carried;
}

}  // namespace shunt::net
