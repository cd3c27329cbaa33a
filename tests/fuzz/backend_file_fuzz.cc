// SPDX-License-Identifier: Apache-2.0
// A file of backends, with any bytes: read, or refused by a status. No exception of the YAML library gets
// out, and every backend is there once, with an address that can be connected to.

#include <set>
#include <string>

#include "core/check.h"
#include "tools/service_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto backends = shunt::ParseBackendFile({reinterpret_cast<const char*>(data), size}, "orders.yaml");
  if (!backends.ok()) {
    SHUNT_CHECK(!backends.status().message().empty());
    return 0;
  }
  std::set<std::string> seen;
  for (const shunt::net::BackendSpec& backend : *backends) {
    SHUNT_CHECK(backend.address.valid() && backend.address.port() != 0);
    SHUNT_CHECK(backend.weight <= shunt::net::kMostWeight);
    SHUNT_CHECK(seen.insert(backend.address.ToString()).second);
  }
  return 0;
}
