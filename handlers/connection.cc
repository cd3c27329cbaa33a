// SPDX-License-Identifier: Apache-2.0
#include "handlers/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "core/clock.h"
#include "core/reactor.h"
#include "core/task.h"
#include "handlers/balance.h"
#include "handlers/container.h"
#include "handlers/pending_signals.h"
#include "handlers/timed_call.h"
#include "net/connect_now.h"

namespace shunt {
namespace {

bool StillConnecting(int socket_fd) {
  pollfd writable{.fd = socket_fd, .events = POLLOUT};
  return poll(&writable, 1, 0) == 0;
}

// A blocking connect whose socket has a send timeout, and a peer that does not answer at once.
Task TimedConnect(Call call, Fd twin, int64_t timeout_ns) {
  int32_t result = 0;
  // An engine that takes this over waits for what is left of the time.
  int64_t& deadline = call.record.deadline_ns;
  if (deadline == 0 && timeout_ns > 0) deadline = MonotonicNow() + timeout_ns;
  {
    // Over before the answer: the thread's next call may be here before we are out.
    const Result<net::SocketIdentity> identity = net::Identify(twin.get());
    const TimedCalls::Mark waiting(ContainerOf(call).timed_calls, call.notification.tid,
                                   identity ? identity->inode : 0);
    int64_t left = 0;
    do {
      left = deadline == 0 ? kLookAfterNs : deadline - MonotonicNow();
      result = co_await PollFd(call, twin.get(), POLLOUT, std::clamp<int64_t>(left, 1, kLookAfterNs));
      if (result == -ECANCELED && SignalKeptBack(call.notification.tid) && call.StillValid())
        co_return Reply::Fail(EINTR);
    } while (result == -ECANCELED && (deadline == 0 || left > kLookAfterNs) && call.StillValid());
  }
  twin.reset();
  // If the connection is over, the kernel hands out its result.
  co_return result == -ECANCELED ? Reply::Fail(EINPROGRESS) : Reply::Continue();
}

}  // namespace

int64_t ReadSendTimeout(int socket_fd) {
  timeval timeout{};
  socklen_t size = sizeof(timeout);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size) != 0) return 0;
  return timeout.tv_sec * 1'000'000'000 + timeout.tv_usec * 1'000;
}

Reply StartConnection(Call& call, Twin twin, const Destination& to) {
  Destination begun = to;
  if (to.is_service()) begun.begun_at = MonotonicNow();
  int error = net::ConnectNow(twin.fd.get(), to.address);
  if (call.resumed() || to.overtook) {
    // Whoever began this may have started the connection, too; who has won a race is there already.
    if (error == EALREADY) error = EINPROGRESS;
    if (error == EISCONN) error = 0;
    // The first connect of a nonblocking socket never says 0, however fast the peer is; a second one may.
    if (error == 0 && (twin.flags & O_NONBLOCK) != 0) error = EINPROGRESS;
  }
  if (to.is_service()) return AfterStart(call, std::move(twin), begun, error);
  if (twin.flags != O_NONBLOCK) fcntl(twin.fd.get(), F_SETFL, twin.flags);
  if (error != EINPROGRESS) return error == 0 ? Reply::Return(0) : Reply::Fail(error);
  if ((twin.flags & O_NONBLOCK) != 0) return Reply::Fail(EINPROGRESS);
  return AwaitByKernel(call, std::move(twin));
}

Reply AwaitByKernel(Call& call, Twin twin) {
  if (twin.has_send_timeout && StillConnecting(twin.fd.get())) {
    const int64_t timeout_ns = ReadSendTimeout(twin.fd.get());
    if (timeout_ns == 0 && call.record.deadline_ns == 0) return Reply::Continue();
    return Start(TimedConnect(call, std::move(twin.fd), timeout_ns), /*if_no_slot=*/Reply::Continue());
  }
  return Reply::Continue();
}

}  // namespace shunt
