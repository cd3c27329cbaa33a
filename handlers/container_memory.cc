// SPDX-License-Identifier: Apache-2.0
#include "handlers/container_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/result.h"
#include "handlers/policy_json.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Changes with the layout of the file: see Journal.
constexpr uint64_t kMagic = 0x38'65'6d'65'6d'68'73;  // "shmeme8"

std::string ToText(const ContainerSpec& spec) {
  const auto texts = [](const auto& list) {
    Json array = Json::array();
    for (const auto& one : list) array.push_back(one.ToString());
    return array;
  };
  return Json{{"name", spec.name},
              {"owner", spec.owner},
              {"pid", spec.pid},
              {"first_process", spec.first_process},
              {"publish", texts(spec.publish)},
              {"taken", texts(spec.taken)},
              {"ignore", texts(spec.ignore)},
              {"exact_traps", spec.exact_traps},
              {"undecided", spec.undecided},
              {"policy", PolicyToJson(spec.policy)}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status ReadPorts(const Json& list, std::vector<net::Publish>& into) {
  for (const Json& text : list) {
    absl::StatusOr<net::Publish> port = net::ParsePublish(text.get<std::string>());
    if (!port.ok()) return port.status();
    into.push_back(*port);
  }
  return absl::OkStatus();
}

absl::StatusOr<ContainerSpec> FromText(absl::string_view text) try {
  const Json json = Json::parse(text.begin(), text.end());
  ContainerSpec spec;
  spec.name = json.at("name").get<std::string>();
  spec.owner = json.at("owner").get<uid_t>();
  spec.pid = json.at("pid").get<pid_t>();
  spec.first_process = json.at("first_process").get<pid_t>();
  spec.exact_traps = json.at("exact_traps").get<bool>();
  spec.undecided = json.value("undecided", "");
  spec.policy = PolicyFromJson(json.at("policy"));
  if (absl::Status status = ReadPorts(json.at("publish"), spec.publish); !status.ok()) return status;
  if (absl::Status status = ReadPorts(json.at("taken"), spec.taken); !status.ok()) return status;
  for (const Json& one : json.at("ignore")) {
    const absl::StatusOr<net::Subnet> subnet = net::ParseSubnet(one.get<std::string>());
    if (!subnet.ok()) return subnet.status();
    if (!spec.ignore.Add(*subnet)) return absl::InvalidArgumentError("too many ignored networks");
  }
  return spec;
} catch (const Json::exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("a container's description: ", error.what()));
}

}  // namespace

void LostReplies::Note(pid_t tid, uint64_t inode, Reply reply) {
  Lock();
  places_[next_++ % kPlaces] = {.tid = tid, .reply = reply, .inode = inode};
  count_.store(kPlaces, std::memory_order_release);
  Unlock();
}

std::optional<Reply> LostReplies::Take(pid_t tid, uint64_t inode) {
  if (count_.load(std::memory_order_acquire) == 0) return {};
  std::optional<Reply> found;
  Lock();
  uint32_t left = 0;
  for (Place& place : places_) {
    if (place.tid == tid) {
      if (place.inode == inode) found = place.reply;
      place = {};  // its thread has made another call since: nothing is restarted any more
    }
    if (place.tid != 0) ++left;
  }
  count_.store(left, std::memory_order_release);
  Unlock();
  return found;
}

int64_t Deadlines::Begin(const Caller& caller, int64_t then) {
  Lock();
  const auto found = std::find_if(places_.begin(), places_.end(),
                                  [&](const Place& place) { return place.caller == caller; });
  if (found != places_.end()) {
    then = found->deadline;
  } else {
    places_[next_++ % kPlaces] = {.caller = caller, .deadline = then};
  }
  Unlock();
  return then;
}

void Deadlines::End(const Caller& caller) {
  Lock();
  for (Place& place : places_) {
    if (place.caller == caller) place = {};
  }
  Unlock();
}

void PortMemory::Remember(uint64_t cookie, const net::SockAddr& as) {
  cookies[next_cookie.fetch_add(1, std::memory_order_relaxed) % kListeners].store(cookie,
                                                                                  std::memory_order_release);
  const Family family = as.family() == AF_INET ? kV4 : kV6;
  bound[family].store(false, std::memory_order_release);
  bound_as[family] = {as.ip(), as.port(), as.family()};
  bound[family].store(true, std::memory_order_release);
}

namespace {

// As `new (memory) Facts` does where the memory is zero, but for pages that stay zero: those take no memory
// as long as nobody writes to them, and of a container that does nothing rare that is nearly all.
void BeginFacts(std::byte* memory) {
  constexpr size_t kPage = 4096;
  static constexpr std::array<std::byte, kPage> kZero{};
  const auto facts = std::make_unique<ContainerMemory::Facts>();
  const auto* const from = reinterpret_cast<const std::byte*>(facts.get());
  for (size_t at = 0; at < sizeof(*facts); at += kPage) {
    const size_t bytes = std::min(kPage, sizeof(*facts) - at);
    if (std::memcmp(from + at, kZero.data(), bytes) != 0) std::memcpy(memory + at, from + at, bytes);
  }
}

size_t BytesFor(const ContainerSpec& spec, std::string_view text) {
  return sizeof(ContainerMemory::Facts) + spec.publish.size() * sizeof(PortMemory) + text.size();
}

}  // namespace

