// SPDX-License-Identifier: Apache-2.0
#include "handlers/socket_call.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "core/reactor.h"
#include "handlers/container.h"

namespace shunt {

int RawAddress::family() const {
  sa_family_t family;
  memcpy(&family, bytes.data(), sizeof(family));
  return family;
}

std::optional<RawAddress> ReadAddress(const Call& call, uint64_t address, int length) {
  RawAddress raw;
  if (length < static_cast<int>(sizeof(sa_family_t)) || length > static_cast<int>(raw.bytes.size()))
    return {};
  raw.size = static_cast<size_t>(length);
  const Result<size_t> got = call.target().ReadMemory(address, std::span(raw.bytes).first(raw.size));
  if (!got && got.error() != Errno{EFAULT}) call.counters.Add(Counter::unreadable);
  if (!got || *got != raw.size) return {};
  return raw;
}

bool TargetSocket::BoundToPort(const SocketBench& bench) {
  if (!bound_) {
    // bind(2) to a port that is taken says EINVAL to a socket that has a port and EADDRINUSE to one that has
    // none. In a container's network we have no port that is taken; port 0 does as well, but leaves the
    // socket bound, which matters to nobody: it is about to be replaced.
    const net::IpAddress any = facts.family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress();
    const net::SockAddr address(any, home == Home::kHost ? bench.taken_port() : uint16_t{0});
    bound_ =
        facts.local.port() != 0 && bind(fd.get(), address.data(), address.size()) != 0 && errno == EINVAL;
  }
  return *bound_;
}

namespace {

// A program that closes one descriptor while it connects another may be caught exchanging them by accident.
// One that is caught more often than this does it on purpose.
constexpr uint32_t kForgivenExchanges = 16;

// What is no socket must not be duplicated at all: see Target::TakeFd.
std::optional<Fd> TakeIfSocket(const Call& call, int number, DescriptorInfo& info_out) {
  const Result<DescriptorInfo> info = call.target().Describe(number);
  if (!info) {
    if (info.error() != Errno{ENOENT}) call.counters.Add(Counter::unreadable);
    return {};
  }
  if (info->mount != BenchOf(call).socket_mount || ContainerOf(call).facts.exchanged_descriptors != 0)
    return {};
  Result<Fd> taken = call.target().TakeFd(number);
  if (!taken) {
    if (taken.error() != Errno{EBADF}) call.counters.Add(Counter::unreadable);
    return {};
  }
  info_out = *info;
  return std::move(*taken);
}

}  // namespace

void NoteExchange(const Call& call) {
  ++ContainerOf(call).facts.exchanged_descriptors;
  call.counters.Add(Counter::exchanged);
}

void LeaveAlone(const Call& call, Fd taken) {
  NoteExchange(call);
  call.reactor.CloseInBackground(std::move(taken));
}

std::optional<Fd> TakeAnySocket(const Call& call, int number) {
  DescriptorInfo info;
  std::optional<Fd> taken = TakeIfSocket(call, number, info);
  int type = 0;
  socklen_t size = sizeof(type);
  if (taken && getsockopt(taken->get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
    LeaveAlone(call, *std::move(taken));
    return {};
  }
  return taken;
}

Reply LeaveToKernel(const Call& call, int number, int error) {
  const Container& container = ContainerOf(call);
  // For what we may not look at, or not look at again: a container without twins can only have one that a
  // stranger has passed to it.
  const Reply blind = container.facts.has_twins ? Reply::Fail(error) : Reply::Continue();
  const Result<DescriptorInfo> info = call.target().Describe(number);
  if (!info) return info.error() == Errno{ENOENT} ? Reply::Continue() : blind;
  if (info->mount != BenchOf(call).socket_mount) return Reply::Continue();
  if (container.facts.exchanged_descriptors > kForgivenExchanges) return blind;
  Result<Fd> taken = call.target().TakeFd(number);
  if (!taken) return taken.error() == Errno{EBADF} ? Reply::Continue() : blind;
  const Result<net::SocketFacts> facts = net::ReadFacts(taken->get());
  if (facts) return facts->netns == BenchOf(call).host_netns ? Reply::Fail(error) : Reply::Continue();
  if (facts.error() != Errno{ENOTSOCK}) return Reply::Continue();
  LeaveAlone(call, *std::move(taken));
  return blind;
}

std::optional<TargetSocket> TakeSocket(const Call& call, int number) {
  DescriptorInfo info;
  std::optional<Fd> taken = TakeIfSocket(call, number, info);
  if (!taken) return {};
  const Result<net::SocketFacts> facts = net::ReadFacts(taken->get());
  if (!facts) {
    if (facts.error() == Errno{ENOTSOCK}) LeaveAlone(call, *std::move(taken));
    return {};
  }
  TargetSocket socket(std::move(*taken), info, *facts);
  if (facts->netns == BenchOf(call).host_netns) {
    socket.home = Home::kHost;
  } else if (facts->netns == ContainerOf(call).netns) {
    socket.home = Home::kContainer;
  }
  return socket;
}

uint64_t CookieOf(int socket_fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  return getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

Reply StoreName(const Call& call, const net::SockAddr& name, uint64_t address, uint64_t length_address) {
  int length = 0;
  const Target& target = call.target();
  const Result<size_t> got = target.ReadMemory(length_address, std::as_writable_bytes(std::span(&length, 1)));
  if (!got || *got != sizeof(length)) return Reply::Fail(EFAULT);
  if (length < 0) return Reply::Fail(EINVAL);
  if (!call.StillValid()) return Reply::Continue();
  const size_t copied = std::min(static_cast<size_t>(length), static_cast<size_t>(name.size()));
  const std::span bytes(reinterpret_cast<const std::byte*>(name.data()), copied);
  const int full = static_cast<int>(name.size());
  const Result<size_t> put_name = target.WriteMemory(address, bytes);
  const Result<size_t> put_length = target.WriteMemory(length_address, std::as_bytes(std::span(&full, 1)));
  const bool all = put_name && *put_name == copied && put_length && *put_length == sizeof(full);
  return all ? Reply::Return(0) : Reply::Fail(EFAULT);
}

}  // namespace shunt
