// SPDX-License-Identifier: Apache-2.0
#include "tools/stored_holdings.h"

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace shunt {
namespace {

constexpr absl::string_view kPrefix = "shunt";

std::string StoredName(HoldingName name, size_t index) {
  return absl::StrCat(kPrefix, ".", static_cast<uint32_t>(name.tag), ".", name.id, ".", index);
}

struct Place {
  HoldingName name;
  size_t index = 0;
};

// Only what StoredName() would write.
std::optional<Place> ParsePlace(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '.');
  uint32_t tag = 0;
  Place place;
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[1], &tag) || !absl::SimpleAtoi(parts[2], &place.name.id) ||
      !absl::SimpleAtoi(parts[3], &place.index)) {
    return std::nullopt;
  }
  place.name.tag = static_cast<HoldingTag>(tag);
  if (tag == 0 || tag > kHighestHoldingTag || place.index >= kHoldingDescriptors) return std::nullopt;
  if (StoredName(place.name, place.index) != text) return std::nullopt;
  return place;
}

bool Is(int fd, int option, int value) {
  int found = 0;
  socklen_t size = sizeof(found);
  return getsockopt(fd, SOL_SOCKET, option, &found, &size) == 0 && found == value;
}

bool IsListeningUnixStream(int fd) {
  return Is(fd, SO_DOMAIN, AF_UNIX) && Is(fd, SO_TYPE, SOCK_STREAM) && Is(fd, SO_ACCEPTCONN, 1);
}

}  // namespace

void StoreHolding(ServiceManager& manager, const Holding& holding) {
  for (size_t i = 0; i < holding.fds().size(); ++i) {
    manager.Store(StoredName(holding.name(), i), holding.fds()[i]);
  }
}

void RemoveHolding(ServiceManager& manager, const Holding& holding) {
  for (size_t i = 0; i < holding.fds().size(); ++i) manager.Remove(StoredName(holding.name(), i));
}

Adopted AdoptPassed(ServiceManager& manager) {
  Adopted result;
  const auto refuse = [&](const std::string& name) {
    manager.Remove(name);
    ++result.refused;
  };
  std::map<HoldingName, std::array<Fd, kHoldingDescriptors>> found;
  for (ServiceManager::Passed& passed : manager.TakePassed()) {
    if (const std::optional<Place> place = ParsePlace(passed.name)) {
      Fd& fd = found[place->name][place->index];
      if (fd.valid()) {
        refuse(passed.name);  // both of one name: who knows which is right
        fd.reset();
      } else {
        fd = std::move(passed.fd);
      }
    } else if (!result.activated.valid() && IsListeningUnixStream(passed.fd.get())) {
      result.activated = std::move(passed.fd);
    } else {
      refuse(passed.name);
    }
  }
  for (auto& [name, fds] : found) {
    Adopted::One one{.name = name};
    for (size_t i = 0; i < fds.size(); ++i) {
      if (!fds[i].valid()) continue;
      if (one.fds.size() == i) {
        one.fds.push_back(std::move(fds[i]));
      } else {
        refuse(StoredName(name, i));
        fds[i].reset();
      }
    }
    if (!one.fds.empty()) result.holdings.push_back(std::move(one));
  }
  return result;
}

}  // namespace shunt
