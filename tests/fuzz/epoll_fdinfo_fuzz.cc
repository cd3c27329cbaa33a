// SPDX-License-Identifier: Apache-2.0
// The fdinfo of an epoll, with any bytes. The first byte says how it is cut into pieces; the entries must be
// the same however it is.

#include <algorithm>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "net/epoll_fdinfo.h"

namespace {

using shunt::net::EpollEntry;
using shunt::net::EpollFdinfo;

std::vector<EpollEntry> Entries(std::string_view text, size_t most_at_once) {
  std::vector<EpollEntry> entries;
  EpollFdinfo reader;
  while (!text.empty()) {
    SHUNT_CHECK(!reader.room().empty());
    const size_t length = std::min({text.size(), most_at_once, reader.room().size()});
    text.copy(reader.room().data(), length);
    text.remove_prefix(length);
    reader.Take(length, [&](const EpollEntry& entry) {
      SHUNT_CHECK(entry.number >= 0);
      entries.push_back(entry);
    });
  }
  return entries;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  SHUNT_CHECK(Entries(text, size_t{1} + data[0]) == Entries(text, text.size()));
  return 0;
}
