// SPDX-License-Identifier: Apache-2.0
// Fails a call with the errno that the policy has for it.
//
// Whatever its arguments are: nothing of the caller's is looked at.

#include "handlers/container.h"
#include "handlers/handlers.h"

namespace shunt {

Reply FixedError(Call& call) {
  return Reply::Fail(ContainerOf(call).ErrorOf(call.notification.arch, call.notification.nr));
}

}  // namespace shunt
