// SPDX-License-Identifier: Apache-2.0
// Steps on the way of every trapped call or of every connect, between two calls of the kernel.
//
//   dispatch               a notification as the kernel wrote it, to the handler of its call
//   parse-address/v4, v6   a program's bytes to an address
//   subnet-set/N           an address that is in none of N networks
//   service-hit/N, service-miss/N   the service of an address, of N services with an address each
//   histogram-add          the harness' own: a duration counted (bench/histogram.h)

#include <linux/audit.h>
#include <netinet/in.h>
#include <sys/syscall.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bench/histogram.h"
#include "bench/micro/micro.h"
#include "core/dispatch.h"
#include "core/notification.h"
#include "net/balancer/mix.h"
#include "net/balancer/service_table.h"
#include "net/sock_addr.h"
#include "net/subnet_set.h"

namespace shunt::bench {
namespace {

Reply Nothing(Call& /*call*/) {
  return Reply::Continue();
}

void FindHandler(benchmark::State& state) {
  const Route routes[] = {{"connect", Nothing}, {"bind", Nothing}, {"listen", Nothing}, {"mkdir", Nothing}};
  const auto dispatch = std::make_unique<Dispatch>(routes);
  NotificationRoom room;
  auto* const kernels = static_cast<seccomp_notif*>(room.Prepare());
  kernels->id = 1;
  kernels->data.arch = AUDIT_ARCH_X86_64;
  kernels->data.nr = SYS_connect;
  const uint64_t before = HeapCalls();
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels);
    benchmark::ClobberMemory();
    const Notification notification = room.Read();
    benchmark::DoNotOptimize(notification);
    benchmark::DoNotOptimize(dispatch->Find(notification.arch, notification.nr));
  }
  TellAllocations(state, HeapCalls() - before);
}

void ParseAddress(benchmark::State& state, sa_family_t family) {
  sockaddr_in6 bytes{};
  bytes.sin6_family = family;
  bytes.sin6_port = htons(8080);
  bytes.sin6_flowinfo = htonl(0xcb007101);  // where an IPv4 address lies
  bytes.sin6_addr.s6_addr[15] = 1;
  const size_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof bytes;
  const uint64_t before = HeapCalls();
  for (auto _ : state) {
    benchmark::DoNotOptimize(bytes);
    const auto parsed = net::SockAddr::Parse(std::as_bytes(std::span(&bytes, 1)).first(size));
    benchmark::DoNotOptimize(parsed);
  }
  TellAllocations(state, HeapCalls() - before);
}

net::IpAddress Address(uint64_t number) {
  return net::IpAddress(0, uint64_t{0xffff0a} << 24 | number);  // ::ffff:10.x.y.z
}

void LookForSubnet(benchmark::State& state) {
  net::SubnetSet set;
  for (int64_t i = 0; i < state.range(0); ++i) {
    if (!set.Add(net::Subnet(Address(static_cast<uint64_t>(i) << 8), 24)))
      state.SkipWithError("the set is full");
  }
  net::IpAddress elsewhere(0, uint64_t{0xffffcb007101});
  const uint64_t before = HeapCalls();
  for (auto _ : state) {
    benchmark::DoNotOptimize(elsewhere);
    benchmark::DoNotOptimize(set.Contains(elsewhere));
  }
  TellAllocations(state, HeapCalls() - before);
}

void FindService(benchmark::State& state, bool there) {
  const auto count = static_cast<uint64_t>(state.range(0));
  const auto index = std::make_shared<net::ServiceIndex>();
  std::vector<std::shared_ptr<const net::Service>> services;
  for (uint64_t i = 0; i < count; ++i) {
    const auto id = static_cast<uint32_t>(i);
    if (!index->Add({.network = net::Subnet(Address(i), 32), .first_port = 80, .last_port = 80}, id))
      state.SkipWithError("an address twice");
    services.push_back(std::make_shared<net::Service>(net::Service{.id = id}));
  }
  const net::ServiceTable table(index, std::move(services));
  uint64_t number = 0;
  const uint64_t before = HeapCalls();
  for (auto _ : state) {
    const net::SockAddr peer(Address(net::Mix64(number++) % count), there ? 80 : 81);
    const net::Service* const service = table.Find(net::Transport::kTcp, peer);
    if ((service != nullptr) != there) state.SkipWithError("not what was to be found");
  }
  TellAllocations(state, HeapCalls() - before);
}

void AddToHistogram(benchmark::State& state) {
  const auto histogram = std::make_unique<Histogram>();
  uint64_t number = 0;
  const uint64_t before = HeapCalls();
  for (auto _ : state) histogram->Add(static_cast<int64_t>(net::Mix64(number++) & 0xffff));
  benchmark::DoNotOptimize(histogram->size());
  TellAllocations(state, HeapCalls() - before);
}

}  // namespace

void RegisterSteps() {
  benchmark::RegisterBenchmark("dispatch", FindHandler);
  benchmark::RegisterBenchmark("parse-address/v4", ParseAddress, AF_INET);
  benchmark::RegisterBenchmark("parse-address/v6", ParseAddress, AF_INET6);
  benchmark::RegisterBenchmark("subnet-set", LookForSubnet)->Arg(1)->Arg(8)->Arg(64);
  benchmark::RegisterBenchmark("service-hit", FindService, true)->Arg(1)->Arg(100)->Arg(10'000);
  benchmark::RegisterBenchmark("service-miss", FindService, false)->Arg(1)->Arg(100)->Arg(10'000);
  benchmark::RegisterBenchmark("histogram-add", AddToHistogram);
}

}  // namespace shunt::bench
