// SPDX-License-Identifier: Apache-2.0
// PortRegistry: see port_registry.h.

#include "tools/port_registry.h"

#include <algorithm>

#include "core/check.h"

namespace shunt {

std::vector<PortRegistry::Conflict> PortRegistry::Claim(const ContainerKey& container,
                                                        std::vector<net::Publish>& ports,
                                                        const std::string& pod) {
  std::vector<Conflict> conflicts;
  for (const net::Publish& wanted : ports) {
    if (const ContainerKey* other = HolderOf(wanted, container, pod)) conflicts.push_back({wanted, *other});
  }
  for (const Conflict& conflict : conflicts) std::erase(ports, conflict.wanted);

  Holder& holder = holders_[container];
  ++holder.claims;
  holder.pod = pod;
  for (const net::Publish& port : ports) {
    if (std::find(holder.ports.begin(), holder.ports.end(), port) == holder.ports.end())
      holder.ports.push_back(port);
  }
  return conflicts;
}

void PortRegistry::Release(const ContainerKey& container) {
  const auto found = holders_.find(container);
  SHUNT_CHECK(found != holders_.end());
  if (--found->second.claims == 0) holders_.erase(found);
}

const ContainerKey* PortRegistry::HolderOf(const net::Publish& wanted, const ContainerKey& except,
                                           const std::string& pod) const {
  for (const auto& [key, holder] : holders_) {
    if (key == except) continue;
    const bool same_pod = !pod.empty() && holder.pod == pod && key.uid == except.uid;
    for (const net::Publish& held : holder.ports) {
      if (same_pod && held == wanted) continue;
      if (held.host_port == wanted.host_port && net::HostIpsOverlap(held.host_ip, wanted.host_ip))
        return &key;
    }
  }
  return nullptr;
}

}  // namespace shunt
