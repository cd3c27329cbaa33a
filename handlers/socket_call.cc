// SPDX-License-Identifier: Apache-2.0
#include "handlers/socket_call.h"

#include <sys/socket.h>

#include <cstring>

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

std::optional<TargetSocket> TakeSocket(const Call& call, int number) {
  Result<Fd> taken = call.target().TakeFd(number);
  if (!taken) {
    if (taken.error() != Errno{EBADF}) call.counters.Add(Counter::unreadable);
    return {};
  }
  const Result<net::SocketFacts> facts = net::ReadFacts(taken->get());
  if (!facts) return {};
  TargetSocket socket{.fd = std::move(*taken), .facts = *facts};
  const uint64_t container_netns = ContainerOf(call).netns;
  if (facts->netns == BenchOf(call).host_netns) {
    socket.home = Home::kHost;
  } else if (facts->netns == container_netns) {
    socket.home = Home::kContainer;
  }
  return socket;
}

}  // namespace shunt
