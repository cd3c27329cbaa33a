// SPDX-License-Identifier: Apache-2.0
// Intake: see intake.h. The order here: the JSON, the descriptors, the connections.

#include "core/intake.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/result.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

constexpr char kListenerName[] = "seccompFd";

// What one HandleEvents() does for one source, so that no peer keeps us from the others. The rest comes next
// time: the polls are level-triggered.
constexpr int kArrivalsPerEvent = 256;
constexpr int kReadsPerEvent = 32;
constexpr size_t kReadBytes = size_t{64} << 10;

// How long we leave connections waiting when descriptors are short.
constexpr milliseconds kShortageWait{100};

// How many may come beside one message, as the kernel has it (SCM_MAX_FD): with room for that many, one that
// is missing found no place in our table.
constexpr size_t kMostDescriptors = 253;

// So many engines may have begun with an object, and died, before it is not looked into any more.
constexpr int kMostBeginnings = 3;
// Strangers and the crowd may come in thousands: one line a second is enough about them.
constexpr milliseconds kMentionInterval{1'000};

// ---- the JSON

// Absent and null are the same to the runtimes, which are written in Go and C.
const Json* Member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Wrong(const char* key, const char* should_be) {
  return absl::InvalidArgumentError(absl::StrCat("container state: \"", key, "\" is not ", should_be));
}

absl::Status ReadText(const Json& object, const char* key, std::string& text) {
  const Json* member = Member(object, key);
  if (member == nullptr) return absl::OkStatus();
  const auto* value = member->get_ptr<const std::string*>();
  if (value == nullptr) return Wrong(key, "a string");
  text = *value;
  return absl::OkStatus();
}

absl::Status ReadPid(const Json& object, const char* key, pid_t& pid) {
  const Json* member = Member(object, key);
  if (member == nullptr) return absl::OkStatus();
  // The parser keeps numbers without a sign and below 2^64 as unsigned, and everything else as something
  // else.
  const auto* value = member->get_ptr<const Json::number_unsigned_t*>();
  if (value == nullptr || *value > uint64_t{std::numeric_limits<pid_t>::max()})
    return Wrong(key, "a process id");
  pid = static_cast<pid_t>(*value);
  return absl::OkStatus();
}

absl::Status ReadListenerIndex(const Json& root, size_t& index) {
  const Json* names = Member(root, "fds");
  if (names == nullptr || !names->is_array()) return Wrong("fds", "an array of names");
  size_t found = 0;
  for (size_t i = 0; i < names->size(); ++i) {
    const auto* name = (*names)[i].get_ptr<const std::string*>();
    if (name == nullptr) return Wrong("fds", "an array of names");
    if (*name != kListenerName) continue;
    index = i;
    ++found;
  }
  if (found == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("container state: \"fds\" names ", found, " times \"", kListenerName, "\", not once"));
}

absl::Status ReadAnnotations(const Json& state, std::map<std::string, std::string>& annotations) {
  const Json* member = Member(state, "annotations");
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_object()) return Wrong("annotations", "an object");
  for (const auto& [key, value] : member->items()) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr) return Wrong("annotations", "an object of strings");
    annotations.emplace(key, *text);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ContainerState> ParseContainerState(std::string_view json) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError("container state: not a JSON object");
  const Json* state = Member(root, "state");
  if (state == nullptr || !state->is_object()) return Wrong("state", "an object");

  ContainerState result;
  for (const absl::Status& status :
       {ReadListenerIndex(root, result.listener_index), ReadPid(root, "pid", result.pid),
        ReadText(root, "metadata", result.metadata), ReadText(*state, "id", result.id),
        ReadText(*state, "status", result.status), ReadPid(*state, "pid", result.state_pid),
        ReadText(*state, "bundle", result.bundle), ReadAnnotations(*state, result.annotations)}) {
    if (!status.ok()) return status;
  }
  if (result.id.empty()) return Wrong("id", "there, or it is empty");
  return result;
}

