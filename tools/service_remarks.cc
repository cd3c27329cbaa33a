// SPDX-License-Identifier: Apache-2.0
#include "tools/service_remarks.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "net/balancer/service_table.h"
#include "tools/service_config.h"
#include "tools/service_values.h"

namespace shunt {
namespace {

class Remarks {
 public:
  Remarks(const YAML::Node& list, const std::vector<net::ServiceSpec>& services)
      : list_(list), services_(services), remarks_(services.size()) {}

  std::vector<std::vector<ServiceRemark>> Take() {
    FindHostBits();
    FindOverlaps();
    FindCircles();
    FindRacesInside();
    for (std::vector<ServiceRemark>& of_one : remarks_) {
      std::ranges::sort(of_one, {}, [](const ServiceRemark& one) { return std::tie(one.line, one.text); });
    }
    return std::move(remarks_);
  }

 private:
  struct Place {
    size_t service = 0;
    const net::ServiceAddress* address = nullptr;
    int line = 0;
    // Those that come before it: the first one in the file, and how many.
    const Place* winner = nullptr;
    size_t winners = 0;
  };
  // A backend that is an address of another service.
  struct Step {
    size_t backend = 0;
    size_t to = 0;
  };

  YAML::Node AddressNode(size_t service, size_t number) const {
    const YAML::Node node = list_[service]["address"];
    return node.IsSequence() ? node[number] : node;
  }
  void FindHostBits();
  void FindOverlaps();
  void SayOverlap(const Place& loser);
  static bool ComesFirst(const net::ServiceAddress& a, const net::ServiceAddress& b);
  void FindRacesInside();
  void FindCircles();
  std::vector<std::vector<Step>> Steps() const;
  void SayCircle(const std::vector<std::pair<size_t, size_t>>& path, size_t to, size_t backend);

