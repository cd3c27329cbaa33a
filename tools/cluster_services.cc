// SPDX-License-Identifier: Apache-2.0
// ClusterServices: see cluster_services.h. The order here: objects come and go, what follows from them.

#include "tools/cluster_services.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/harmless.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using Part = ClusterServices::Part;

std::string KeyOf(Part part, const std::string& name) {
  return absl::StrCat(part == Part::kServices ? "service " : "slice ", name);
}

// "prod/orders", of a slice "prod/orders-x7k2f" that is its.
std::string OwnerOf(const std::string& slice, const std::string& label) {
  return label.empty() ? "" : absl::StrCat(slice.substr(0, slice.find('/')), "/", label);
}

absl::Status NoRoom(const char* kind, const std::string& name, size_t most, const char* of_what) {
  return absl::ResourceExhaustedError(absl::StrCat(kind, " ", name, ": there is no room for more than ", most,
                                                   " ", of_what, "; say services: NAMESPACE"));
}

}  // namespace

// ---- objects come and go

void ClusterServices::Put(Part part, const Json& object) {
  if (part == Part::kServices) {
    PutService(object);
  } else {
    PutSlice(object);
  }
}

void ClusterServices::PutService(const Json& object) {
  absl::StatusOr<KubeService> service = ReadKubeService(object);
  const std::string name = KubeNameOf(object);
  if (!service.ok()) return Break(KeyOf(Part::kServices, name), name, service.status());
  Mend(KeyOf(Part::kServices, name));
  const auto known = all_.find(name);
  if (known != all_.end() && known->second.service == *service) return;
  const bool is_new = known == all_.end() || !known->second.service;
  if (is_new && services_ >= kMostKubeServices)
    return Break(KeyOf(Part::kServices, name), name, NoRoom("Service", name, kMostKubeServices, "Services"));
  One& one = Touch(name);
  services_ += is_new ? 1 : 0;
  one.service = *std::move(service);
}

void ClusterServices::PutSlice(const Json& object) {
  const std::string name = KubeNameOf(object);
  absl::StatusOr<EndpointSlice> slice = ReadSlice(object);
  const auto known = slices_.find(name);
  if (!slice.ok()) {
    const std::string label = known != slices_.end() ? "" : LabelledServiceOf(object);
    return Break(KeyOf(Part::kSlices, name), known != slices_.end() ? known->second : OwnerOf(name, label),
                 slice.status());
  }
  Mend(KeyOf(Part::kSlices, name));
  const std::string owner = OwnerOf(name, slice->service);
  if (known != slices_.end() && known->second != owner) RemoveSlice(name);
  if (owner.empty()) return;
  const auto its = all_.find(owner);
  const EndpointSlice* const before = its == all_.end() ? nullptr : its->second.slices.Find(slice->name);
  const size_t others = endpoints_ - (before == nullptr ? 0 : before->endpoints.size());
  if (others + slice->endpoints.size() > kMostEndpoints ||
      (before == nullptr && slices_.size() >= kMostEndpoints)) {
    return Break(KeyOf(Part::kSlices, name), owner,
                 NoRoom("EndpointSlice", name, kMostEndpoints, "endpoints or EndpointSlices"));
  }
  One& one = Touch(owner);
  endpoints_ -= one.slices.endpoints();
  one.slices.Replace(*std::move(slice));
  endpoints_ += one.slices.endpoints();
  slices_.insert_or_assign(name, owner);
}

void ClusterServices::Remove(Part part, const Json& object) {
  const std::string name = KubeNameOf(object);
  Mend(KeyOf(part, name));
  if (part == Part::kServices) {
    RemoveService(name);
  } else {
    RemoveSlice(name);
  }
}

void ClusterServices::RemoveService(const std::string& name) {
  const auto known = all_.find(name);
  if (known == all_.end() || !known->second.service) return;
  known->second.service.reset();
  --services_;
  changed_.insert(name);
  ForgetIfNothing(name);
}

void ClusterServices::RemoveSlice(const std::string& name) {
  const auto known = slices_.find(name);
  if (known == slices_.end()) return;
  const std::string owner = std::move(known->second);
  slices_.erase(known);
  One& one = Touch(owner);
  endpoints_ -= one.slices.endpoints();
  one.slices.Remove(name.substr(name.find('/') + 1));
  endpoints_ += one.slices.endpoints();
  ForgetIfNothing(owner);
}

void ClusterServices::Keep(Part part, const absl::flat_hash_set<std::string>& names) {
  std::vector<std::string> gone;
  if (part == Part::kServices) {
    for (const auto& [name, one] : all_) {
      if (one.service && !names.contains(name)) gone.push_back(name);
    }
    for (const std::string& name : gone) RemoveService(name);
  } else {
    for (const auto& [name, owner] : slices_) {
      if (!names.contains(name)) gone.push_back(name);
    }
    for (const std::string& name : gone) RemoveSlice(name);
  }
  std::vector<std::string> mended;
  const std::string prefix = KeyOf(part, "");
  for (const auto& [key, broken] : broken_) {
    if (key.compare(0, prefix.size(), prefix) == 0 && !names.contains(key.substr(prefix.size())))
      mended.push_back(key);
  }
  for (const std::string& key : mended) Mend(key);
  listed_[static_cast<size_t>(part)] = true;
}