size_t ObjectScanner::Feed(std::string_view bytes) {
  size_t taken = 0;
  while (taken < bytes.size() && !done() && !failed()) Step(bytes[taken++]);
  return taken;
}

void ObjectScanner::Step(char byte) {
  switch (state_) {
    case State::kBefore:
      if (byte == '{') {
        state_ = State::kInside;
        depth_ = 1;
      } else if (std::strchr(" \t\r\n", byte) ==
                 nullptr) {  // finds NUL too, with which C programs end their texts
        state_ = State::kFailed;
      }
      break;
    case State::kInside:
      if (byte == '"') state_ = State::kString;
      if (byte == '{') ++depth_;
      if (byte == '}' && --depth_ == 0) state_ = State::kDone;
      break;
    case State::kString:
      if (byte == '"') state_ = State::kInside;
      if (byte == '\\') state_ = State::kEscape;
      break;
    case State::kEscape:
      state_ = State::kString;
      break;
    case State::kDone:
    case State::kFailed:
      break;
  }
}

namespace {

absl::Status SystemError(int code, std::string_view what) {
  return ToStatus(Errno{code}, what);
}

// ---- descriptors that came in

bool IsListener(int fd) {
  // By name first: an ioctl on a file of unknown kind could do anything.
  constexpr std::string_view kName = "anon_inode:seccomp notify";
  std::array<char, 64> link{};
  const ssize_t length = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), link.data(), link.size());
  if (length < 0 || std::string_view(link.data(), static_cast<size_t>(length)) != kName) return false;
  // No notification has the id 0, so a listener says ENOENT; other files do not know the request.
  uint64_t id = 0;
  return ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) != 0 && errno == ENOENT;
}

// Takes the true listeners out of `fds` and closes the rest.
std::vector<Fd> KeepListeners(std::vector<Fd> fds) {
  std::erase_if(fds, [](const Fd& fd) { return !IsListener(fd.get()); });
  return fds;
}

void TakeDescriptors(msghdr& message, std::vector<Fd>& fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
}

// How many engines have begun with what is in the socket now. It has to be with the socket itself, and
// unix sockets have no use for their priority.
int Beginnings(int socket) {
  int count = 0;
  socklen_t size = sizeof(count);
  return getsockopt(socket, SOL_SOCKET, SO_PRIORITY, &count, &size) == 0 ? count : 0;
}

void SetBeginnings(int socket, int count) {
  setsockopt(socket, SOL_SOCKET, SO_PRIORITY, &count, sizeof(count));
}

// Where the next MSG_PEEK begins.
void LookFrom(int socket, size_t offset) {
  const int value = static_cast<int>(offset);
  setsockopt(socket, SOL_SOCKET, SO_PEEK_OFF, &value, sizeof(value));
}

absl::Status Watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return SystemError(errno, "watch a descriptor");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Intake>> Intake::Start(IntakeOptions options, Receiver receive) {
  SHUNT_CHECK(options.connections > 0);
  auto intake = std::unique_ptr<Intake>(new Intake(std::move(options), std::move(receive)));
  intake->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  intake->timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!intake->epoll_.valid() || !intake->timer_.valid()) return SystemError(errno, "make the event queue");
  if (absl::Status status = Watch(intake->epoll_.get(), intake->timer_.get()); !status.ok()) return status;
  return intake;
}

Intake::Intake(IntakeOptions options, Receiver receive)
    : options_(std::move(options)), receive_(std::move(receive)), buffer_(kReadBytes) {}

// ---- the connections

void Intake::HandleEvents() {
  std::array<epoll_event, 64> events{};
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    // A number may have been closed and given to another connection since: reading from it once more does no
    // harm.
    if (const auto connection = connections_.find(fd); connection != connections_.end()) Read(connection);
  }
  uint64_t expirations = 0;
  [[maybe_unused]] const ssize_t drained = read(timer_.get(), &expirations, sizeof(expirations));
  CloseOverdue();
  AskForMissing();
  // After the reads: who has spoken is not in danger of having to make room.
  TakeArrivals();
  ArmTimer();
}