  const YAML::Node& list_;
  const std::vector<net::ServiceSpec>& services_;
  std::vector<std::vector<ServiceRemark>> remarks_;
};

void Remarks::FindHostBits() {
  for (size_t i = 0; i < services_.size(); ++i) {
    for (size_t k = 0; k < services_[i].addresses.size(); ++k) {
      const net::ServiceAddress& address = services_[i].addresses[k];
      const YAML::Node node = AddressNode(i, k);
      absl::string_view host = node.Scalar();
      const size_t slash = host.find('/');
      if (IsOneAddress(address) || slash == absl::string_view::npos) continue;
      host = host.substr(0, slash);
      absl::ConsumePrefix(&host, "[");
      const absl::StatusOr<net::IpAddress> spelled = net::IpAddress::Parse(host);
      if (!spelled.ok() || *spelled == address.network.prefix()) continue;
      net::ServiceAddress one = address;
      one.network = net::Subnet(*spelled, spelled->IsV4() ? 32 : 128);
      remarks_[i].push_back(
          {node.Mark().line + 1,
           absl::StrCat("address ", node.Scalar(), ": THE WHOLE NETWORK: any address of ",
                        address.network.ToString(), "; one alone is ", ServiceAddressText(one))});
    }
  }
}

// As net::ServiceIndex has it, of two that overlap.
bool Remarks::ComesFirst(const net::ServiceAddress& a, const net::ServiceAddress& b) {
  const auto order = [](const net::ServiceAddress& one) {
    return std::tuple(-one.network.prefix_len(), one.last_port - one.first_port, one.first_port);
  };
  return order(a) < order(b);
}

// What overlaps with an address is in its network or in one around it, of which each length has one.
void Remarks::FindOverlaps() {
  std::map<std::pair<bool, int>, absl::flat_hash_map<net::IpAddress, std::vector<Place>>> by_length;
  for (size_t i = 0; i < services_.size(); ++i) {
    for (size_t k = 0; k < services_[i].addresses.size(); ++k) {
      const net::ServiceAddress& address = services_[i].addresses[k];
      const net::Subnet& network = address.network;
      by_length[{network.IsV4(), network.prefix_len()}][network.prefix()].push_back(
          {i, &address, AddressNode(i, k).Mark().line + 1});
    }
  }
  const auto compare = [](const Place& winner, Place& loser) {
    if (winner.service == loser.service || !ComesFirst(*winner.address, *loser.address)) return;
    if (winner.address->transport != loser.address->transport) return;
    if (winner.address->last_port < loser.address->first_port) return;
    if (loser.address->last_port < winner.address->first_port) return;
    if (loser.winners++ == 0 || winner.line < loser.winner->line) loser.winner = &winner;
  };
  for (const auto& [shape, networks] : by_length) {
    for (const auto& [prefix, places] : networks) {
      for (auto& [wider, around] : by_length) {
        if (wider.first != shape.first || wider.second > shape.second) continue;
        const auto found = around.find(net::Subnet(prefix, wider.second).prefix());
        if (found == around.end()) continue;
        for (const Place& winner : places) {
          for (Place& loser : found->second) compare(winner, loser);
        }
      }
    }
  }
  for (const auto& [shape, networks] : by_length) {
    for (const auto& [prefix, places] : networks) {
      for (const Place& place : places) SayOverlap(place);
    }
  }
}

void Remarks::SayOverlap(const Place& loser) {
  if (loser.winner == nullptr) return;
  const Place& winner = *loser.winner;
  remarks_[loser.service].push_back(
      {loser.line,
       absl::StrCat("address ", ServiceAddressText(*loser.address),
                    ": NOT ALL OF IT: ", ServiceAddressText(*winner.address), " of service ",
                    services_[winner.service].name, " (line ", winner.line, ") is narrower and comes first",
                    loser.winners > 1 ? absl::StrCat(", with ", loser.winners - 1, " more") : "")});
}

std::vector<std::vector<Remarks::Step>> Remarks::Steps() const {
  net::ServiceIndex index;
  for (size_t i = 0; i < services_.size(); ++i) {
    for (const net::ServiceAddress& address : services_[i].addresses)
      (void)index.Add(address, static_cast<uint32_t>(i));
  }
  std::vector<std::vector<Step>> steps(services_.size());
  for (size_t i = 0; i < services_.size(); ++i) {
    const net::ServiceSpec& service = services_[i];
    if (service.addresses.empty()) continue;  // it finds services
    const bool udp = service.addresses.front().transport == net::Transport::kUdp;
    for (size_t k = 0; k < service.backends.size(); ++k) {
      const net::SockAddr& backend = service.backends[k].address;
      const int64_t to =
          index.Find(udp ? net::Transport::kUdp : net::Transport::kTcp, backend.ip(), backend.port());
      if (to < 0 || static_cast<size_t>(to) == i) continue;
      // A network may have backends of others inside.
      if (LeadsToItself(services_[static_cast<size_t>(to)], backend))
        steps[i].push_back({k, static_cast<size_t>(to)});
    }
  }
  return steps;
}

// `path`: services from the first one on, each with the step that it is left by.
void Remarks::SayCircle(const std::vector<std::pair<size_t, size_t>>& path, size_t to, size_t backend) {
  constexpr size_t kMostCircleNames = 8;
  const size_t from = path.back().first;
  std::string names = services_[to].name;
  size_t count = 0;
  auto one = std::find_if(path.begin(), path.end(), [to](const auto& entry) { return entry.first == to; });
  for (++one; one != path.end(); ++one) {
    if (++count <= kMostCircleNames) absl::StrAppend(&names, ", ", services_[one->first].name);
  }
  if (count > kMostCircleNames) absl::StrAppend(&names, " and ", count - kMostCircleNames, " more");
  remarks_[from].push_back({list_[from]["backends"][backend].Mark().line + 1,
                            absl::StrCat("backend ", services_[from].backends[backend].address.ToString(),
                                         ": IN A CIRCLE: services ", names,
                                         " lead to one another, and nothing is balanced twice")});
}

// One for each backend that closes a circle: a search in depth that comes upon who is still on its path.
void Remarks::FindCircles() {
  enum class Seen : uint8_t { kNot, kOnPath, kDone };
  const std::vector<std::vector<Step>> steps = Steps();
  std::vector<Seen> seen(services_.size(), Seen::kNot);
  for (size_t root = 0; root < services_.size(); ++root) {
    if (seen[root] != Seen::kNot) continue;
    std::vector<std::pair<size_t, size_t>> path = {{root, 0}};  // a service, and its next step
    seen[root] = Seen::kOnPath;
    while (!path.empty()) {
      const size_t at = path.back().first;
      if (path.back().second == steps[at].size()) {
        seen[at] = Seen::kDone;
        path.pop_back();
        continue;
      }
      const Step& step = steps[at][path.back().second++];
      if (seen[step.to] == Seen::kOnPath) {
        SayCircle(path, step.to, step.backend);
      } else if (seen[step.to] == Seen::kNot) {
        seen[step.to] = Seen::kOnPath;
        path.emplace_back(step.to, 0);
      }
    }
  }
}

// A race takes sockets that may be replaced: those of the host's network.
void Remarks::FindRacesInside() {
  for (size_t i = 0; i < services_.size(); ++i) {
    const net::ServiceSpec& service = services_[i];
    if (service.connect.race_after.count() == 0 || service.network == net::ServiceNetwork::kHost) continue;
    remarks_[i].push_back({list_[i]["connect"]["race-after"].Mark().line + 1,
                           "race-after: NOBODY RACES with network: container: one backend is tried after the "
                           "other, each for attempt-timeout"});
  }
}

}  // namespace

std::vector<std::vector<ServiceRemark>> RemarksOn(const YAML::Node& list,
                                                  const std::vector<net::ServiceSpec>& services) {
  return Remarks(list, services).Take();
}

}  // namespace shunt
