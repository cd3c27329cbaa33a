// SPDX-License-Identifier: Apache-2.0
// The agent's configuration file, with any bytes: read, or refused by a status. No exception of the YAML
// library gets out, and the services that are read are what a balancer can work with.

#include "core/check.h"
#include "tools/agent_config.h"
#include "tools/service_config.h"
#include "tools/service_values.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = shunt::ParseAgentConfig({reinterpret_cast<const char*>(data), size}, "agent.yaml");
  if (!config.ok()) {
    SHUNT_CHECK(!config.status().message().empty());
    return 0;
  }
  for (const shunt::net::ServiceSpec& service : config->services) {
    SHUNT_CHECK(!service.name.empty() && !service.addresses.empty());
    SHUNT_CHECK(!service.backends.empty() || !service.discover.none());
    SHUNT_CHECK(service.connect.attempts >= 1 && service.health.timeout <= service.health.interval);
    for (const shunt::net::ServiceAddress& address : service.addresses) {
      const auto again = shunt::ParseServiceAddress(shunt::ServiceAddressText(address));
      SHUNT_CHECK(again.ok() && *again == address && address.first_port <= address.last_port);
    }
    for (const shunt::net::BackendSpec& backend : service.backends)
      SHUNT_CHECK(backend.address.port() != 0 && !shunt::LeadsToItself(service, backend.address));
  }
  return 0;
}
