// SPDX-License-Identifier: Apache-2.0
// Balancer under seeded random schedules: operators, sources, checks, reactors with tables of their own that
// connect, and time. After each step it has to say what the model says, and what must never be is looked for:
// who may not be in a table, tables too early, a slot that means two backends, things due in the past.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/net/balancer/balancer_model.h"
#include "tests/net/balancer/balancer_world.h"
#include "tests/sim/chance.h"

namespace shunt::net {
namespace {

using sim::Chance;
using Kind = BackendCommand::Kind;

constexpr size_t kReactors = 2;
constexpr size_t kServices = 4;

std::string SimServiceName(size_t service) {
  return "s" + std::to_string(service);
}

// The backends that a service may have: addresses of its own, so that a check says whose it is.
std::vector<std::string> SimAddresses(size_t service) {
  const std::string number = std::to_string(service);
  std::vector<std::string> texts = {"10.96.0." + number + ":80"};  // the service itself
  for (int i = 1; i <= 4; ++i) texts.push_back("10.0." + number + "." + std::to_string(i) + ":80");
  for (int i = 1; i <= 3; ++i) texts.push_back("[fd00::" + number + ":" + std::to_string(i) + "]:80");
  // As they are written.
  for (std::string& text : texts) text = SockAddrOf(text).ToString();
  return texts;
}

std::chrono::nanoseconds Seconds(int64_t count) {
  return std::chrono::seconds(count);
}

class BalancerSim {
 public:
  explicit BalancerSim(uint64_t seed) : chance_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) Step();
  }
  // How often what was meant to happen did.
  std::map<std::string, int> seen;

 private:
  using Tenure = int;
  struct Attempt {
    size_t reactor;
    uint32_t slot;
    Tenure tenure;
  };
  struct Check {
    DueCheck due;
    Tenure tenure;
  };
  // A table that is not retired, and what it says.
  struct Table {
    std::shared_ptr<const ServiceTable> table;
    std::map<uint32_t, Tenure> slots;
  };

  // --- What may be configured.

  std::string RandomAddress(size_t service) {
    const std::vector<std::string> texts = SimAddresses(service);
    return texts[chance_.Below(texts.size())];
  }
  BackendSpec RandomBackend(size_t service) {
    BackendSpec spec = BackendAt(RandomAddress(service));
    spec.weight = chance_.OneOf<uint32_t>({0, 1, 1, 1, 2, 5});
    spec.backup = chance_.OneIn(4);
    spec.zone = chance_.OneOf<const char*>({"", "here", "there"});
    if (!chance_.OneIn(4)) spec.labels["ready"] = "yes";
    return spec;
  }
  std::vector<BackendSpec> RandomBackends(size_t service) {
    std::vector<BackendSpec> specs(chance_.Below(9));
    for (BackendSpec& spec : specs) spec = RandomBackend(service);
    return specs;
  }
  ServiceSpec RandomService(size_t number) {
    ServiceSpec spec = ServiceOf(SimServiceName(number), RandomBackends(number), static_cast<int>(number));
    spec.policy = chance_.OneOf({PickPolicy::kRoundRobin, PickPolicy::kRandom, PickPolicy::kLeastRequest,
                                 PickPolicy::kLeastConnections, PickPolicy::kLeastRtt, PickPolicy::kFirst,
                                 PickPolicy::kRoundRobin});
    if (chance_.OneIn(3)) spec.subset["ready"] = "yes";
    if (!chance_.OneIn(3)) spec.discover.file = chance_.OneOf<const char*>({"/a", "/b"});
    spec.health.enabled = !chance_.OneIn(3);
    spec.health.interval = Seconds(chance_.OneOf<int64_t>({1, 2, 5}));
    spec.health.fall = 1 + static_cast<uint32_t>(number % 3);
    spec.health.rise = 1 + static_cast<uint32_t>(number % 2);
    spec.outlier.enabled = !chance_.OneIn(3);
    spec.outlier.consecutive = chance_.OneOf<uint32_t>({1, 2, 5});
    spec.outlier.base_ejection = Seconds(chance_.OneOf<int64_t>({1, 3, 30}));
    spec.outlier.max_ejection = Seconds(chance_.OneOf<int64_t>({3, 60, 300}));
    spec.outlier.interval = Seconds(chance_.OneOf<int64_t>({1, 10}));
    spec.outlier.max_ejected = chance_.OneOf({0.0, 0.1, 0.5, 1.0});
    spec.panic = chance_.OneOf({0.0, 0.5, 1.0});
    spec.slow_start.window = std::chrono::milliseconds(chance_.OneOf<int64_t>({0, 500, 5000, 20000}));
    spec.slow_start.aggression = chance_.OneOf({0.5, 1.0, 2.0});
    if (!chance_.OneIn(3)) spec.close_after = Seconds(chance_.OneOf<int64_t>({0, 1, 30}));
    spec.zone_aware_from = chance_.OneOf<uint32_t>({0, 1, 6});
    return spec;
  }

