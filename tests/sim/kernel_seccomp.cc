// SPDX-License-Identifier: Apache-2.0
// The listener's ioctls, and what must hold at each of them.

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

std::shared_ptr<Trapped> FindCall(Filter& filter, uint64_t id) {
  const auto found = filter.all.find(id);
  return found == filter.all.end() ? nullptr : found->second;
}

// What a container gets from us must not be able to go where it must not.
void CheckInstalled(const File& file) {
  const auto* socket = dynamic_cast<const Socket*>(&file);
  if (socket == nullptr && dynamic_cast<const Epoll*>(&file) == nullptr)
    World::Get().Wrong("a %s is installed", file.kind());
  if (socket != nullptr && socket->netns == kHostNetns && !socket->locked())
    World::Get().Wrong("a socket of the host's network is installed without a lock");
}

}  // namespace

int ReceiveCall(Filter& filter, seccomp_notif& into) {
  World& world = World::Get();
  Kernel& kernel = Kernel::Get();
  if (into.id != 0 || into.pid != 0 || into.data.nr != 0) return -EINVAL;  // the buffer has to be zero
  if (filter.wakeups == 0 && filter.tasks > 0)
    world.Wrong("RECV on the listener of %s sleeps: nothing is there", filter.name.c_str());
  if (filter.wakeups > 0) --filter.wakeups;
  for (const auto& call : filter.waiting) {
    if (call->state != Trapped::State::kWaiting) continue;
    const auto task = std::find_if(kernel.tasks.begin(), kernel.tasks.end(),
                                   [&](const auto& entry) { return entry.second->inside == call; });
    call->state = Trapped::State::kReceived;
    into.id = call->id;
    into.pid = static_cast<uint32_t>(task->first);
    into.data = call->data;
    ++kernel.received;
    world.Trace("  call %llu of task %d, system call %d", static_cast<unsigned long long>(call->id),
                task->first, call->data.nr);
    return 0;
  }
  ++kernel.failed_receives;
  return -ENOENT;
}

int SendAnswer(Filter& filter, const seccomp_notif_resp& answer) {
  World& world = World::Get();
  const std::shared_ptr<Trapped> call = FindCall(filter, answer.id);
  if (call == nullptr) world.Wrong("SEND for a call that never was: %llu", answer.id);
  if (++call->sends > 1) world.Wrong("call %llu is answered twice", answer.id);
  if (call->state == Trapped::State::kAnswered)
    world.Wrong("call %llu is answered twice: by ADDFD and SEND", answer.id);
  world.Trace("  call %llu: value %lld, error %d, flags %u", answer.id, answer.val, answer.error,
              answer.flags);
  if (answer.error > 0 || (answer.flags != 0 && (answer.error != 0 || answer.val != 0)))
    world.Wrong("call %llu gets an answer that the kernel refuses", answer.id);
  if (call->state == Trapped::State::kLeft) {
    ++Kernel::Get().failed_sends;
    return -ENOENT;
  }
  call->answer = answer;
  call->state = Trapped::State::kAnswered;
  ++Kernel::Get().answered;
  return 0;
}

int InstallInTask(Filter& filter, const seccomp_notif_addfd& request) {
  World& world = World::Get();
  const FileRef file = Fiber::Current()->table->Get(static_cast<int>(request.srcfd));
  if (file == nullptr) world.Wrong("ADDFD of descriptor %u, which is not open", request.srcfd);
  CheckInstalled(*file);
  const bool answers = (request.flags & SECCOMP_ADDFD_FLAG_SEND) != 0;
  if (const int error = world.Fault({ENOMEM, EMFILE, EINTR}); error != 0) return -error;
  const std::shared_ptr<Trapped> call = FindCall(filter, request.id);
  if (call == nullptr || call->state == Trapped::State::kLeft) return -ENOENT;
  if (call->state == Trapped::State::kAnswered) {
    world.Wrong("ADDFD for call %llu, which is answered", static_cast<unsigned long long>(call->id));
  }
  if (call->install != nullptr) world.Wrong("two ADDFDs for one call at the same time");
  Install install{.file = file,
                  .number = answers ? -1 : static_cast<int>(request.newfd),
                  .cloexec = (request.newfd_flags & O_CLOEXEC) != 0,
                  .answers = answers};
  call->install = &install;
  Fiber::Pause([&install] { return install.done; });
  world.Trace("  installed: %d", install.result);
  return install.result;
}

}  // namespace shunt::sim
