// SPDX-License-Identifier: Apache-2.0
// Services that a source finds (DiscoverSpec::finds_services()), behind those that are configured.
//
// They are records like all others, so picks, counts, reports and commands are theirs as well. What may be
// there follows from what was found and what is configured, each time anew: a service that is configured
// later takes its address back.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/balancer/balancer_state.h"

namespace shunt::net {
namespace {

ServiceSpec FoundService(const BackendSpec& found) {
  const IpAddress ip = found.service.ip();
  const uint16_t port = found.service.port();
  ServiceSpec spec;
  spec.name = found.service.ToString();
  spec.addresses = {{Subnet(ip, ip.IsV4() ? 32 : 128), port, port, Transport::kTcp}};
  spec.policy = PickPolicy::kFirst;
  spec.backends = {found};
  spec.backends[0].service = {};
  spec.connect.attempts = 1;
  spec.peer_name = PeerName::kService;  // the program talks to a container, wherever that is
  return spec;
}

bool LiesIn(const std::vector<Subnet>& networks, const IpAddress& ip) {
  return std::any_of(networks.begin(), networks.end(), [&](const Subnet& one) { return one.Contains(ip); });
}

}  // namespace

void Balancer::State::AdmitFound(Former& former) {
  const size_t configured = services.size();
  ServiceIndex theirs;
  for (const std::unique_ptr<ServiceRecord>& record : services) {
    for (const ServiceAddress& address : record->spec.addresses) (void)theirs.Add(address, record->id);
  }
  std::vector<std::string> owned, elsewhere;  // that are told of for the first time
  const absl::flat_hash_set<std::string> told = std::exchange(turned_down, {});
  const auto turn_down = [&](std::string name, std::vector<std::string>& which) {
    if (!told.contains(name)) which.push_back(name);
    turned_down.insert(std::move(name));
  };
  for (size_t i = 0; i < configured; ++i) {
    if (!services[i]->spec.discover.finds_services()) continue;
    for (const BackendSpec& found : services[i]->discovered) {
      if (!found.service.valid()) continue;
      const SockAddr& at = found.service;
      if (theirs.Find(Transport::kTcp, at.ip(), at.port()) >= 0) {
        turn_down(at.ToString(), owned);
      } else if (!LiesIn(services[i]->spec.discover.services_in, at.ip())) {
        turn_down(at.ToString(), elsewhere);
      } else if (ServiceSpec spec = FoundService(found); !by_name.contains(spec.name)) {
        Admit(std::move(spec), former).is_found = true;
      }
    }
  }
  if (!owned.empty()) {
    remarks.push_back(absl::StrCat("what was found for ", SomeOf(owned),
                                   " is left out: a service that is configured has the address"));
  }
  if (!elsewhere.empty()) {
    remarks.push_back(absl::StrCat("what was found for ", SomeOf(elsewhere),
                                   " is left out: it is in none of the networks for that"));
  }
}

void Balancer::State::FollowFound() {
  std::vector<std::unique_ptr<ServiceRecord>> before;
  for (std::unique_ptr<ServiceRecord>& record : services) {
    if (!record->is_found) continue;
    by_name.erase(record->spec.name);
    before.push_back(std::move(record));
  }
  std::erase(services, nullptr);
  Former former(std::move(before));
  AdmitFound(former);
  RemoveRest(former);
  if (index_stale) RebuildIndex();
}

}  // namespace shunt::net
