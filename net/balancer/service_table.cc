// SPDX-License-Identifier: Apache-2.0
// ServiceIndex: for each prefix length one look into a hash table, the longest first. There are one or two.

#include "net/balancer/service_table.h"

#include <algorithm>
#include <tuple>

#include "core/check.h"
#include "net/balancer/affinity_memory.h"

namespace shunt::net {

void BackendIndex::Add(const Backend& backend) {
  const auto [place, is_new] = by_name_.try_emplace(AffinityMemory::NameOf(backend.identity), backend);
  if (!is_new) place->second.reset();
}

bool ServiceIndex::Add(const ServiceAddress& address, uint32_t service) {
  SHUNT_CHECK(address.first_port <= address.last_port);
  const bool v4 = address.network.IsV4();
  const int prefix_len = address.network.prefix_len();
  // Families apart, since neither ever looks into the other's.
  const auto shape = [](const ByLength& length) { return std::tuple(length.v4, length.prefix_len); };
  auto length = std::find_if(lengths_.begin(), lengths_.end(),
                             [&](const ByLength& it) { return shape(it) <= std::tuple(v4, prefix_len); });
  if (length == lengths_.end() || shape(*length) != std::tuple(v4, prefix_len))
    length = lengths_.insert(length, ByLength{.v4 = v4, .prefix_len = prefix_len, .networks = {}});

  Entries& entries = length->networks[address.network.prefix()];
  const auto order = [](const Entry& entry) {
    return std::tuple(entry.last_port - entry.first_port, entry.first_port, entry.transport);
  };
  const Entry entry{address.first_port, address.last_port, address.transport, service};
  const auto place = std::lower_bound(entries.begin(), entries.end(), entry,
                                      [&](const Entry& a, const Entry& b) { return order(a) < order(b); });
  if (place != entries.end() && order(*place) == order(entry)) return place->service == service;
  entries.insert(place, entry);
  return true;
}

int64_t ServiceIndex::Find(Transport transport, const IpAddress& ip, uint16_t port) const {
  const bool v4 = ip.IsV4();
  for (const ByLength& length : lengths_) {
    if (length.v4 != v4) continue;
    const auto network = length.networks.find(Subnet(ip, length.prefix_len).prefix());
    if (network == length.networks.end()) continue;
    for (const Entry& entry : network->second) {
      if (entry.transport == transport && entry.first_port <= port && port <= entry.last_port)
        return entry.service;
    }
  }
  return -1;
}

}  // namespace shunt::net
