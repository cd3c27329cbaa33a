// SPDX-License-Identifier: Apache-2.0
// BalancerWorld: a Balancer with a clock of its own, and who looks at what it says as a reactor would.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "net/balancer/balancer.h"

namespace shunt::net {

inline constexpr int64_t kMillisecond = 1'000'000;
inline constexpr int64_t kSecond = 1'000 * kMillisecond;

inline SockAddr SockAddrOf(const std::string& text) {
  return SockAddr::FromText(text).value();
}

inline BackendSpec BackendAt(const std::string& text, uint32_t weight = 1) {
  BackendSpec spec;
  spec.address = SockAddrOf(text);
  spec.weight = weight;
  return spec;
}

inline std::vector<BackendSpec> BackendsAt(std::initializer_list<const char*> texts) {
  std::vector<BackendSpec> specs;
  for (const char* text : texts) specs.push_back(BackendAt(text));
  return specs;
}

// "10.0.0.1:80", "10.0.0.2:80"...
inline std::vector<BackendSpec> ManyBackends(int count) {
  std::vector<BackendSpec> specs;
  for (int i = 1; i <= count; ++i)
    specs.push_back(BackendAt("10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256) + ":80"));
  return specs;
}

// A service at 10.96.0.`number`:80, round-robin, without anything that it need not have.
inline ServiceSpec ServiceOf(const std::string& name, std::vector<BackendSpec> backends, int number = 1) {
  ServiceSpec spec;
  spec.name = name;
  const IpAddress ip = IpAddress::Parse("10.96.0." + std::to_string(number)).value();
  spec.addresses.push_back({Subnet(ip, 32), 80, 80, Transport::kTcp});
  spec.policy = PickPolicy::kRoundRobin;
  spec.backends = std::move(backends);
  return spec;
}

inline const Service* ServiceIn(const ServiceTable& table, const std::string& name) {
  constexpr uint32_t kMostIds = 20'000;  // ServiceTable does not say how many it has
  for (uint32_t id = 0; id < kMostIds; ++id) {
    const Service* service = table.At(id);
    if (service != nullptr && service->name == name) return service;
  }
  return nullptr;
}

// All that picks can get, in the order in which they get them if each one fails.
inline std::vector<Backend> AllPicks(const PickTable* table, const BackendCountBook& counts) {
  std::vector<Backend> backends;
  std::vector<uint32_t> tried;
  PickSeat seat(0, counts, 1);
  for (size_t i = 0; table != nullptr && i <= table->size(); ++i) {
    const Backend* backend = table->Pick({false, 0, tried}, seat);
    if (backend == nullptr) break;
    backends.push_back(*backend);
    tried.push_back(backend->slot);
  }
  return backends;
}

class BalancerWorld : public testing::Test {
 protected:
  using Kind = BackendCommand::Kind;
  static constexpr int64_t kNever = Balancer::kNever;

  void Configure(std::vector<ServiceSpec> specs) { balancer.Configure(std::move(specs), zone, now); }

  // Lets time pass until `time`, doing what is due when it is: tables are taken, and checks if they are
  // answered by `up` (address -> how they go; others are well).
  void RunUntil(int64_t time) {
    for (int i = 0; i < 1'000'000; ++i) {
      const int64_t due = balancer.NextDue();
      ASSERT_GE(due, now);
      if (due > time) break;
      now = due;
      balancer.Advance(now);
      TakeAll();
      ASSERT_GT(balancer.NextDue(), now) << "something due was not done";
    }
    now = time;
    balancer.Advance(now);
  }
  void RunFor(int64_t ns) { RunUntil(now + ns); }

  void TakeAll() {
    TakeTable();
    for (const DueCheck& check : balancer.TakeChecks(now)) {
      checks.push_back({now, check.address.ToString()});
      const bool well = !bad.contains(check.address.ToString());
      balancer.Checked(check.slot, check.check, well, well ? "" : "Connection refused", now);
    }
    for (const DueClosing& closing : balancer.TakeClosings(now))
      closings.push_back({now, closing.service + " " + closing.address.ToString()});
    TakeTable();
    for (DueAiming& aiming : balancer.TakeAimings(now)) aimings.push_back({now, std::move(aiming)});
  }
  // True: there was one. The former one is retired.
  bool TakeTable() {
    std::shared_ptr<const ServiceTable> fresh = balancer.TakeTable(now);
    if (fresh == nullptr) return false;
    if (table != nullptr && retire) balancer.TableRetired(*table);
    table = std::move(fresh);
    tables_at.push_back(now);
    return true;
  }
  // The table that is in force as soon as there may be one.
  void Settle() { RunUntil(now + Balancer::kTableInterval); }

  // Addresses in the table of a service, for sockets of IPv4, sorted.
  std::vector<std::string> In(const std::string& service, bool v4 = true) {
    const Service* found = ServiceIn(*table, service);
    std::vector<std::string> texts;
    if (found == nullptr) return {"no such service"};
    for (const Backend& backend : AllPicks(found->TableFor(v4), counts))
      texts.push_back(backend.address.ToString());
    std::sort(texts.begin(), texts.end());
    return texts;
  }
  // How often each backend is picked, of so many.
  std::map<std::string, int> Picks(const std::string& service, int count) {
    std::map<std::string, int> picks;
    PickSeat seat(0, counts, 1);
    for (int i = 0; i < count; ++i)
      ++picks[ServiceIn(*table, service)->TableFor(true)->Pick({}, seat)->address.ToString()];
    return picks;
  }
  uint32_t SlotOf(const std::string& service, const std::string& address) {
    for (const bool v4 : {true, false}) {
      for (const Backend& backend : AllPicks(ServiceIn(*table, service)->TableFor(v4), counts)) {
        if (backend.address == SockAddrOf(address)) return backend.slot;
      }
    }
    ADD_FAILURE() << address << " is not in the table of " << service;
    return 0;
  }
  ServiceReport ReportOf(const std::string& service) {
    for (ServiceReport& report : balancer.Describe(now)) {
      if (report.name == service) return report;
    }
    ADD_FAILURE() << "there is no service " << service;
    return {};
  }
  BackendReport ReportOf(const std::string& service, const std::string& address) {
    for (const BackendReport& report : ReportOf(service).backends) {
      if (report.address == address) return report;
    }
    ADD_FAILURE() << service << " has no backend " << address;
    return {};
  }
  std::string StateOf(const std::string& service, const std::string& address) {
    return ReportOf(service, address).state;
  }
  void Fail(uint32_t slot, int times) {
    for (int i = 0; i < times; ++i) balancer.Connected(slot, false, now);
  }
  absl::Status Say(const std::string& service, const std::string& backend, Kind kind, uint32_t weight = 1) {
    return balancer.Command(service, backend, {kind, weight}, now);
  }

  BackendCountBook counts{2};
  std::string zone;
  Balancer balancer{counts, ""};
  int64_t now = 1'000 * kSecond;
  std::shared_ptr<const ServiceTable> table;
  bool retire = true;         // tables that are replaced
  std::set<std::string> bad;  // whose checks fail
  std::vector<int64_t> tables_at;
  std::vector<std::pair<int64_t, std::string>> checks, closings;
  std::vector<std::pair<int64_t, DueAiming>> aimings;
};

}  // namespace shunt::net