void Intake::Adopt(uint64_t name, Fd socket) {
  arrivals_.push_back({.name = name, .socket = std::move(socket)});
  if (arrivals_.size() == 1) ArmTimer();
}

void Intake::TakeArrivals() {
  for (int i = 0; i < kArrivalsPerEvent && !arrivals_.empty(); ++i) {
    Arrival arrival = std::move(arrivals_.front());
    arrivals_.pop_front();
    Take(std::move(arrival));
  }
}

void Intake::Take(Arrival arrival) {
  const int fd = arrival.socket.get();
  if (fd < 0) {
    missing_.push_back(arrival.name);
    ask_again_ = Clock::now() + kShortageWait;
    return Mention(absl::ResourceExhaustedError(
                       "no descriptor is free for a new connection: raise the limit (ulimit -n)"),
                   {});
  }
  ask_again_ = {};  // there is room again
  const Result<Peer> peer = PeerOf(fd);
  if (!peer) return TurnAway(arrival.name, fd);
  if (absl::Status status = options_.peers.Check(*peer); !status.ok()) {
    TurnAway(arrival.name, fd);
    return Mention(std::move(status), *peer);
  }
  if (connections_.size() >= options_.connections) MakeRoom();
  if (!Watch(epoll_.get(), fd).ok()) return TurnAway(arrival.name, fd);
  Connection connection;
  connection.socket = std::move(arrival.socket);
  connection.name = arrival.name;
  connection.peer = *peer;
  connection.deadline = Clock::now() + options_.silence;
  // Runtimes speak at once: most connections are over before the next one is looked at.
  Read(connections_.emplace(fd, std::move(connection)).first);
}

// Explicitly: others may hold it, and the runtime is to see its end.
void Intake::TurnAway(uint64_t name, int socket) const {
  shutdown(socket, SHUT_RDWR);
  if (options_.drop) options_.drop(name);
}

void Intake::Forget(Connections::iterator connection) {
  TurnAway(connection->second.name, connection->first);
  connections_.erase(connection);
}

// Closes the connection that is least likely to bring a container: one that has done so already, then a
// silent one, then one in the middle of an object; among equals the one that has been waiting longest.
void Intake::MakeRoom() {
  const auto rank = [](const Connection& c) {
    return std::tuple(c.scanner.begun() || !c.watched, c.objects == 0, c.deadline);
  };
  const auto least =
      std::min_element(connections_.begin(), connections_.end(),
                       [&](const auto& a, const auto& b) { return rank(a.second) < rank(b.second); });
  Connection& connection = least->second;
  if (connection.scanner.begun()) {
    Refuse(connection, absl::ResourceExhaustedError("incomplete when its connection had to make room"));
  } else if (connection.objects == 0) {
    Mention(absl::ResourceExhaustedError(
                absl::StrCat("silent, and closed because there were ", options_.connections, " connections")),
            connection.peer);
  }
  Forget(least);
}

void Intake::Read(Connections::iterator connection) {
  Connection& reading = connection->second;
  for (int i = 0; i < kReadsPerEvent; ++i) {
    // Looks before it takes, so as not to take beyond the end of the object: the kernel may glue the end of
    // one message to the beginning of the next, and the descriptors beside that would be taken for this
    // object's.
    LookFrom(connection->first, reading.unread);
    const ssize_t seen = recv(connection->first, buffer_.data(), buffer_.size(), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EINTR)) break;
    const Next next = seen > 0 ? ReadSome(reading, static_cast<size_t>(seen)) : Next::kClose;
    if (next == Next::kGoOn) continue;
    if (next == Next::kWait) return;
    if (reading.scanner.begun() || !reading.fds.empty()) {
      Refuse(reading, absl::InvalidArgumentError("container state: ends in the middle"));
    }
    return Forget(connection);
  }
  TakeOut(reading);  // the sender may be waiting for room to write the rest
}

