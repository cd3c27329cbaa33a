// SPDX-License-Identifier: Apache-2.0
// net/rtnetlink.h and net/netns.h on the simulated networks: linked instead of the real files, because what
// they ask the kernel (netlink dumps, a child in another namespace) has nothing to do with the engine's
// schedule.

#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/netns.h"
#include "net/rtnetlink.h"
#include "net/subnet_set.h"
#include "tests/sim/kernel.h"
#include "tests/sim/places.h"
#include "tests/sim/world.h"

namespace shunt::sim {

net::IpAddress Ip(const char* text) {
  return *net::IpAddress::Parse(text);
}

bool MayBeReached(const net::IpAddress& ip, uint16_t port) {
  if (ip.IsLoopback()) return port == kPublishedHostPort;
  if (ip.IsUnspecified()) return false;
  if (net::ParseSubnet(kContainerNetwork)->Contains(ip)) return false;
  return !Kernel::Get().ignores || !net::ParseSubnet(kIgnored)->Contains(ip);
}

bool CanBindTo(uint64_t netns, const net::IpAddress& ip) {
  if (ip.IsUnspecified() || ip.IsLoopback()) return true;
  return ip == Ip(netns == kHostNetns ? kHostAddress : kContainerAddress);
}

namespace {

std::shared_ptr<FdTable> Table() {
  return Fiber::Current()->table;
}

uint64_t NetnsOf(int fd) {
  const FileRef file = Table()->Get(fd);
  if (const auto netlink = std::dynamic_pointer_cast<NetlinkFile>(file)) return netlink->netns;
  if (const auto monitor = std::dynamic_pointer_cast<RouteMonitorFile>(file)) return monitor->netns;
  if (const auto socket = std::dynamic_pointer_cast<Socket>(file)) return socket->netns;
  World::Get().Wrong("descriptor %d has no network", fd);
}

Fd OpenMonitorOf(uint64_t netns) {
  auto monitor = std::make_shared<RouteMonitorFile>();
  monitor->netns = netns;
  return Fd(Table()->Add(std::move(monitor), true));
}

}  // namespace
}  // namespace shunt::sim

namespace shunt::net {

using sim::World;

Result<Fd> OpenRouteSocket() {
  World::Get().Enter("open a route socket");
  if (const int error = World::Get().Fault({EMFILE, ENFILE, ENOMEM}); error != 0) return Fail(error);
  auto netlink = std::make_shared<sim::NetlinkFile>();
  netlink->netns = sim::kHostNetns;
  netlink->mount = sim::kSocketMount;
  return Fd(sim::Table()->Add(std::move(netlink), true));
}

Result<Fd> OpenRouteMonitor() {
  World::Get().Enter("open a route monitor");
  if (const int error = World::Get().Fault({EMFILE, ENFILE, ENOMEM}); error != 0) return Fail(error);
  return sim::OpenMonitorOf(sim::kHostNetns);
}

bool DrainChanges(int monitor_fd) {
  World::Get().Enter("drain a route monitor", monitor_fd);
  const auto monitor = sim::Table()->GetAs<sim::RouteMonitorFile>(monitor_fd);
  if (monitor == nullptr) World::Get().Wrong("descriptor %d is no route monitor", monitor_fd);
  return std::exchange(monitor->changed, false);
}

absl::StatusOr<std::vector<Interface>> DumpInterfaces(int route_socket_fd) {
  World::Get().Enter("dump interfaces", route_socket_fd);
  if (const int error = World::Get().Fault({ENOBUFS, ENOMEM}); error != 0)
    return ToStatus(Errno{error}, "dump");
  sim::NetnsOf(route_socket_fd);
  return std::vector<Interface>{{.ifindex = 1, .name = "lo", .is_loopback = true},
                                {.ifindex = sim::kHostDevice, .name = "eth0"}};
}

absl::StatusOr<std::vector<InterfaceAddress>> DumpAddresses(int route_socket_fd) {
  World::Get().Enter("dump addresses", route_socket_fd);
  if (const int error = World::Get().Fault({ENOBUFS, ENOMEM}); error != 0)
    return ToStatus(Errno{error}, "dump");
  const bool host = sim::NetnsOf(route_socket_fd) == sim::kHostNetns;
  const Subnet loopback = *ParseSubnet("127.0.0.0/8");
  const Subnet own = *ParseSubnet(host ? "203.0.113.0/24" : sim::kContainerNetwork);
  const IpAddress ip = sim::Ip(host ? sim::kHostAddress : sim::kContainerAddress);
  return std::vector<InterfaceAddress>{
      {.ifindex = 1,
       .ip = sim::Ip("127.0.0.1"),
       .network = loopback,
       .is_loopback_device = true,
       .name = "lo"},
      {.ifindex = sim::kHostDevice, .ip = ip, .network = own, .name = "eth0"}};
}

absl::StatusOr<std::vector<Route>> DumpRoutes(int route_socket_fd) {
  World::Get().Enter("dump routes", route_socket_fd);
  return std::vector<Route>{
      {.destination = *ParseSubnet("0.0.0.0/0"), .ifindex = sim::kHostDevice, .type = RTN_UNICAST}};
}

Result<RouteAnswer> LookUpRoute(int route_socket_fd, const IpAddress& destination) {
  World::Get().Enter("look a route up", route_socket_fd);
  if (const int error = World::Get().Fault({ENETUNREACH, EHOSTUNREACH, ENOBUFS}); error != 0)
    return Fail(error);
  if (destination.IsLoopback()) return RouteAnswer{.ifindex = 1, .type = RTN_LOCAL};
  return RouteAnswer{.ifindex = sim::kHostDevice, .type = RTN_UNICAST, .source = sim::Ip(sim::kHostAddress)};
}

Result<uint64_t> NetnsCookie(int socket_fd) {
  World::Get().Enter("read a netns cookie", socket_fd);
  const sim::FileRef file = sim::Table()->Get(socket_fd);
  if (file == nullptr) World::Get().Wrong("descriptor %d is not open", socket_fd);
  if (std::dynamic_pointer_cast<sim::Socket>(file) == nullptr) return Fail(ENOTSOCK);
  return sim::NetnsOf(socket_fd);
}

absl::StatusOr<uint64_t> OwnNetnsCookie() {
  return sim::kHostNetns;
}

int FirstUnprivilegedPort() {
  return 1024;  // the kernel's own default
}

absl::StatusOr<NetnsVisit> VisitNetns(pid_t tid, int sockets_of_each_family) {
  World& world = World::Get();
  world.Enter("visit the network of", tid);
  if (const int error = world.Fault({EMFILE, ENOMEM, EAGAIN}); error != 0)
    return ToStatus(Errno{error}, "visit");
  const std::shared_ptr<sim::Task> task = sim::Kernel::Get().FindTask(tid);
  if (task == nullptr) return absl::NotFoundError("the task has gone");
  if (task->hidden) return absl::PermissionDeniedError("the task hides");
  const std::shared_ptr<sim::FdTable> table = sim::Table();
  NetnsVisit visit;
  visit.cookie = task->process->netns;
  visit.route_monitor = sim::OpenMonitorOf(visit.cookie);
  const auto make = [&](int family) {
    auto socket = std::make_shared<sim::Socket>(family, SOCK_STREAM, IPPROTO_TCP, visit.cookie);
    socket->flags |= O_NONBLOCK;
    return Fd(table->Add(std::move(socket), true));
  };
  for (int i = 0; i < sockets_of_each_family; ++i) {
    visit.tcp4.Add(make(AF_INET));
    visit.tcp6.Add(make(AF_INET6));
  }
  return visit;
}

}  // namespace shunt::net
