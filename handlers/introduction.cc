// SPDX-License-Identifier: Apache-2.0
#include "handlers/introduction.h"

#include <utility>

#include "core/task.h"
#include "handlers/container.h"

namespace shunt {
namespace {

class IntroduceJob final : public ControlJob {
 public:
  IntroduceJob(Container& container, pid_t tid) : container_(container), tid_(tid) {}
  void Run() override { ok_ = container_.introducer->Introduce(container_, tid_, introduction_).ok(); }

  bool ok() const { return ok_; }
  Introduction& introduction() { return introduction_; }

 private:
  Container& container_;
  pid_t tid_;
  bool ok_ = false;
  Introduction introduction_;
};

class ActivateJob final : public ControlJob {
 public:
  explicit ActivateJob(Container& container) : container_(container) {}
  void Run() override { container_.introducer->Activate(container_); }

 private:
  Container& container_;
};

// How long a call waits for the introduction that another one is at, before it looks again, in nanoseconds.
constexpr int64_t kLookAgainAfter = 500'000;
// And how often: for a helping reactor gets the view after the listener's own.
constexpr uint32_t kLookAgainAtMost = 2'000;

Task WaitForIntroduction(Call call, AddressCall what) {
  Container& container = ContainerOf(call);
  IntroductionState wanted = IntroductionState::kWanted;
  if (container.introduction.compare_exchange_strong(wanted, IntroductionState::kUnderWay)) {
    IntroduceJob introduce(container, call.notification.tid);
    co_await OnControl(call, introduce);
    if (introduce.ok()) {
      introduce.introduction().MoveInto(container);
      ActivateJob activate(container);
      co_await OnControl(call, activate);
    }
    container.introduction = introduce.ok() ? IntroductionState::kDone : IntroductionState::kFailed;
  } else {
    co_await Pause(call, kLookAgainAfter);
  }
  ++call.attempts;
  call.alone = false;
  co_return what.handler(call, what.number, what.address, what.length);
}

}  // namespace

void Introduction::MoveInto(Container& container) {
  container.netns = netns;
  container.network_owner = network_owner;
  container.first_unprivileged_port = first_unprivileged_port;
  container.home4 = std::move(home4);
  container.home6 = std::move(home6);
  for (size_t i = 0; i < host_ports.size(); ++i) container.published[i].host = std::move(host_ports[i]);
}

bool NeedsIntroduction(const Call& call) {
  const Container& container = ContainerOf(call);
  return ViewOf(call) == nullptr && container.introducer != nullptr &&
         container.introduction != IntroductionState::kFailed && call.attempts <= kLookAgainAtMost;
}

Reply IntroduceFirst(Call& call, const AddressCall& what) {
  return Start(WaitForIntroduction(call, what), /*if_no_slot=*/Reply::Continue());
}

}  // namespace shunt
