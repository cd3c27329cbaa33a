// SPDX-License-Identifier: Apache-2.0
#include "handlers/container.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "handlers/handlers.h"
#include "handlers/side_call.h"
#include "net/netns.h"

namespace shunt {
namespace {

// A socket that holds a port of the host in all families that it has.
Fd HoldPort(uint16_t& port) {
  for (const int family : {AF_INET6, AF_INET}) {
    Fd holder(socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
    const int off = 0;
    if (family == AF_INET6) setsockopt(holder.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    const net::SockAddr any(family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress(), 0);
    sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    if (!holder.valid() || bind(holder.get(), any.data(), any.size()) != 0) continue;
    if (getsockname(holder.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) continue;
    port = ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
    return holder;
  }
  return Fd();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SocketBench>> SocketBench::Create() {
  const absl::StatusOr<uint64_t> netns = net::OwnNetnsCookie();
  if (!netns.ok()) return netns.status();
  Result<Fd> route_socket = net::OpenRouteSocket();
  if (!route_socket) return ToStatus(route_socket.error(), "open a route socket");
  Result<net::ListenerCensus> census = net::ListenerCensus::Open();
  if (!census) return ToStatus(census.error(), "open a sock_diag socket");
  const Result<net::TwinDefaults> defaults4 = net::TwinDefaults::Learn(AF_INET);
  if (!defaults4)
    return ToStatus(defaults4.error(),
                    "learn the defaults of socket options (Linux 5.14 or later is needed)");
  const Result<net::TwinDefaults> defaults6 = net::TwinDefaults::Learn(AF_INET6);
  absl::StatusOr<std::unique_ptr<net::SideThread>> side = net::SideThread::Start();
  if (!side.ok()) return side.status();
  absl::StatusOr<net::HolderProbe> probe = net::HolderProbe::Create();
  if (!probe.ok()) return probe.status();
  TargetCache ourselves;
  const Result<DescriptorInfo> a_socket = ourselves.Find(0, gettid()).Describe(route_socket->get());
  if (!a_socket) return ToStatus(a_socket.error(), "read /proc/self/fdinfo (is /proc mounted?)");
  std::unique_ptr<SocketBench> bench(new SocketBench(*netns, a_socket->mount, std::move(*route_socket),
                                                     *std::move(census), *std::move(probe)));
  bench->side = *std::move(side);
  bench->port_holder_ = HoldPort(bench->taken_port_);
  if (!bench->port_holder_.valid()) return absl::UnavailableError("no port of the host is free");
  bench->defaults4_ = *defaults4;
  // Without IPv6 on the host no IPv6 twin can be made, and the defaults are never looked at.
  if (defaults6) bench->defaults6_ = *defaults6;
  return bench;
}

Container::Container(std::string its_name, ContainerMemory its_memory)
    : name(std::move(its_name)),
      memory(std::move(its_memory)),
      facts(memory.facts()),
      affinity_key(net::HashOfName(name)),
      workers{Workers(memory.desks().first(Workers::kMost)), Workers(memory.desks().last(Workers::kMost))},
      incarnation(MonotonicNow()) {}

// Every name that this machine knows nothing of has been refused where the policy was made.
void Container::Obey(Policy its_policy, RequestTimes* times) {
  policy = std::move(its_policy);
  for (const std::string& link : policy.middleware) {
    if (link == kPrometheus && times != nullptr)
      middleware_.push_back(times->LinkFor(policy.identity.pod_namespace));
  }
  for (size_t i = 1; i < middleware_.size(); ++i) middleware_[i - 1]->next = middleware_[i].get();
  if (policy.refuse != 0) {
    dispatch_ = std::make_unique<const Dispatch>(std::span<const Route>(), FixedError);
  } else if (!policy.errors.empty()) {
    auto dispatch = std::make_unique<Dispatch>(kRoutes, Default);
    for (const auto& [syscall, error] : policy.errors) {
      dispatch->Set(syscall, FixedError);
      for (const SyscallNumber& number : NumbersOf(syscall)) errors_.push_back({number, error});
    }
    dispatch_ = std::move(dispatch);
  }
}

int Container::ErrorOf(uint32_t arch, int nr) const {
  if (policy.refuse != 0) return policy.refuse;
  for (const FailingCall& one : errors_) {
    if (one.number.audit_arch == arch && one.number.number == static_cast<uint32_t>(nr)) return one.error;
  }
  return EPERM;  // not reached: who comes here comes by what Obey() has set
}

const Desk& Container::DeskOf(const JournalRecord& record) const {
  return memory.desks()[static_cast<size_t>(record.number) % memory.desks().size()];
}

// What is under the descriptor now is what the restarted call will find.
void Container::Unanswered(const JournalRecord& record, Stage reached, Target& caller, Reply reply) {
  if (reached == Stage::kWithWorker) {
    facts.lost_replies.Note(caller.tid(), DeskOf(record).request.fingerprint, reply);
    return;
  }
  if (reached == Stage::kBoundInside) {
    if (reply.kind() == Reply::Kind::kReturn) facts.lost_replies.Note(caller.tid(), record.inode, reply);
    return;
  }
  if (record.number == kNoFile) {
    facts.lost_replies.Note(caller.tid(), record.inode, reply);
    return;
  }
  const Result<DescriptorInfo> now = caller.Describe(record.number);
  if (now && now->ino != record.inode) facts.lost_replies.Note(caller.tid(), now->ino, reply);
}

// A call that was about no file was refused or is over, whether its caller knows or not. A worker may have
// answered, or may have done it for a caller that a signal had taken out.
void Container::LeftBehind(const JournalRecord& record) {
  const Stage reached = record.stage.load(std::memory_order_relaxed);
  if (reached == Stage::kBoundInside)  // if it is: whoever takes this looks
    facts.lost_replies.Note(record.received.Read().tid, record.inode, Reply::Return(0));
  if (reached != Stage::kWithWorker) {
    if (record.HasSideEffect() && record.number == kNoFile)
      facts.lost_replies.Note(record.received.Read().tid, record.inode, record.reply);
    return;
  }
  const Desk& desk = DeskOf(record);
  const Notification call = record.received.Read();
  const DeskState state = desk.state.load(std::memory_order_acquire);
  if (state == DeskState::kFree || desk.request.call != call.id) return;
  const bool answered =
      state == DeskState::kSent && (desk.result.send_error == 0 || desk.result.send_error == ESRCH);
  const bool done = state >= DeskState::kDone && desk.result.value >= 0;
  if (!answered && (done || state == DeskState::kBegun || desk.request.may_be_done))
    facts.lost_replies.Note(call.tid, desk.request.fingerprint, Reply::Return(0));
}

void SocketBench::OnWake() {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t got = read(side->completion_fd(), &ignored, sizeof(ignored));
  while (net::SideJob* job = side->TakeFinished()) static_cast<OnSide*>(job)->Finish();
}

}  // namespace shunt
