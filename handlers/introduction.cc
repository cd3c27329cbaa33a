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

Task WaitForIntroduction(Call call, AddressHandler handler, int number, uint64_t address, int length) {
  Container& container = ContainerOf(call);
  IntroduceJob introduce(container, call.notification.tid);
  co_await OnControl(call, introduce);
  if (!introduce.ok()) co_return Reply::Continue();
  introduce.introduction().MoveInto(container);
  ActivateJob activate(container);
  co_await OnControl(call, activate);
  co_return handler(call, number, address, length);
}

}  // namespace

void Introduction::MoveInto(Container& container) {
  container.netns = netns;
  container.first_unprivileged_port = first_unprivileged_port;
  container.home4 = std::move(home4);
  container.home6 = std::move(home6);
  for (size_t i = 0; i < host_ports.size(); ++i) container.published[i].host = std::move(host_ports[i]);
}

bool NeedsIntroduction(const Call& call) {
  const Container& container = ContainerOf(call);
  return ViewOf(call) == nullptr && container.introducer != nullptr && !container.introduction_tried;
}

Reply IntroduceFirst(Call& call, AddressHandler handler, int number, uint64_t address, int length) {
  if (ContainerOf(call).introduction_tried.exchange(true)) return Reply::Continue();
  return Start(WaitForIntroduction(call, handler, number, address, length), /*if_no_slot=*/Reply::Continue());
}

}  // namespace shunt
