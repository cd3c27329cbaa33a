// SPDX-License-Identifier: Apache-2.0
// What arrives at the agent's socket, with any bytes: first the end of an object is found in the stream, then
// the object is read. The end must be the same however the stream is cut into pieces.

#include <string_view>

#include "core/check.h"
#include "core/intake.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  shunt::ObjectScanner whole;
  const size_t used = whole.Feed(bytes);
  SHUNT_CHECK(used <= size);
  shunt::ObjectScanner bytewise;
  size_t used_bytewise = 0;
  for (const char& byte : bytes) used_bytewise += bytewise.Feed({&byte, 1});
  SHUNT_CHECK(bytewise.done() == whole.done() && bytewise.failed() == whole.failed());
  if (whole.done()) SHUNT_CHECK(used == used_bytewise);
  const auto state = shunt::ParseContainerState(bytes.substr(0, whole.done() ? used : size));
  if (state.ok()) SHUNT_CHECK(!state->id.empty());
  return 0;
}
