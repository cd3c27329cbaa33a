// SPDX-License-Identifier: Apache-2.0
// What people write on the command line and in annotations: addresses, networks, published ports, with any
// bytes. What is accepted must print as something that reads the same.

#include "absl/strings/string_view.h"
#include "core/check.h"
#include "net/publish.h"
#include "net/sock_addr.h"
#include "net/subnet_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shunt::net;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto subnet = ParseSubnet(text); subnet.ok()) {
    const auto again = ParseSubnet(subnet->ToString());
    SHUNT_CHECK(again.ok() && again->ToString() == subnet->ToString());
  }
  if (const auto publish = ParsePublish(text); publish.ok()) {
    const auto again = ParsePublish(publish->ToString());
    SHUNT_CHECK(again.ok() && *again == *publish);
  }
  if (const auto address = SockAddr::FromText(text); address.ok()) {
    const auto again = SockAddr::FromText(address->ToString());
    SHUNT_CHECK(again.ok() && *again == *address);
  }
  return 0;
}