  // --- Steps.

  void Step() {
    switch (chance_.Below(20)) {
      case 0:
        Configure();
        break;
      case 1:
        Discover();
        break;
      case 2:
        Command();
        break;
      case 3:
      case 4:
      case 5:
        Pass();
        break;
      case 6:
      case 7:
      case 8:
      case 9:
        Answer();
        break;
      case 10:
      case 11:
      case 12:
        Connect();
        break;
      case 13:
      case 14:
      case 15:
      case 16:
        EndAttempt();
        break;
      default:
        TakeSomething();
        break;
    }
    Compare();
  }

  void Configure() {
    std::vector<ServiceSpec> specs = specs_;
    for (size_t changes = 1 + chance_.Below(2); changes > 0; --changes) {
      const size_t number = chance_.Below(kServices);
      const std::string name = SimServiceName(number);
      const auto old =
          std::find_if(specs.begin(), specs.end(), [&](const auto& one) { return one.name == name; });
      if (old == specs.end()) {
        specs.push_back(RandomService(number));
      } else if (chance_.OneIn(4)) {
        specs.erase(old);
      } else if (chance_.OneIn(2)) {
        old->backends = RandomBackends(number);
      } else {
        *old = RandomService(number);
      }
    }
    specs_ = specs;
    balancer_.Configure(specs, chance_.OneOf<const char*>({"", "here", "here"}), now_);
    model_.Configure(specs);
    std::erase_if(id_of_, [&](const auto& entry) { return model_.Find(entry.first) == nullptr; });
    all_taken_ = false;
  }

  void Discover() {
    const size_t number = chance_.Below(kServices);
    const std::string name = SimServiceName(number);
    if (chance_.OneIn(4)) return balancer_.SourceFailed(name, "no answer", now_);
    const std::vector<BackendSpec> found = RandomBackends(number);
    balancer_.Discover(name, found, now_);
    model_.Discover(name, found);
    all_taken_ = false;
  }

  void Command() {
    const size_t number = chance_.Below(kServices);
    const std::string name = SimServiceName(number), backend = RandomAddress(number);
    BackendCommand command;
    command.kind = chance_.OneOf({Kind::kDrain, Kind::kDisable, Kind::kEnable, Kind::kEnable, Kind::kWeight});
    command.weight = static_cast<uint32_t>(chance_.Below(4));
    BalancerModel::Backend* known = model_.Find(name, backend);
    const absl::Status status = balancer_.Command(name, backend, command, now_);
    ASSERT_EQ(status.ok(), known != nullptr) << status;
    if (known != nullptr) model_.Command(*model_.Find(name), *known, command);
    all_taken_ = false;
  }

