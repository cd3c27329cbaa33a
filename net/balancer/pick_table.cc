// SPDX-License-Identifier: Apache-2.0
// PickTable: which policy is made.

#include "net/balancer/pick_table.h"

#include <cstdlib>
#include <utility>

#include "net/balancer/policies.h"

namespace shunt::net {

uint64_t BackendIdentity(const SockAddr& address) {
  const IpAddress ip = address.ip();
  uint64_t identity = Mix64(ip.high() + kMixStep);
  identity = Mix64((identity ^ ip.low()) + kMixStep);
  return Mix64((identity ^ (uint64_t{address.scope_id()} << 16 | address.port())) + kMixStep);
}

uint64_t HashOfName(std::string_view name) {
  uint64_t hash = kMixStep;
  for (const char c : name) hash = Mix64((hash ^ static_cast<unsigned char>(c)) + kMixStep);
  return hash;
}

std::unique_ptr<const PickTable> PickTable::Make(PickPolicy policy, bool by_key,
                                                 std::vector<PickGroup> groups, RoundRobinPlaces& places) {
  switch (policy) {
    case PickPolicy::kFirst:
      return MakeFirst(std::move(groups));
    case PickPolicy::kRingHash:
      return MakeRingHash(std::move(groups));
    case PickPolicy::kMaglev:
      return MakeMaglev(std::move(groups));
    case PickPolicy::kRoundRobin:
      return by_key ? MakeMaglev(std::move(groups)) : MakeRoundRobin(std::move(groups), places);
    case PickPolicy::kRandom:
      return by_key ? MakeMaglev(std::move(groups)) : MakeRandom(std::move(groups));
    case PickPolicy::kLeastRequest:
      return by_key ? MakeMaglev(std::move(groups)) : MakeLeastRequest(std::move(groups));
    case PickPolicy::kLeastConnections:
      return by_key ? MakeMaglev(std::move(groups)) : MakeLeastConnections(std::move(groups));
    case PickPolicy::kLeastRtt:
      return by_key ? MakeMaglev(std::move(groups)) : MakeLeastRtt(std::move(groups));
  }
  std::abort();  // there is no other
}

}  // namespace shunt::net
