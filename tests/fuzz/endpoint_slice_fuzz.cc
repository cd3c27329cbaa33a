// SPDX-License-Identifier: Apache-2.0
// An answer of the API server about EndpointSlices, with any bytes: backends as they can be, each once, or an
// error in bounds.

#include <set>
#include <string>

#include "core/check.h"
#include "tools/endpoint_slice.h"
#include "tools/service_values.h"

namespace {

constexpr size_t kLongestError = 2000;

void CheckError(const absl::Status& status) {
  SHUNT_CHECK(status.ok() || (!status.message().empty() && status.message().size() < kLongestError));
}

void CheckBackends(const shunt::EndpointSlices& slices) {
  for (const char* port : {"", "http", "8080"}) {
    const absl::StatusOr<shunt::EndpointSlices::Backends> found = slices.BackendsAt(port);
    CheckError(found.status());
    if (!found.ok()) continue;
    CheckError(found->missing);
    std::set<std::string> addresses;
    for (const shunt::net::BackendSpec& backend : found->list) {
      const std::string text = backend.address.ToString();
      const absl::StatusOr<shunt::net::SockAddr> again = shunt::ParseBackendAddress(text);
      SHUNT_CHECK(again.ok() && *again == backend.address);
      SHUNT_CHECK(addresses.insert(text).second);
    }
  }
}

void Put(const nlohmann::json& object, shunt::EndpointSlices& slices) {
  SHUNT_CHECK(!shunt::KubeNameOf(object).empty());
  absl::StatusOr<shunt::EndpointSlice> slice = shunt::ReadSlice(object);
  CheckError(slice.status());
  if (slice.ok()) CheckError(slices.Put(*std::move(slice)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  shunt::EndpointSlices slices;
  absl::StatusOr<shunt::KubePage> page = shunt::ReadKubePage(text, shunt::kEndpointSlices);
  CheckError(page.status());
  if (page.ok()) {
    SHUNT_CHECK(!page->version.empty());
    for (const nlohmann::json& object : page->objects) Put(object, slices);
  }
  absl::StatusOr<shunt::KubeEvent> event = shunt::ReadKubeEvent(text, shunt::kEndpointSlices);
  CheckError(event.status());
  if (event.ok() && event->what == shunt::KubeEvent::What::kChanged) Put(event->object, slices);
  CheckBackends(slices);
  return 0;
}