  void Pass() {
    const int64_t due = balancer_.NextDue();
    int64_t time = now_;
    switch (chance_.Below(4)) {
      case 0:
        time += static_cast<int64_t>(chance_.Below(50)) * kMillisecond;
        break;
      case 1:
        time += static_cast<int64_t>(chance_.Below(3000)) * kMillisecond;
        break;
      case 2:
        time += static_cast<int64_t>(chance_.Below(40'000)) * kMillisecond;
        break;
      default:
        if (due != Balancer::kNever) time = due;
    }
    // Nothing comes that was not announced.
    if (all_taken_ && due > now_ + 1 && chance_.OneIn(2)) {
      const int64_t before = due == Balancer::kNever ? time : std::min(time, due - 1);
      balancer_.Advance(before);
      ASSERT_EQ(balancer_.TakeTable(before), nullptr);
      ASSERT_TRUE(balancer_.TakeChecks(before).empty());
      ASSERT_TRUE(balancer_.TakeClosings(before).empty());
      ASSERT_EQ(balancer_.NextDue(), due);
    }
    now_ = time;
    balancer_.Advance(now_);
    model_.Advance(now_);
    all_taken_ = false;
    ASSERT_GE(balancer_.NextDue(), now_);
  }

  void TakeSomething() {
    if (chance_.OneIn(2)) TakeTable();
    if (chance_.OneIn(2)) TakeChecks();
    if (chance_.OneIn(2)) TakeClosings();
    if (chance_.OneIn(2)) {
      TakeTable();
      TakeChecks();
      TakeClosings();
      all_taken_ = true;
      ASSERT_GT(balancer_.NextDue(), now_);
    }
    for (size_t reactor = 0; reactor < kReactors; ++reactor) {
      if (chance_.OneIn(2) && !tables_.empty()) held_[reactor] = tables_.back();
    }
    Retire();
  }

  void TakeTable() {
    std::shared_ptr<const ServiceTable> table = balancer_.TakeTable(now_);
    if (table != nullptr) {
      ++seen["tables"];
      ASSERT_TRUE(tables_made_ == 0 || now_ - table_made_ >= Balancer::kTableInterval);
      ++tables_made_;
      table_made_ = now_;
      auto fresh = std::make_shared<Table>();
      fresh->table = std::move(table);
      tables_.push_back(fresh);
      Look(*fresh);
    } else if (tables_made_ > 0 && now_ - table_made_ >= Balancer::kTableInterval) {
      // Then the last one is still right.
      Table same{tables_.back()->table, {}};
      Look(same);
    }
  }

  // What a table says has to be what the model says now.
  void Look(Table& table) {
    for (size_t number = 0; number < kServices; ++number) {
      const Service* found =
          table.table->Find(Transport::kTcp, SockAddrOf("10.96.0." + std::to_string(number) + ":80"));
      BalancerModel::Service* service = model_.Find(SimServiceName(number));
      ASSERT_EQ(found == nullptr, service == nullptr);
      if (found == nullptr) continue;
      ASSERT_EQ(found->name, service->spec.name);
      ASSERT_EQ(id_of_.emplace(found->name, found->id).first->second, found->id) << "it has another id";
      for (const std::shared_ptr<Table>& other : tables_) {
        const Service* there = other->table->At(found->id);
        ASSERT_TRUE(there == nullptr || there->name == found->name)
            << "the id is another's in a table in use";
      }
      for (const bool v4 : {true, false}) LookAt(table, *service, v4, v4 ? found->v4.get() : found->v6.get());
    }
  }

  void LookAt(Table& table, BalancerModel::Service& service, bool v4, const PickTable* picks) {
    std::map<std::string, Backend> in;
    for (const Backend& backend : AllPicks(picks, counts_)) in.emplace(backend.address.ToString(), backend);
    struct Level {
      int wanted = 0, fit = 0, fit_in = 0, unfit_in = 0;
    } levels[2];
    bool slow = false;
    for (BalancerModel::Backend& backend : service.backends) slow = slow || backend.slow_since;
    for (BalancerModel::Backend& backend : service.backends) {
      if (backend.spec.address.ip().IsV4() != v4) continue;
      const auto found = in.find(backend.text);
      if (!backend.wanted()) {
        ASSERT_EQ(found, in.end()) << backend.text << " takes no connections";
        continue;
      }
      Level& level = levels[backend.spec.backup];
      ++level.wanted;
      const bool fit = service.Fit(backend);
      level.fit += fit;
      if (found == in.end()) {
        ASSERT_FALSE(fit) << backend.text << " is fit, and not in the table";
        continue;
      }
      ++(fit ? level.fit_in : level.unfit_in);
      if (!slow) {
        ASSERT_EQ(found->second.weight, backend.weight());
      }
      Claim(table, found->second.slot, backend.tenure);
      in.erase(found);
    }
    ASSERT_TRUE(in.empty()) << in.begin()->first << " is in the table, and nobody's backend";
    for (const Level& level : levels) {
      if (level.unfit_in == 0) continue;
      ++seen["panics"];
      ASSERT_TRUE(Panics(service));
      ASSERT_LT(level.fit, service.spec.panic * level.wanted) << "there was no reason for panic";
      ASSERT_EQ(level.fit_in + level.unfit_in, level.wanted);
    }
  }

  bool Panics(const BalancerModel::Service& service) {
    for (const ServiceReport& report : balancer_.Describe(now_)) {
      if (report.name == service.spec.name) return report.panic;
    }
    return false;
  }

  // A slot means one backend for as long as anybody can have it.
  void Claim(Table& table, uint32_t slot, Tenure tenure) {
    ASSERT_EQ(table.slots.emplace(slot, tenure).first->second, tenure) << "two backends have one slot";
    for (const std::shared_ptr<Table>& other : tables_) {
      const auto found = other->slots.find(slot);
      ASSERT_TRUE(found == other->slots.end() || found->second == tenure)
          << "a table has the slot of another";
    }
    for (const Attempt& attempt : attempts_)
      ASSERT_TRUE(attempt.slot != slot || attempt.tenure == tenure) << "an attempt has the slot of another";
    const auto [known, is_new] = slot_of_.emplace(tenure, slot);
    ASSERT_EQ(known->second, slot) << "a backend has another slot";
    if (is_new && !slots_used_.insert(slot).second) ++seen["slots used again"];
  }

  void Retire() {
    for (auto i = tables_.begin(); i != tables_.end();) {
      const bool is_held = *i == tables_.back() || std::count(held_.begin(), held_.end(), *i) > 0;
      if (is_held || chance_.OneIn(3)) {
        ++i;
        continue;
      }
      balancer_.TableRetired(*(*i)->table);
      i = tables_.erase(i);
    }
  }

  void TakeChecks() {
    for (const DueCheck& due : balancer_.TakeChecks(now_)) {
      BalancerModel::Service* service = nullptr;
      BalancerModel::Backend* backend = nullptr;
      for (BalancerModel::Service& one : model_.services) {
        if (BalancerModel::Backend* its = model_.Find(one.spec.name, due.address.ToString())) {
          service = &one;
          backend = its;
        }
      }
      ASSERT_NE(backend, nullptr) << "a check of " << due.address.ToString() << ", which has gone";
      ASSERT_TRUE(service->spec.health.enabled);
      ASSERT_NE(backend->order, Kind::kDisable);
      ASSERT_EQ(slot_of_.emplace(backend->tenure, due.slot).first->second, due.slot);
      const Tenure tenure = backend->tenure;
      for (const Check& check : under_way_)
        ASSERT_NE(check.tenure, tenure) << "two checks at once of " << backend->text;
      under_way_.push_back({due, tenure});
    }
  }

  // A check ends, or is said to have ended once more.
  void Answer() {
    for (int i = 0; i < 3; ++i) {
      if (!done_.empty() && chance_.OneIn(8)) {
        const Check& old = done_[chance_.Below(done_.size())];
        balancer_.Checked(old.due.slot, old.due.check, chance_.OneIn(2), "old", now_);
      }
      if (under_way_.empty()) return;
      const size_t which = chance_.Below(under_way_.size());
      const Check check = under_way_[which];
      under_way_.erase(under_way_.begin() + static_cast<ptrdiff_t>(which));
      done_.push_back(check);
      auto [service, backend] = model_.Find(check.tenure);
      const bool up = chance_.Below(10) < (check.tenure % 3 == 0 ? 2u : 8u);
      balancer_.Checked(check.due.slot, check.due.check, up, "no", now_);
      all_taken_ = false;
      if (backend == nullptr || !service->spec.health.enabled || backend->order == Kind::kDisable) continue;
      model_.Checked(*service, *backend, up);
      seen["down"] += !backend->Up(service->spec.health);
    }
  }

  void Connect() {
    for (size_t reactor = 0; reactor < kReactors; ++reactor) {
      if (held_[reactor] == nullptr) continue;
      PickSeat seat(reactor, counts_, chance_.Next());
      for (uint32_t id = 0; id < 2 * kServices; ++id) {
        const Service* service = held_[reactor]->table->At(id);
        const PickTable* table = service == nullptr ? nullptr : service->TableFor(chance_.OneIn(2));
        const Backend* backend = table == nullptr ? nullptr : table->Pick({}, seat);
        if (backend == nullptr) continue;
        seat.CountsOf(*backend).Begin();
        attempts_.push_back({reactor, backend->slot, held_[reactor]->slots.at(backend->slot)});
      }
    }
  }

  void EndAttempt() {
    for (int i = 0; i < 4 && !attempts_.empty(); ++i) {
      const size_t which = chance_.Below(attempts_.size());
      const Attempt attempt = attempts_[which];
      attempts_.erase(attempts_.begin() + static_cast<ptrdiff_t>(which));
      const bool well = chance_.Below(10) < (attempt.tenure % 4 == 0 ? 2u : 8u);
      balancer_.Connected(attempt.slot, well, now_);
      counts_.At(attempt.reactor, attempt.slot).End();
      all_taken_ = false;
      auto [service, backend] = model_.Find(attempt.tenure);
      if (backend == nullptr) continue;
      const bool was = backend->ejected();
      model_.Connected(*service, *backend, well);
      seen["ejected"] += backend->ejected() && !was;
    }
  }

  void TakeClosings() {
    std::vector<std::pair<std::string, std::string>> due;
    for (const DueClosing& closing : balancer_.TakeClosings(now_))
      due.emplace_back(closing.service, closing.address.ToString());
    ASSERT_THAT(due, testing::UnorderedElementsAreArray(model_.TakeClosings()));
    seen["closings"] += static_cast<int>(due.size());
  }

  // --- What is said is what the model says.

  void Compare() {
    if (testing::Test::HasFatalFailure()) return;
    const std::vector<ServiceReport> reports = balancer_.Describe(now_);
    ASSERT_EQ(reports.size(), model_.services.size());
    for (size_t i = 0; i < reports.size(); ++i) {
      const BalancerModel::Service& service = model_.services[i];
      ASSERT_EQ(reports[i].name, service.spec.name);
      ASSERT_EQ(reports[i].backends.size(), service.backends.size());
      ASSERT_LE(service.Ejected(), service.MostEjected());
      for (size_t j = 0; j < service.backends.size(); ++j) {
        const BackendReport& report = reports[i].backends[j];
        const BalancerModel::Backend& backend = service.backends[j];
        ASSERT_EQ(report.address, backend.text);
        ASSERT_EQ(report.state, service.State(backend, now_)) << service.spec.name << " " << backend.text;
        ASSERT_EQ(report.weight, backend.weight());
        ASSERT_DOUBLE_EQ(report.effective_weight, service.EffectiveWeight(backend, now_));
        ASSERT_EQ(report.ejections, backend.ejections);
        const auto under_way = std::count_if(attempts_.begin(), attempts_.end(), [&](const Attempt& attempt) {
          return attempt.tenure == backend.tenure;
        });
        ASSERT_EQ(report.in_flight, under_way);
        seen["slow"] += report.state == "slow-start";
      }
    }
  }

  Chance chance_;
  BackendCountBook counts_{kReactors};
  Balancer balancer_{counts_, ""};
  BalancerModel model_;
  std::vector<ServiceSpec> specs_;
  int64_t now_ = 0;
  bool all_taken_ = false;

  int tables_made_ = 0;
  int64_t table_made_ = 0;
  std::vector<std::shared_ptr<Table>> tables_;  // not retired
  std::array<std::shared_ptr<Table>, kReactors> held_;
  std::map<std::string, uint32_t> id_of_;
  std::map<Tenure, uint32_t> slot_of_;
  std::set<uint32_t> slots_used_;
  std::vector<Attempt> attempts_;
  std::vector<Check> under_way_, done_;
};

TEST(BalancerSimulation, WhateverHappensItSaysWhatTheModelSays) {
  std::map<std::string, int> seen;
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    BalancerSim sim(seed);
    sim.Run(300);
    if (HasFatalFailure()) return;
    for (const auto& [what, times] : sim.seen) seen[what] += times;
  }
  for (const char* what : {"tables", "down", "ejected", "panics", "slow", "closings", "slots used again"})
    EXPECT_GT(seen[what], 100) << what << ": the schedules do not get there";
}

// Lists that nobody would write: addresses several times, weights of nothing, the service itself, nobody at
// all; and every check fails.
TEST(BalancerSimulation, AnyListOfBackendsMeansSomething) {
  Chance chance(1);
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::vector<BackendSpec> specs;
    std::vector<std::string> texts, wanted;
    for (size_t left = chance.Below(12); left > 0; --left) {
      const std::string text = SimAddresses(1)[chance.Below(5)];
      specs.push_back(BackendAt(text, static_cast<uint32_t>(chance.Below(3))));
      specs.back().backup = chance.OneIn(2);
      if (std::count(texts.begin(), texts.end(), text) > 0) continue;
      texts.push_back(text);
      if (specs.back().weight > 0) wanted.push_back(text);
    }
    ServiceSpec spec = ServiceOf(SimServiceName(1), specs);
    spec.health = {true, std::chrono::seconds(1), std::chrono::seconds(1), 1, 1};
    BackendCountBook counts(1);
    Balancer balancer(counts, "");
    balancer.Configure({spec}, "", 0);
    const auto in_table = [&](int64_t now) {
      const std::shared_ptr<const ServiceTable> table = balancer.TakeTable(now);
      std::vector<std::string> in;
      for (const Backend& backend : AllPicks(table->At(0)->v4.get(), counts))
        in.push_back(backend.address.ToString());
      return in;
    };
    ASSERT_THAT(in_table(0), testing::UnorderedElementsAreArray(wanted));
    std::vector<std::string> listed;
    const std::vector<ServiceReport> reports = balancer.Describe(0);
    for (const BackendReport& report : reports.at(0).backends) listed.push_back(report.address);
    ASSERT_EQ(listed, texts);

    const std::vector<DueCheck> checks = balancer.TakeChecks(kSecond);
    ASSERT_EQ(checks.size(), texts.size());
    for (const DueCheck& check : checks) balancer.Checked(check.slot, check.check, false, "", kSecond);
    // All are down: whom the operator wants, gets something.
    if (!wanted.empty()) {
      ASSERT_THAT(in_table(kSecond), testing::UnorderedElementsAreArray(wanted));
      ASSERT_TRUE(balancer.Describe(kSecond).at(0).panic);
    }
    // And all are gone.
    balancer.Configure({}, "", kSecond);
    ASSERT_EQ(balancer.TakeTable(2 * kSecond)->At(0), nullptr);
    ASSERT_EQ(balancer.NextDue(), Balancer::kNever);
  }
}

}  // namespace
}  // namespace shunt::net
