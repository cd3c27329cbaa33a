// SPDX-License-Identifier: Apache-2.0
#include "handlers/network_views.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/result.h"
#include "net/netns.h"

namespace shunt {
namespace {

// Networks that no twin may ever reach, whatever the container's own are.
net::SubnetSet AlwaysOrdinary() {
  net::SubnetSet set;
  for (const char* text : {"127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128"}) {
    const absl::StatusOr<net::Subnet> subnet = net::ParseSubnet(text);
    SHUNT_CHECK(subnet.ok() && set.Add(*subnet));
  }
  return set;
}

net::LockPolicy PolicyFor(const net::SubnetSet& ordinary, const std::vector<net::Publish>& publish) {
  net::LockPolicy policy{.deny = ordinary};
  for (const net::Publish& port : publish) {
    const net::IpAddress any4 = net::IpAddress::FromV4({0});
    if (!port.host_ip || (port.host_ip->IsV6() && port.host_ip->IsUnspecified())) {
      policy.listen.push_back({any4, port.host_port});
      policy.listen.push_back({net::IpAddress(), port.host_port});
    } else {
      policy.listen.push_back({*port.host_ip, port.host_port});
    }
  }
  return policy;
}

// What OwnPublishedPort() (handlers/way.h) lets a connection reach, and nothing around it. Twins for other
// connections do not get this: the address of a connect can be exchanged under our hands.
std::vector<net::Endpoint> OwnPorts(const std::vector<net::Publish>& publish) {
  std::vector<net::Endpoint> ports;
  for (const net::Publish& port : publish) {
    if (port.host_ip && !port.host_ip->IsUnspecified()) {
      ports.push_back({*port.host_ip, port.host_port});
      continue;
    }
    ports.push_back({net::IpAddress::FromV4({htonl(INADDR_LOOPBACK)}), port.host_port});
    if (!port.host_ip || port.host_ip->IsV6())
      ports.push_back({net::IpAddress::FromV6(in6addr_loopback), port.host_port});
  }
  return ports;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NetworkViews>> NetworkViews::Create(std::string lock_socket) {
  std::unique_ptr<NetworkViews> views(new NetworkViews(std::move(lock_socket)));
  if (absl::Status status = views->ReadHost(); !status.ok()) return status;
  views->ChooseLocks();
  return views;
}

// What can be locked is found by locking something.
void NetworkViews::ChooseLocks() {
  absl::StatusOr<Fd> program = net::LoadLockProgram(net::LockPolicy{.deny = AlwaysOrdinary()}, lock_socket_);
  if (program.ok()) {
    locks_ = net::SocketLock::Kind::kProgram;
    return;
  }
  why_no_program_ = std::string(program.status().message());
  const auto device = std::find_if(host_->interfaces().begin(), host_->interfaces().end(),
                                   [](const net::Interface& interface) { return !interface.is_loopback; });
  const Fd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (device != host_->interfaces().end() && probe.valid() &&
      net::BindToDevice(probe.get(), device->ifindex)) {
    locks_ = net::SocketLock::Kind::kDevice;
  }
}

std::string NetworkViews::LocksInForce() const {
  switch (locks_) {
    case net::SocketLock::Kind::kProgram:
      return "locks: eBPF socket filter (connects and published ports are confined by the kernel)";
    case net::SocketLock::Kind::kDevice:
      return absl::StrCat(
          "locks: network device only (connects are confined to the device they leave by; nothing is "
          "accelerated for a "
          "container with ignored networks, published ports are forwarded by the network helper); for the "
          "full lock: ",
          why_no_program_);
    case net::SocketLock::Kind::kNone:
      break;
  }
  return absl::StrCat("locks: none, so nothing is accelerated: ", why_no_program_);
}

absl::Status NetworkViews::ReadHost() {
  if (!host_routes_.valid()) {
    Result<Fd> routes = net::OpenRouteSocket();
    if (!routes) return ToStatus(routes.error(), "open a route socket");
    host_routes_ = std::move(*routes);
  }
  absl::StatusOr<net::HostNetwork> host = net::HostNetwork::Read(host_routes_.get());
  if (!host.ok()) return host.status();
  host_ = std::make_shared<const net::HostNetwork>(*std::move(host));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const net::NumberedLock>> NetworkViews::LockFor(
    const net::LockPolicy& policy) {
  // A device lock is new whenever the host's network is: what was made in store for a device that has gone
  // must go, too.
  std::string key = absl::StrCat("device ", host_->generation());
  if (locks_ == net::SocketLock::Kind::kProgram) {
    if (absl::Status status = net::CheckLockPolicy(policy); !status.ok()) return status;
    key = net::EncodeLockPolicy(policy);
  }
  std::shared_ptr<const net::NumberedLock>& lock = lock_by_policy_[key];
  if (lock == nullptr) {
    auto made = std::make_shared<net::NumberedLock>();
    made->number = next_lock_++;
    if (locks_ == net::SocketLock::Kind::kProgram) {
      absl::StatusOr<Fd> program = net::LoadLockProgram(policy, lock_socket_);
      if (!program.ok()) {
        lock_by_policy_.erase(key);
        return program.status();
      }
      made->lock = net::SocketLock::ByProgram(std::move(*program));
    } else {
      made->lock = net::SocketLock::ByDevice();
    }
    lock = std::move(made);
  }
  return lock;
}

absl::Status ReadContainerNetwork(int route_monitor, ContainerNetwork& network) {
  const absl::StatusOr<std::vector<net::IpAddress>> addresses = net::ContainerAddresses(route_monitor);
  if (!addresses.ok()) return addresses.status();
  const absl::StatusOr<net::SubnetSet> networks = net::ContainerNetworks(route_monitor);
  if (!networks.ok()) return networks.status();
  network.networks = *networks;
  network.address_count = std::min(addresses->size(), ContainerNetwork::kAddresses);
  std::copy_n(addresses->begin(), network.address_count, network.addresses.begin());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const NetworkView>> NetworkViews::Make(const ContainerSpec& spec,
                                                                      const ContainerNetwork& network) {
  auto view = std::make_unique<NetworkView>();
  view->ordinary = AlwaysOrdinary();
  if (!view->ordinary.AddAll(network.networks) || !view->ordinary.AddAll(spec.ignore)) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: more than %d networks to keep on the ordinary path", spec.name, net::SubnetSet::kCapacity));
  }
  if (locks_ == net::SocketLock::Kind::kNone ||
      (locks_ == net::SocketLock::Kind::kDevice && network.privileged)) {
    return view;  // without a lock: nothing is accelerated
  }
  net::LockPolicy policy = PolicyFor(view->ordinary, spec.publish);
  absl::StatusOr<std::shared_ptr<const net::NumberedLock>> lock = LockFor(policy);
  if (!lock.ok()) return lock.status();
  view->lock = std::move(*lock);
  if (locks_ == net::SocketLock::Kind::kProgram && !spec.publish.empty()) {
    policy.self = OwnPorts(spec.publish);
    lock = LockFor(policy);
    if (!lock.ok()) return lock.status();
    view->own_ports_lock = std::move(*lock);
    view->own_addresses.assign(network.addresses.begin(),
                               network.addresses.begin() + static_cast<ptrdiff_t>(network.address_count));
  }
  if (locks_ == net::SocketLock::Kind::kDevice) {
    view->host = host_;
    for (const net::Interface& interface : host_->interfaces()) {
      if (host_->Behind(interface.ifindex, spec.ignore)) view->open_devices.push_back(interface.ifindex);
    }
  }
  return view;
}

std::vector<std::shared_ptr<const net::NumberedLock>> NetworkViews::TakeUnusedLocks() {
  std::vector<std::shared_ptr<const net::NumberedLock>> unused;
  for (auto entry = lock_by_policy_.begin(); entry != lock_by_policy_.end();) {
    if (entry->second.use_count() > 1) {
      ++entry;
      continue;
    }
    unused.push_back(std::move(entry->second));
    entry = lock_by_policy_.erase(entry);
  }
  return unused;
}

bool OwnsHostNetwork(pid_t pid) {
  const Fd host(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const Fd owner(host.valid() ? ioctl(host.get(), NS_GET_USERNS) : -1);
  struct stat of_owner {
  }, of_task{};
  // EPERM: the owner is above our own user namespace, and so above the container's, which we could look into.
  if (!owner.valid() || fstat(owner.get(), &of_owner) != 0) return false;
  if (stat(absl::StrFormat("/proc/%d/ns/user", pid).c_str(), &of_task) != 0) return true;
  return of_owner.st_ino == of_task.st_ino && of_owner.st_dev == of_task.st_dev;
}

}  // namespace shunt
