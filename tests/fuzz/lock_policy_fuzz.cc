// SPDX-License-Identifier: Apache-2.0
// A request to the privileged lock server, with any bytes. What is accepted must be a policy that can be
// checked and that says the same when it is written down again.

#include "core/check.h"
#include "net/lock_policy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shunt::net;
  const auto policy = DecodeLockPolicy({reinterpret_cast<const std::byte*>(data), size});
  if (!policy.ok()) return 0;
  SHUNT_CHECK(CheckLockPolicy(*policy).ok());
  const std::string wire = EncodeLockPolicy(*policy);
  const auto again = DecodeLockPolicy({reinterpret_cast<const std::byte*>(wire.data()), wire.size()});
  SHUNT_CHECK(again.ok() && EncodeLockPolicy(*again) == wire);
  return 0;
}
