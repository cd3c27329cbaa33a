// SPDX-License-Identifier: Apache-2.0
// Services that a source finds (DiscoverSpec::finds_services()), beside those that are configured.
//
// They are records like all others, so picks, counts, reports and commands are theirs as well.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/balancer/balancer_state.h"

namespace shunt::net {
namespace {

ServiceSpec SpecOf(const ServiceSpec& finder, const FoundService& found,
                   std::vector<ServiceAddress> addresses) {
  ServiceSpec spec = finder;
  spec.name = found.name;
  spec.addresses = std::move(addresses);
  spec.discover = {};
  spec.backends = {};
  if (found.sticky) {
    spec.affinity = AffinityKey::kContainer;
    // Those go by hash for as long as a backend is there, which is longer.
    const bool by_hash = spec.policy == PickPolicy::kMaglev || spec.policy == PickPolicy::kRingHash;
    spec.affinity_timeout = by_hash ? std::chrono::nanoseconds(0) : found.sticky_for;
  }
  if (spec.addresses[0].transport == Transport::kUdp) {
    // As a service of UDP alone is configured: connecting tells nothing about the backend, and such sockets
    // stay where they are.
    spec.network = ServiceNetwork::kContainer;
    spec.health = {};
    spec.connect = {};
    spec.limits = {};
    if (PicksByLiveCounts(spec.policy)) spec.policy = PickPolicy::kLeastRequest;
  }
  return spec;
}

bool LiesIn(const std::vector<Subnet>& networks, const IpAddress& ip) {
  return networks.empty() ||
         std::any_of(networks.begin(), networks.end(), [&](const Subnet& one) { return one.Contains(ip); });
}

// For the operator. Those that are found by their addresses are named so as well.
std::string Mention(const FoundService& found, const ServiceAddress& address) {
  std::string at = SockAddr(address.network.prefix(), address.first_port).ToString();
  return at == found.name ? at : absl::StrCat(found.name, " at ", at);
}

std::string KeyOf(const ServiceRecord& finder, const std::string& name) {
  return absl::StrCat(finder.spec.name, "\n", name);
}

}  // namespace

FoundChanges ServicesIn(const std::vector<BackendSpec>& backends) {
  FoundChanges changes;
  changes.whole = true;
  for (const BackendSpec& backend : backends) {
    if (!backend.service.valid()) continue;
    const IpAddress ip = backend.service.ip();
    const uint16_t port = backend.service.port();
    FoundService found;
    found.name = backend.service.ToString();
    found.addresses = {{Subnet(ip, ip.IsV4() ? 32 : 128), port, port, Transport::kTcp}};
    found.backends = {backend};
    found.backends[0].service = {};
    std::string name = found.name;
    changes.services.try_emplace(std::move(name), std::make_shared<const FoundService>(std::move(found)));
  }
  return changes;
}

void Balancer::State::PlaceAll(absl::flat_hash_map<std::string, Record>& before) {
  TurnedDown told = std::exchange(turned_down, {});
  for (const ServiceRecord* finder : finders) {
    for (const auto& [name, found] : finder->finds) {
      const auto known = before.find(name);
      const bool is_its =
          known != before.end() && known->second != nullptr && known->second->finder == finder->spec.name;
      Place(*finder, found, is_its ? std::move(known->second) : nullptr, TakeTold(told, *finder, name));
    }
  }
  TellTurnedDown();
}

void Balancer::State::Place(const ServiceRecord& finder, const FoundServicePtr& found, Record record,
                            const std::vector<std::string>& told) {
  std::vector<ServiceAddress> addresses;
  std::vector<std::string> down;
  const auto turn_down = [&](std::string what, std::vector<std::string>& now_told) {
    if (std::ranges::find(told, what) == told.end()) now_told.push_back(what);
    down.push_back(std::move(what));
  };
  for (const ServiceAddress& address : found->addresses) {
    const IpAddress& ip = address.network.prefix();
    if (owned.Find(address.transport, ip, address.first_port) >= 0) {
      turn_down(Mention(*found, address), owned_now);
    } else if (!LiesIn(finder.spec.discover.services_in, ip)) {
      turn_down(Mention(*found, address), elsewhere_now);
    } else {
      addresses.push_back(address);
    }
  }
  const bool taken = by_name.contains(found->name);  // the record of it that there was is not there now
  if (taken) turn_down(found->name, twice_now);
  if (!addresses.empty() && !taken) {
    const bool is_same = record != nullptr && record->found == found;
    const std::optional<int64_t> since = is_same ? record->discovered_at : finder.discovered_at;
    Record placed =
        Admit(std::move(record), SpecOf(finder.spec, *found, std::move(addresses)), found, finder.spec.name);
    placed->discovered_at = since;
    found_services.insert_or_assign(found->name, std::move(placed));
  } else if (record != nullptr) {
    Remove(*record);
  }
  if (!down.empty()) turned_down.insert_or_assign(KeyOf(finder, found->name), std::move(down));
}

std::vector<std::string> Balancer::State::TakeTold(TurnedDown& of_all, const ServiceRecord& finder,
                                                   const std::string& name) {
  if (of_all.empty()) return {};
  auto told = of_all.extract(KeyOf(finder, name));
  return told.empty() ? std::vector<std::string>() : std::move(told.mapped());
}

Balancer::State::Record Balancer::State::TakeFound(const ServiceRecord& finder, const std::string& name) {
  const auto known = found_services.find(name);
  if (known == found_services.end() || known->second->finder != finder.spec.name) return nullptr;
  Record record = std::move(known->second);
  found_services.erase(known);
  by_name.erase(name);
  return record;
}

void Balancer::State::Follow(ServiceRecord& finder, FoundChanges changes) {
  Reclaim();
  for (std::string& remark : changes.remarks) remarks.push_back(std::move(remark));
  std::vector<std::string> gone;
  if (changes.whole) {
    for (const auto& [name, found] : finder.finds) {
      if (!changes.services.contains(name)) gone.push_back(name);
    }
  }
  for (const auto& [name, found] : changes.services) {
    if (found == nullptr) gone.push_back(name);
  }
  for (const std::string& name : gone) Lose(finder, name);
  for (auto& [name, found] : changes.services) {
    if (found == nullptr) continue;
    FoundServicePtr& known = finder.finds[name];
    if (known != nullptr && *known == *found) continue;
    known = std::move(found);
    Place(finder, known, TakeFound(finder, name), TakeTold(turned_down, finder, name));
  }
  TellTurnedDown();
}

void Balancer::State::Lose(ServiceRecord& finder, const std::string& name) {
  finder.finds.erase(name);
  TakeTold(turned_down, finder, name);
  const Record record = TakeFound(finder, name);
  if (record == nullptr) return;
  Remove(*record);
  for (const ServiceRecord* other : finders) {
    const auto found = other->finds.find(name);
    if (found == other->finds.end()) continue;
    Place(*other, found->second, nullptr, TakeTold(turned_down, *other, name));
    break;
  }
}

void Balancer::State::TellTurnedDown() {
  const auto tell = [this](std::vector<std::string>& which, const char* why) {
    if (which.empty()) return;
    std::ranges::sort(which);
    remarks.push_back(absl::StrCat("what was found for ", SomeOf(which), " is left out: ", why));
    which.clear();
  };
  tell(owned_now, "a service that is configured has the address");
  tell(elsewhere_now, "it is in none of the networks for that");
  tell(twice_now, "another source has found one of that name");
}

}  // namespace shunt::net
