// SPDX-License-Identifier: Apache-2.0
// An address as a program passes it to connect(2), with any bytes. What is accepted must survive being
// written down and read again, both as bytes and as text.

#include "core/check.h"
#include "net/sock_addr.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using shunt::net::SockAddr;
  const auto address = SockAddr::Parse({reinterpret_cast<const std::byte*>(data), size});
  if (!address) return 0;
  const auto again = SockAddr::Parse({reinterpret_cast<const std::byte*>(address->data()), address->size()});
  SHUNT_CHECK(again && *again == *address);
  const auto from_text = SockAddr::FromText(address->ToString());
  SHUNT_CHECK(from_text.ok() && from_text->ip() == address->ip() && from_text->port() == address->port());
  return 0;
}
