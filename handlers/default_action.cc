// SPDX-License-Identifier: Apache-2.0
// What becomes of a trapped call that nothing of the container's policy is about.

#include "handlers/container.h"
#include "handlers/handlers.h"

namespace shunt {

Reply Default(Call& call) {
  const Policy& policy = ContainerOf(call).policy;
  switch (policy.default_action) {
    case DefaultAction::kContinue:
      return Reply::Continue();
    case DefaultAction::kFail:
      return Reply::Fail(policy.default_error);
    case DefaultAction::kKillContainer:
    case DefaultAction::kFreezeContainer:
      break;
  }
  return Reply::Fail(EPERM);
}

}  // namespace shunt
