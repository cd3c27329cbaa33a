// SPDX-License-Identifier: Apache-2.0
// What becomes of a trapped call that nothing of the container's policy is about.

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "core/proc_text.h"
#include "core/task.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/verdict.h"

namespace shunt {
namespace {

class VerdictJob final : public ControlJob {
 public:
  explicit VerdictJob(const Call& call) : call_(call) {}
  void Run() override {
    const Container& container = ContainerOf(call_);
    if (container.policy.default_action == DefaultAction::kFreezeContainer) {
      Freeze(container.lever.get());
    } else if (!Kill(container.lever.get())) {
      KillCaller();
    }
  }

 private:
  // Nobody could tell the container's first process: it loses the one that has called.
  void KillCaller() const {
    const Result<Fd> process = ProcessOf(call_.notification.tid);
    if (process && call_.StillValid()) Kill(process->get());
  }

  const Call& call_;
};

Task PassVerdict(Call call) {
  VerdictJob job(call);
  co_await OnControl(call, job);
  co_return Reply::Fail(EPERM);
}

}  // namespace

Reply Default(Call& call) {
  Container& container = ContainerOf(call);
  switch (container.policy.default_action) {
    case DefaultAction::kContinue:
      return Reply::Continue();
    case DefaultAction::kFail:
      return Reply::Fail(container.policy.default_error);
    case DefaultAction::kKillContainer:
    case DefaultAction::kFreezeContainer:
      break;
  }
  // Freezing takes everybody out of the calls that are being handled, the caller of this one included. Most
  // often the answer comes too late for it, and after the thaw the kernel has it call again: then it gets
  // this answer, and nothing is frozen for it once more (Container::Unanswered).
  const uint64_t verdict = Container::NameOf(call.notification);
  if (const std::optional<Reply> missed = container.facts.lost_replies.Take(call.notification.tid, verdict))
    return *missed;
  call.record.number = Container::kNoFile;
  call.record.inode = verdict;
  call.record.reply = Reply::Fail(EPERM);
  call.record.Enter(Stage::kStarting);
  if (PassVerdict(call).started()) return Reply::Later();
  // Without a slot the reactor does it, and may have to wait a little for the kernel's lock on cgroups.
  VerdictJob(call).Run();
  return Reply::Fail(EPERM);
}

}  // namespace shunt
