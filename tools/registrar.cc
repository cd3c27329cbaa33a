// SPDX-License-Identifier: Apache-2.0
#include "tools/registrar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/fd.h"
#include "net/sock_addr.h"
#include "tools/agent_settings.h"
#include "tools/etcd_announcer.h"
#include "tools/log.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

struct HeldAddresses {
  uint64_t container = 0, netns = 0;
  std::vector<net::IpAddress> addresses;
};

std::vector<HeldAddresses> ReadAddresses(int held) try {
  std::vector<HeldAddresses> all;
  const absl::StatusOr<std::string> text = ReadHeldText(held);
  if (!text.ok()) return all;
  for (const Json& json : Json::parse(*text)) {
    HeldAddresses one{.container = json.at("container").get<uint64_t>(),
                      .netns = json.at("netns").get<uint64_t>()};
    for (const Json& address : json.at("addresses")) {
      if (const auto ip = net::IpAddress::Parse(address.get<std::string>()); ip.ok())
        one.addresses.push_back(*ip);
    }
    all.push_back(std::move(one));
  }
  return all;
} catch (const Json::exception&) {
  return {};  // of another version: they are read from the containers again
}

}  // namespace

void AddAnnouncements(std::span<const net::Publish> ports, std::span<const net::IpAddress> addresses,
                      const net::IpAddress& host, Announcements::Keys& keys) {
  for (const net::Publish& port : ports) {
    const net::IpAddress at = port.host_ip.value_or(net::IpAddress());
    if (at.IsLoopback()) continue;  // no other machine gets there
    for (const net::IpAddress& address : addresses) {
      // Of two the first one has it.
      keys.emplace(net::SockAddr(address, port.port).ToString(),
                   net::SockAddr(at.IsUnspecified() ? host : at, port.host_port).ToString());
    }
  }
}

absl::StatusOr<std::unique_ptr<Registrar>> Registrar::Start(const MultinodeConfig& config, int held,
                                                            Hold hold) {
  std::unique_ptr<Registrar> self(new Registrar(config, std::move(hold)));
  if (held >= 0) {
    for (HeldAddresses& one : ReadAddresses(held))
      self->containers_[one.container] = {.netns = one.netns, .addresses = std::move(one.addresses)};
  }
  // One of its own: how long others' names take to look up is not to cost us the lease.
  absl::StatusOr<std::unique_ptr<WatchThread>> thread = WatchThread::Start();
  if (!thread.ok()) return thread.status();
  self->thread_ = *std::move(thread);
  absl::StatusOr<std::unique_ptr<net::Source>> source =
      self->thread_->Watch(std::make_unique<EtcdAnnouncer>(config.etcd, self->announcements_),
                           [raw = self.get()](const absl::StatusOr<std::vector<net::BackendSpec>>& told) {
                             raw->Heard(told.status());
                           });
  if (!source.ok()) return source.status();
  self->source_ = *std::move(source);
  return self;
}

Registrar::Registrar(MultinodeConfig config, Hold hold)
    : config_(std::move(config)), hold_(std::move(hold)), announcements_(std::make_shared<Announcements>()) {}

void Registrar::Heard(const absl::Status& status) {
  if (!status.ok()) {
    log::Warning("multinode: {}", log::Text(status));
  } else if (failing_) {
    log::Info("multinode: all published ports are announced again");
  }
  failing_ = !status.ok();
}

void Registrar::Begin() {
  begun_ = true;
  // Who has not come with the containers that were held has ended.
  std::erase_if(containers_, [](const auto& one) { return one.second.ports.empty(); });
  Announce();
}

void Registrar::Know(uint64_t container, uint64_t netns, std::vector<net::Publish> ports,
                     std::vector<net::IpAddress> addresses) {
  const auto first =
      std::ranges::find_if(containers_, [netns](const auto& one) { return one.second.netns == netns; });
  if (first != containers_.end()) {
    addresses = first->second.addresses;
  } else {
    std::erase_if(addresses, [this](const net::IpAddress& ip) {
      return std::ranges::none_of(config_.networks, [&](const net::Subnet& one) { return one.Contains(ip); });
    });
    if (addresses.size() > kMostAddresses) addresses.resize(kMostAddresses);
  }
  const bool is_new = !containers_.contains(container);
  containers_[container] = {.netns = netns, .ports = std::move(ports), .addresses = std::move(addresses)};
  if (is_new) HoldAddresses();
  if (begun_) Announce();
}

void Registrar::Forget(uint64_t container) {
  if (containers_.erase(container) == 0) return;
  HoldAddresses();
  if (begun_) Announce();
}

void Registrar::Leave() {
  constexpr std::chrono::milliseconds kPatience{2'000};
  announcements_->End();
  thread_->Wake();
  if (!announcements_->AwaitEnd(kPatience))
    log::Warning("multinode: etcd does not answer; what was announced goes within {} s",
                 EtcdAnnouncer::kLease.count());
}

void Registrar::HoldAddresses() const {
  Json all = Json::array();
  for (const auto& [container, entry] : containers_) {
    Json addresses = Json::array();
    for (const net::IpAddress& ip : entry.addresses) addresses.push_back(ip.ToString());
    all.push_back({{"container", container}, {"netns", entry.netns}, {"addresses", std::move(addresses)}});
  }
  if (const absl::StatusOr<Fd> file = HeldText(all.dump()); file.ok()) hold_(file->get());
}

void Registrar::Announce() {
  Announcements::Keys keys;
  for (const auto& [container, entry] : containers_)
    AddAnnouncements(entry.ports, entry.addresses, *config_.host_address, keys);
  const bool too_many = keys.size() > kMostKeys;
  if (too_many && !too_many_)
    log::Warning("multinode: {} ports are published; {} of them are announced", keys.size(), kMostKeys);
  too_many_ = too_many;
  if (too_many) keys.erase(std::next(keys.begin(), kMostKeys), keys.end());
  announcements_->Want(std::move(keys));
  thread_->Wake();
}

}  // namespace shunt