// What was looked at leaves the socket, with the descriptors beside it, of which we have duplicates.
void Intake::TakeOut(Connection& connection) {
  std::array<char, 4096> ignored;
  while (connection.unread > 0) {
    const ssize_t got = recv(connection.socket.get(), ignored.data(),
                             std::min(connection.unread, ignored.size()), MSG_DONTWAIT);
    if (got <= 0) break;
    connection.unread -= static_cast<size_t>(got);
  }
  connection.unread = 0;
}

// No place in our table for what came beside the next piece, which therefore stays where it is.
Intake::Next Intake::AwaitRoom(Connection& connection) {
  TakeOut(connection);
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.socket.get(), nullptr);
  connection.watched = false;
  read_again_ = Clock::now() + kShortageWait;
  Mention(
      absl::ResourceExhaustedError(
          "no descriptor is free for a container's listener, which has to wait: raise the limit (ulimit -n)"),
      connection.peer);
  return Next::kWait;
}

// Whatever it is that makes engines die of an object: this one shall live.
bool Intake::HasKilled(const Connection& connection) {
  const int beginnings = Beginnings(connection.socket.get());
  if (beginnings >= kMostBeginnings) return true;
  SetBeginnings(connection.socket.get(), beginnings + 1);
  return false;
}

Intake::Next Intake::ReadSome(Connection& connection, size_t seen) {
  const bool first = connection.bytes.empty();
  ObjectScanner ahead = connection.scanner;
  const size_t wanted = ahead.Feed({buffer_.data(), seen});

  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int))> control;
  iovec bytes{buffer_.data(), wanted};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  LookFrom(connection.socket.get(), connection.unread);
  const ssize_t got = recvmsg(connection.socket.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got <= 0) return got < 0 && errno == EAGAIN ? Next::kGoOn : Next::kClose;
  std::vector<Fd> fds;
  TakeDescriptors(message, fds);
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    const bool room = Fd(fcntl(connection.socket.get(), F_DUPFD_CLOEXEC, 0)).valid();
    if (!room || !fds.empty()) {
      fds.clear();
      return AwaitRoom(connection);
    }
    connection.lost_fds = true;  // something else than room keeps them from us
  }
  std::move(fds.begin(), fds.end(), std::back_inserter(connection.fds));
  connection.unread += static_cast<size_t>(got);
  if (first && HasKilled(connection)) {
    Refuse(connection,
           absl::InternalError(absl::StrCat("container state: not looked at again, since ", kMostBeginnings,
                                            " engines have ended while they did")));
    return Next::kClose;
  }

  // Less than wanted may have come: the kernel stops behind a message that has descriptors beside it.
  const bool had_begun = connection.scanner.begun();
  connection.scanner.Feed({buffer_.data(), static_cast<size_t>(got)});
  connection.bytes.append(buffer_.data(), static_cast<size_t>(got));
  if (!had_begun && connection.scanner.begun()) connection.deadline = Clock::now() + options_.patience;

  if (connection.scanner.failed()) {
    Refuse(connection, absl::InvalidArgumentError("container state: does not begin with {"));
    return Next::kClose;
  }
  if (connection.bytes.size() > options_.object_bytes) {
    Refuse(connection, absl::InvalidArgumentError(
                           absl::StrCat("container state: longer than ", options_.object_bytes, " bytes")));
    return Next::kClose;
  }
  if (connection.fds.size() > kDescriptors) {
    Refuse(connection, absl::InvalidArgumentError(
                           absl::StrCat("container state: more than ", kDescriptors, " descriptors")));
    return Next::kClose;
  }
  if (connection.scanner.done()) Complete(connection);
  return Next::kGoOn;
}