void ClusterServices::Break(const std::string& key, const std::string& service, const absl::Status& why) {
  if (broken_.size() >= kMostBroken && !broken_.contains(key)) {
    if (!std::exchange(told_of_broken_, true))
      remarks_.push_back(
          absl::StrCat("more than ", kMostBroken, " Services and EndpointSlices are not taken"));
    return;
  }
  Broken& broken = broken_[key];
  const std::string text(why.message());
  if (broken.why == text && broken.service == service) return;
  if (broken.why != text && mistakes_.size() < kMostBroken) mistakes_.push_back(text);
  if (!broken.service.empty() && broken.service != service) Touch(broken.service).broken.erase(key);
  broken = {.service = service, .why = text};
  if (!service.empty()) Touch(service).broken.insert(key);
}

void ClusterServices::Mend(const std::string& key) {
  const auto broken = broken_.find(key);
  if (broken == broken_.end()) return;
  const std::string service = std::move(broken->second.service);
  broken_.erase(broken);
  if (service.empty()) return;
  Touch(service).broken.erase(key);
  ForgetIfNothing(service);
}

ClusterServices::One& ClusterServices::Touch(const std::string& service) {
  changed_.insert(service);
  return all_[service];
}

// What comes and goes before anything follows leaves nothing.
void ClusterServices::ForgetIfNothing(const std::string& service) {
  const auto known = all_.find(service);
  if (known == all_.end()) return;
  const One& one = known->second;
  if (one.service || one.slices.size() != 0 || !one.broken.empty() || !one.found.empty()) return;
  all_.erase(known);
  changed_.erase(service);
}

// ---- what follows from them

net::FoundChanges ClusterServices::Take() {
  net::FoundChanges changes;
  if (!listed_[0] || !listed_[1]) return changes;
  for (const std::string& name : std::exchange(changed_, {})) {
    const auto one = all_.find(name);
    if (one == all_.end()) continue;
    Make(name, one->second, changes);
    if (!one->second.service && one->second.slices.size() == 0 && one->second.broken.empty()) all_.erase(one);
  }
  changes.whole = !std::exchange(told_, true);
  constexpr size_t kMost = 8;
  std::ranges::sort(mistakes_);
  for (size_t i = 0; i < std::min(mistakes_.size(), kMost); ++i)
    changes.remarks.push_back(absl::StrCat(mistakes_[i], "; it counts as it was before"));
  if (mistakes_.size() > kMost) {
    changes.remarks.push_back(absl::StrCat(mistakes_.size() - kMost,
                                           " more Services and EndpointSlices are not as they should be: "
                                           "they count as they were before"));
  }
  mistakes_.clear();
  for (std::string& remark : std::exchange(remarks_, {})) changes.remarks.push_back(std::move(remark));
  return changes;
}

void ClusterServices::Make(const std::string& service, One& one, net::FoundChanges& changes) {
  std::map<std::string, net::FoundServicePtr> before = std::exchange(one.found, {});
  if (one.service && !one.service->ips.empty()) {
    const std::string trouble = TroubleOf(one);
    for (const KubeService::Port& port : one.service->ports) {
      if (port.protocol != "TCP" && port.protocol != "UDP") {
        if (!std::exchange(told_of_sctp_, true)) {
          remarks_.push_back(absl::StrCat("Service ", service, ": ", Shortened(port.protocol, 32),
                                          " is not balanced: ports of it are left out everywhere"));
        }
        continue;
      }
      net::FoundService made = MakePort(one, port, trouble);
      net::FoundServicePtr& old = before[made.name];
      net::FoundServicePtr& now = one.found[made.name];
      if (old != nullptr && *old == made) {
        now = std::move(old);
      } else {
        now = std::make_shared<const net::FoundService>(std::move(made));
        changes.services[now->name] = now;
      }
      before.erase(now->name);
    }
  }
  for (const auto& [name, gone] : before) changes.services[name] = nullptr;
}

net::FoundService ClusterServices::MakePort(const One& one, const KubeService::Port& port,
                                            const std::string& trouble) {
  const KubeService& service = *one.service;
  net::FoundService made;
  made.name = port.name.empty() ? service.name : absl::StrCat(service.name, ":", port.name);
  const auto transport = port.protocol == "UDP" ? net::Transport::kUdp : net::Transport::kTcp;
  for (const net::IpAddress& ip : service.ips)
    made.addresses.push_back({net::Subnet(ip, ip.IsV4() ? 32 : 128), port.number, port.number, transport});
  made.sticky = service.by_client;
  made.sticky_for = service.client_for;
  std::string node;
  if (service.local) {
    node = node_;
    if (node_.empty() && !std::exchange(told_of_node_, true)) {
      remarks_.push_back(absl::StrCat("Service ", service.name,
                                      " wants endpoints of its own node (internalTrafficPolicy: Local), and "
                                      "the node's name is not known: those of all nodes are used; say "
                                      "node-name: NAME, or give the agent NODE_NAME"));
    }
  }
  EndpointSlices::Backends backends = one.slices.BackendsOf(
      {.port = port.name, .protocol = port.protocol, .node = node, .except = service.ips});
  made.backends = std::move(backends.list);
  made.trouble = trouble;
  if (!backends.missing.ok())
    absl::StrAppend(&made.trouble, trouble.empty() ? "" : "; ", std::string(backends.missing.message()));
  return made;
}

std::string ClusterServices::TroubleOf(const One& one) const {
  if (one.broken.empty()) return "";
  const std::string first = *std::ranges::min_element(one.broken);
  const size_t more = one.broken.size() - 1;
  return absl::StrCat(broken_.at(first).why, more == 0 ? "" : absl::StrCat(" (and ", more, " more)"),
                      ": it counts as it was before");
}

}  // namespace shunt
