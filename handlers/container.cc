// SPDX-License-Identifier: Apache-2.0
#include "handlers/container.h"

#include <netinet/in.h>
#include <unistd.h>

#include "handlers/side_call.h"
#include "net/netns.h"

namespace shunt {

absl::StatusOr<std::unique_ptr<SocketBench>> SocketBench::Create() {
  const absl::StatusOr<uint64_t> netns = net::OwnNetnsCookie();
  if (!netns.ok()) return netns.status();
  Result<Fd> route_socket = net::OpenRouteSocket();
  if (!route_socket) return ToStatus(route_socket.error(), "open a route socket");
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
  std::unique_ptr<SocketBench> bench(
      new SocketBench(*netns, a_socket->mount, std::move(*route_socket), *std::move(probe)));
  bench->side = *std::move(side);
  bench->defaults4_ = *defaults4;
  // Without IPv6 on the host no IPv6 twin can be made, and the defaults are never looked at.
  if (defaults6) bench->defaults6_ = *defaults6;
  return bench;
}

void SocketBench::OnWake() {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t got = read(side->completion_fd(), &ignored, sizeof(ignored));
  while (net::SideJob* job = side->TakeFinished()) static_cast<OnSide*>(job)->Resume();
}

}  // namespace shunt