absl::StatusOr<ContainerMemory> ContainerMemory::Create(const ContainerSpec& spec) {
  const std::string text = ToText(spec);
  const size_t bytes = BytesFor(spec, text);
  Fd file(memfd_create("shunt-container", MFD_CLOEXEC));
  if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
    return ToStatus({errno}, "make a container's memory");
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return ToStatus({errno}, "map a container's memory");
  return Make(std::move(file), memory, bytes, spec, text);
}

ContainerMemory ContainerMemory::CreateAnyhow(const ContainerSpec& spec) {
  if (absl::StatusOr<ContainerMemory> made = Create(spec); made.ok()) return *std::move(made);
  const std::string text = ToText(spec);
  const size_t bytes = BytesFor(spec, text);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SHUNT_CHECK(memory != MAP_FAILED);
  return Make(Fd(), memory, bytes, spec, text);
}

ContainerMemory ContainerMemory::Make(Fd file, void* memory, size_t bytes, const ContainerSpec& spec,
                                      std::string_view text) {
  ContainerMemory made(std::move(file), memory, bytes);
  BeginFacts(static_cast<std::byte*>(memory));
  made.facts().ports = spec.publish.size();
  for (PortMemory& port : made.ports()) new (&port) PortMemory;
  std::memcpy(static_cast<char*>(memory) + made.TextOffset(), text.data(), text.size());
  made.facts().magic = kMagic;
  return made;
}

absl::StatusOr<ContainerMemory> ContainerMemory::Open(Fd file) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return ToStatus({errno}, "look at a container's memory");
  const auto bytes = static_cast<size_t>(status.st_size);
  if (bytes < sizeof(Facts))
    return absl::InvalidArgumentError("a container's memory of another size than ours");
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return ToStatus({errno}, "map a container's memory");
  ContainerMemory opened(std::move(file), memory, bytes);
  const Facts& facts = opened.facts();
  if (facts.magic != kMagic || facts.ports > (bytes - sizeof(Facts)) / sizeof(PortMemory))
    return absl::InvalidArgumentError("a container's memory of another layout than ours");
  return opened;
}

ContainerMemory::ContainerMemory(ContainerMemory&& other) noexcept
    : file_(std::move(other.file_)), memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}

ContainerMemory& ContainerMemory::operator=(ContainerMemory&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ContainerMemory::~ContainerMemory() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

std::span<PortMemory> ContainerMemory::ports() const {
  return {reinterpret_cast<PortMemory*>(static_cast<std::byte*>(memory_) + sizeof(Facts)), facts().ports};
}

size_t ContainerMemory::TextOffset() const {
  return sizeof(Facts) + facts().ports * sizeof(PortMemory);
}

absl::StatusOr<ContainerSpec> ContainerMemory::Spec() const {
  absl::StatusOr<ContainerSpec> spec =
      FromText({static_cast<const char*>(memory_) + TextOffset(), bytes_ - TextOffset()});
  if (spec.ok() && spec->publish.size() != facts().ports)
    return absl::InvalidArgumentError("a container's memory does not fit its ports");
  return spec;
}

void ContainerMemory::SetNetwork(const ContainerNetwork& network) const {
  const uint32_t next = facts().current.load(std::memory_order_relaxed) + 1;
  facts().networks[next % 2] = network;
  facts().current.store(next, std::memory_order_release);
}

void ContainerMemory::BeginAnew() const {
  Facts& now = facts();
  now.lost_replies.Unlock();
  now.deadlines.Unlock();
  // An engine that died in the middle of epoll_create has not counted it.
  now.epolls_coming = 0;
  ++now.epolls_made;
}

absl::StatusOr<ContainerSpec> SpecOfHeld(std::span<const Fd> held) {
  if (held.size() < 2) return absl::InvalidArgumentError("no memory is held of the container");
  const absl::StatusOr<ContainerMemory> memory =
      ContainerMemory::Open(Fd(fcntl(held[1].get(), F_DUPFD_CLOEXEC, 0)));
  if (!memory.ok()) return memory.status();
  return memory->Spec();
}

absl::StatusOr<Fd> MemoryFor(const ContainerSpec& spec) {
  const absl::StatusOr<ContainerMemory> memory = ContainerMemory::Create(spec);
  if (!memory.ok()) return memory.status();
  return Fd(fcntl(memory->fd(), F_DUPFD_CLOEXEC, 0));
}

}  // namespace shunt
