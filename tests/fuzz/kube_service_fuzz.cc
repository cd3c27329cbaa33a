// SPDX-License-Identifier: Apache-2.0
// An answer of the API server about Services or EndpointSlices, with any bytes: services as they can be, or
// an error in bounds.

#include <set>
#include <string>

#include "core/check.h"
#include "tools/cluster_services.h"
#include "tools/service_values.h"

namespace {

using shunt::ClusterServices;

constexpr size_t kLongestError = 2000;

void CheckError(const absl::Status& status) {
  SHUNT_CHECK(status.ok() || (!status.message().empty() && status.message().size() < kLongestError));
}

void Put(ClusterServices::Part part, const shunt::KubeKind& kind, const std::string& text,
         ClusterServices& cluster) {
  absl::flat_hash_set<std::string> names;
  absl::StatusOr<shunt::KubePage> page = shunt::ReadKubePage(text, kind);
  CheckError(page.status());
  if (page.ok()) {
    for (const nlohmann::json& object : page->objects) {
      names.insert(shunt::KubeNameOf(object));
      cluster.Put(part, object);
    }
  }
  absl::StatusOr<shunt::KubeEvent> event = shunt::ReadKubeEvent(text, kind);
  CheckError(event.status());
  if (event.ok() && event->what == shunt::KubeEvent::What::kChanged) {
    names.insert(shunt::KubeNameOf(event->object));
    cluster.Put(part, event->object);
  }
  if (event.ok() && event->what == shunt::KubeEvent::What::kDeleted) cluster.Remove(part, event->object);
  cluster.Keep(part, names);
}

void CheckFound(const shunt::net::FoundService& found) {
  SHUNT_CHECK(!found.name.empty() && found.name.size() <= 200 && !found.addresses.empty());
  SHUNT_CHECK(found.name.find_first_of(" \n\"\\") == std::string::npos);
  for (const shunt::net::ServiceAddress& address : found.addresses) {
    const auto again = shunt::ParseServiceAddress(shunt::ServiceAddressText(address));
    SHUNT_CHECK(again.ok() && *again == address && shunt::IsOneAddress(address));
    SHUNT_CHECK(address.transport == found.addresses[0].transport);
  }
  std::set<std::string> addresses;
  for (const shunt::net::BackendSpec& backend : found.backends) {
    const std::string text = backend.address.ToString();
    const auto again = shunt::ParseBackendAddress(text);
    SHUNT_CHECK(again.ok() && *again == backend.address && !backend.address.ip().IsLoopback());
    SHUNT_CHECK(addresses.insert(text).second);
  }
}

}  // namespace

// Both kinds in one text, one after the other: "SERVICES\0SLICES".
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  ClusterServices cluster("node-1");
  Put(ClusterServices::Part::kServices, shunt::kKubeServices, text.substr(0, end), cluster);
  Put(ClusterServices::Part::kSlices, shunt::kEndpointSlices,
      end == std::string::npos ? "" : text.substr(end + 1), cluster);
  const shunt::net::FoundChanges changes = cluster.Take();
  SHUNT_CHECK(changes.whole && cluster.Take().empty());
  for (const auto& [name, found] : changes.services) {
    if (found != nullptr) CheckFound(*found);
  }
  for (const std::string& remark : changes.remarks) SHUNT_CHECK(remark.size() < kLongestError);
  return 0;
}
