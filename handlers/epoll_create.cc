// SPDX-License-Identifier: Apache-2.0
// epoll_create(2), epoll_create1(2): makes the epoll on the program's behalf, only to know that there is one.
//
// A swap loses the registrations that epolls have of the old socket, so it must know which epolls a process
// has. Looking for them takes tens of microseconds; counting their creation tells when there is nothing to
// look for. The count is raised after the epoll is in place, so that whoever looks and then remembers the
// count has seen it.

#include <sys/epoll.h>

#include "handlers/container.h"
#include "handlers/handlers.h"

namespace shunt {
namespace {

Reply MakeEpoll(Call& call, bool cloexec) {
  Fd made(epoll_create1(EPOLL_CLOEXEC));
  if (!made.valid()) return Reply::Fail(errno);
  Container& container = ContainerOf(call);
  ++container.facts.epolls_coming;
  const Result<void> installed = call.listener.InstallAndAnswer(call.notification.id, made.get(), cloexec);
  ++container.facts.epolls_made;
  --container.facts.epolls_coming;
  if (!installed && installed.error() == Errno{EINTR}) return Reply::Again();
  // If the target has left, the answer finds that out again, and it is counted as gone.
  if (installed) return Reply::Sent();
  return Reply::Fail(installed.error());
}

}  // namespace

Reply EpollCreate(Call& call) {
  if (call.int_arg(0) <= 0) return Reply::Fail(EINVAL);
  return MakeEpoll(call, /*cloexec=*/false);
}

Reply EpollCreate1(Call& call) {
  const int flags = call.int_arg(0);
  if ((flags & ~EPOLL_CLOEXEC) != 0) return Reply::Fail(EINVAL);
  return MakeEpoll(call, (flags & EPOLL_CLOEXEC) != 0);
}

}  // namespace shunt
