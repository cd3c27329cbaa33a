// SPDX-License-Identifier: Apache-2.0
#include "handlers/swap.h"

#include <netinet/in.h>
#include <sys/socket.h>

namespace shunt {
namespace {

net::OptionSet OptionsToRead(const Call& call, int socket_fd, bool& stays) {
  const Container& container = ContainerOf(call);
  stays = false;
  if (!container.exact_traps) return net::OptionSet::kAll;
  if (container.rare_options.empty() && container.stay.empty()) return net::OptionSet::kHot;
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return net::OptionSet::kAll;
  stays = container.stay.MayHave(cookie);
  return container.rare_options.MayHave(cookie) ? net::OptionSet::kAll : net::OptionSet::kHot;
}

net::IpAddress Anywhere(int family) {
  return family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress();
}

}  // namespace

bool BoundByProgram(int socket_fd, int family) {
  // bind(2) to port 0 fails for no other reason than that the socket has a port (EINVAL).
  const net::SockAddr anywhere(Anywhere(family), 0);
  return bind(socket_fd, anywhere.data(), anywhere.size()) != 0;
}

Result<std::optional<net::SockAddr>> SourceOf(const TargetSocket& socket) {
  const net::SockAddr& local = socket.facts.local;
  if (local.port() == 0 || !BoundByProgram(socket.fd.get(), socket.facts.family)) return std::nullopt;
  if (local.ip().IsLoopback()) return Fail(EADDRNOTAVAIL);
  // Any other address of the container's means: whatever address the host takes.
  return net::SockAddr(Anywhere(socket.facts.family), local.port(), static_cast<sa_family_t>(socket.facts.family));
}

Counter CarryOver(const Call& call, const TargetSocket& socket, int twin_fd, BindTo& bind_to) {
  const net::TwinDefaults& defaults = BenchOf(call).defaults(socket.facts.family);
  bool stays;
  const net::OptionSet options = OptionsToRead(call, socket.fd.get(), stays);
  if (stays) return Counter::kept_options;
  const auto carry = [&](net::CarryPhase phase) {
    return net::CarryOptions(socket.fd.get(), twin_fd, defaults, options, phase).complete();
  };
  if (!bind_to.address) return carry(net::CarryPhase::kWhole) ? Counter::count_ : Counter::kept_options;
  if (!carry(net::CarryPhase::kBeforeBind)) return Counter::kept_options;
  if (bind(twin_fd, bind_to.address->data(), bind_to.address->size()) != 0) {
    bind_to.error = errno;
    return Counter::kept_source;
  }
  return carry(net::CarryPhase::kAfterBind) ? Counter::count_ : Counter::kept_options;
}

Result<Twin> DescribeFor(const Call& call, int number) {
  const Result<DescriptorInfo> info = call.target().Describe(number);
  if (!info) return tl::unexpected(info.error());
  if ((info->flags & O_ASYNC) != 0) return Fail(EOPNOTSUPP);  // signals go by F_SETOWN, which is never replayed
  return Twin{.flags = info->flags & kCarriedFlags, .cloexec = (info->flags & O_CLOEXEC) != 0};
}

Swapped SwapIn(const Call& call, int number, Fd old_socket, const Twin& twin) {
  if (!call.listener.Install(call.notification.id, twin.fd.get(), number, twin.cloexec)) return Swapped::kNotAtAll;
  ContainerOf(call).has_twins = true;
  old_socket.reset();
  return Swapped::kAlone;
}

}  // namespace shunt
