// SPDX-License-Identifier: Apache-2.0
#include "handlers/service_errands.h"

#include <chrono>
#include <ctime>
#include <system_error>
#include <utility>

#include "core/clock.h"
#include "core/confinement.h"
#include "core/result.h"
#include "net/balancer/pick_table.h"
#include "net/peer_connections.h"

namespace shunt {
namespace {

constexpr int64_t kSlice = 10'000'000;           // ns
constexpr int64_t kMostOfAWalk = 1'000'000'000;  // ns of CPU time: 100,000 descriptors or more
constexpr auto kPatience = std::chrono::seconds(2);

}  // namespace

absl::StatusOr<std::unique_ptr<ServiceErrands>> ServiceErrands::Start(Aim aim, Counters& counters) try {
  std::unique_ptr<ServiceErrands> errands(new ServiceErrands(std::move(aim), counters));
  errands->thread_ = std::thread([self = errands.get()] { self->Run(); });
  errands->begun_.wait();
  return errands;
} catch (const std::system_error& thrown) {  // the only way in which std::thread can fail; it ends here
  return ToStatus({thrown.code().value()},
                  "start the thread of services' errands (is pids.max or RLIMIT_NPROC reached?)");
}

ServiceErrands::~ServiceErrands() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  given_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ServiceErrands::Give(const std::vector<net::DueClosing>& closings, std::vector<net::DueAiming> aimings,
                          const std::vector<ErrandPlace>& places) {
  if (closings.empty() && aimings.empty()) return;
  const auto round = std::make_shared<Round>();
  for (const net::DueClosing& closing : closings)
    round->closings.insert(net::BackendIdentity(closing.address));
  for (net::DueAiming& aiming : aimings) round->aimings[net::HashOfName(aiming.name)] = std::move(aiming);
  // Containers that wait with the same round go on doing so.
  std::map<std::shared_ptr<const Round>, std::shared_ptr<const Round>> merged;
  const std::lock_guard lock(mutex_);
  for (const ErrandPlace& place : places) {
    if (!Concerns(*round, *place.flows)) continue;
    const Result<net::Namespace> network = net::NetworkOf(place.task);
    if (!network) continue;  // it has ended
    const auto [known, is_new] = errands_.try_emplace(place.key);
    Errand& errand = known->second;
    if (is_new) {
      errand.place = place;
      errand.network = *network;
      line_.push_back(place.key);
    }
    if (errand.next == nullptr) {
      errand.next = round;
    } else {
      std::shared_ptr<const Round>& both = merged[errand.next];
      if (both == nullptr) both = Merged(*errand.next, *round);
      errand.next = both;
    }
  }
  given_.notify_all();
}

std::shared_ptr<const ServiceErrands::Round> ServiceErrands::Merged(const Round& before, const Round& after) {
  auto both = std::make_shared<Round>(before);
  both->closings.insert(after.closings.begin(), after.closings.end());
  for (const auto& [service, aiming] : after.aimings) both->aimings[service] = aiming;
  return both;
}

void ServiceErrands::Forget(uint64_t key) {
  std::unique_lock lock(mutex_);
  const auto known = errands_.find(key);
  if (known == errands_.end()) return;
  if (at_ != key) {
    errands_.erase(known);
    std::erase(line_, key);
    return;
  }
  // Not only until its slice is over: if it is alone in line, the next one begins before we get the lock.
  known->second.forgotten = true;
  slice_over_.wait(lock, [&] { return !errands_.contains(key); });
}

void ServiceErrands::Finish() {
  std::unique_lock lock(mutex_);
  slice_over_.wait_for(lock, kPatience, [&] { return errands_.empty(); });
}

// ---- the thread

void ServiceErrands::Run() {
  BeginThread(EngineThread::kSide, "shunt-errands");
  begun_.count_down();
  std::unique_lock lock(mutex_);
  for (;;) {
    given_.wait(lock, [&] { return ending_ || !line_.empty(); });
    if (ending_) return;
    at_ = line_.front();
    line_.pop_front();
    Errand& errand = errands_.at(at_);
    if (errand.now == nullptr) {
      errand.now = std::exchange(errand.next, nullptr);
      errand.walk.emplace(errand.network);
      errand.aiming.emplace(*errand.place.flows, errand.place.netns);
      errand.spent = 0;
    }
    lock.unlock();
    const bool over = Advance(errand);
    lock.lock();
    if (over) errand.now = nullptr;
    if (!errand.forgotten && (errand.now != nullptr || errand.next != nullptr)) {
      line_.push_back(at_);
    } else {
      errands_.erase(at_);
    }
    at_ = 0;
    slice_over_.notify_all();
  }
}

// True: it is over.
bool ServiceErrands::Advance(Errand& errand) {
  const Round& round = *errand.now;
  const auto leaves = [&](const net::AimedFlows::Flow& flow) { return Leaves(round, flow); };
  const auto new_aim = [&](const net::AimedFlows::Flow& flow, const net::SockAddr& peer) {
    return aim_(round.aimings.find(flow.service)->second, flow, peer, errand.place.owner);
  };
  const int64_t begun = NowOn(CLOCK_THREAD_CPUTIME_ID);  // others may have the CPU meanwhile
  const Result<bool> whole = errand.walk->GoOn(MonotonicNow() + kSlice, [&](const Fd& copy) {
    if (net::ShutDownIfConnectedTo(round.closings, copy.get())) return;
    errand.aiming->See(copy.get(), leaves, new_aim);
  });
  errand.spent += NowOn(CLOCK_THREAD_CPUTIME_ID) - begun;
  if (whole && !*whole && errand.spent < kMostOfAWalk) return false;
  if (!whole) return true;
  errand.aiming->End(*whole, leaves);
  counters_.Add(Counter::flows_moved, errand.aiming->moved());
  counters_.Add(Counter::flows_stuck, errand.aiming->failed());
  return true;
}

// Where a service has nobody to take them, its flows stay.
bool ServiceErrands::Leaves(const Round& round, const net::AimedFlows::Flow& flow) {
  const auto aiming = round.aimings.find(flow.service);
  return aiming != round.aimings.end() && !aiming->second.stay.empty() &&
         !aiming->second.stay.contains(flow.backend);
}

bool ServiceErrands::Concerns(const Round& round, const net::AimedFlows& flows) {
  if (!round.closings.empty()) return true;
  bool any = false;
  flows.ForEach([&](const net::AimedFlows::Flow& flow) { return !(any = Leaves(round, flow)); });
  return any;
}

}  // namespace shunt