void Intake::Complete(Connection& connection) {
  ++connection.objects;
  connection.deadline = Clock::now() + options_.silence;
  absl::StatusOr<ContainerState> state = ParseContainerState(connection.bytes);
  if (!state.ok()) return Refuse(connection, state.status());
  if (connection.lost_fds) {
    return Refuse(connection, absl::ResourceExhaustedError(absl::StrCat(
                                  "container state: the system keeps the descriptors beside it from us")));
  }
  if (state->listener_index >= connection.fds.size()) {
    return Refuse(connection, absl::InvalidArgumentError(absl::StrCat(
                                  "container state: descriptor ", state->listener_index,
                                  " is to be the listener, but ", connection.fds.size(), " came")));
  }
  if (!IsListener(connection.fds[state->listener_index].get())) {
    return Refuse(connection,
                  absl::InvalidArgumentError(
                      "container state: the descriptor named \"seccompFd\" is no seccomp listener"));
  }
  Handover handover;
  handover.listeners.push_back(std::move(connection.fds[state->listener_index]));
  handover.state = *std::move(state);
  connection.fds.clear();
  HandOn(connection, std::move(handover));
}

// Hands on what can be saved of an object, and forgets the object.
void Intake::Refuse(Connection& connection, absl::Status why) {
  Handover handover;
  handover.status = std::move(why);
  handover.listeners = KeepListeners(std::exchange(connection.fds, {}));
  HandOn(connection, std::move(handover));
}

// The receiver first: should we die in it, the object is still in the socket.
void Intake::HandOn(Connection& connection, Handover handover) {
  handover.peer = connection.peer;
  handover.again = std::exchange(connection.again, false);
  receive_(std::move(handover));
  TakeOut(connection);
  SetBeginnings(connection.socket.get(), 0);
  connection.lost_fds = false;
  connection.bytes = {};
  connection.scanner = {};
}

// Tells about a connection that brought nothing, unless such a word has just been said.
void Intake::Mention(absl::Status what, Peer peer) {
  const Clock::time_point now = Clock::now();
  if (now - mentioned_ < kMentionInterval) {
    ++unmentioned_;
    return;
  }
  mentioned_ = now;
  if (const size_t more = std::exchange(unmentioned_, 0); more > 0) {
    what = absl::Status(what.code(),
                        absl::StrCat(what.message(), " (", more, " connections more were turned away)"));
  }
  Handover handover;
  handover.status = std::move(what);
  handover.peer = peer;
  receive_(std::move(handover));
}

void Intake::CloseOverdue() {
  const Clock::time_point now = Clock::now();
  for (auto it = connections_.begin(); it != connections_.end();) {
    const auto connection = it++;
    Connection& one = connection->second;
    if (!one.watched) {  // it is not its fault
      if (now < read_again_) continue;
      one.watched = Watch(epoll_.get(), connection->first).ok();
      if (!one.watched) read_again_ = now + kShortageWait;
      one.deadline = std::max(one.deadline, now + options_.patience);
    }
    if (one.deadline > now) continue;
    if (connection->second.scanner.begun() || !connection->second.fds.empty()) {
      Refuse(connection->second, absl::DeadlineExceededError("container state: not complete in time"));
    }
    Forget(connection);
  }
}

// One at a time, until there is room for it.
void Intake::AskForMissing() {
  const Clock::time_point now = Clock::now();
  if (missing_.empty() || now < ask_again_) return;
  const uint64_t name = missing_.front();
  missing_.pop_front();
  ask_again_ = now + kShortageWait;
  if (options_.ask) options_.ask(name);
}

void Intake::ArmTimer() {
  std::optional<Clock::time_point> next;
  if (!missing_.empty()) next = ask_again_;
  if (!arrivals_.empty()) next = Clock::time_point();
  for (const auto& [fd, connection] : connections_) {
    const Clock::time_point then = connection.watched ? connection.deadline : read_again_;
    if (!next || then < *next) next = then;
  }
  itimerspec when{};  // all zero: never
  if (next) {
    // steady_clock is CLOCK_MONOTONIC. One nanosecond past the deadline, because zero would disarm.
    const auto since_boot = std::chrono::ceil<std::chrono::nanoseconds>(next->time_since_epoch()).count() + 1;
    when.it_value.tv_sec = static_cast<time_t>(since_boot / 1'000'000'000);
    when.it_value.tv_nsec = static_cast<long>(since_boot % 1'000'000'000);
  }
  timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

}  // namespace shunt
