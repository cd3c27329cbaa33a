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

// Comes back after all that was under way before it, for messages keep their order.
class NothingJob final : public ControlJob {
 public:
  void Run() override {}
};

Task WaitForIntroduction(Call call, AddressCall what) {
  Container& container = ContainerOf(call);
  if (container.introduction == IntroductionState::kWanted) {
    container.introduction = IntroductionState::kUnderWay;
    IntroduceJob job(container, call.notification.tid);
    co_await OnControl(call, job);
    if (job.ok()) job.introduction().MoveInto(container);
    container.introduction = IntroductionState::kOver;
  } else {
    NothingJob job;
    co_await OnControl(call, job);
  }
  co_return what.handler(call, what.number, what.address, what.length);
}

}  // namespace

void Introduction::MoveInto(Container& container) {
  container.netns = netns;
  container.view = view;
  container.home4 = std::move(home4);
  container.home6 = std::move(home6);
  for (size_t i = 0; i < host_ports.size(); ++i) container.published[i].host = std::move(host_ports[i]);
}

bool NeedsIntroduction(const Container& container) {
  return container.view == nullptr && container.introducer != nullptr &&
         container.introduction != IntroductionState::kOver;
}

Reply IntroduceFirst(Call& call, const AddressCall& what) {
  return Start(WaitForIntroduction(call, what), /*if_no_slot=*/Reply::Continue());
}

}  // namespace shunt
