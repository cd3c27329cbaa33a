// SPDX-License-Identifier: Apache-2.0
#include "core/desk.h"

#include <algorithm>

namespace shunt {

MountTable::Place* MountTable::Add(uint64_t mount, pid_t tid, uint64_t fingerprint) {
  for (Place& place : places) {
    uint64_t free = 0;
    if (!place.mount.compare_exchange_strong(free, mount)) continue;
    place.fingerprint.store(fingerprint);
    place.tid.store(tid);
    return &place;
  }
  return nullptr;
}

MountTable::Place* MountTable::Find(uint64_t mount) {
  const auto found = std::ranges::find_if(places, [&](const Place& place) { return place.mount == mount; });
  return mount != 0 && found != places.end() ? &*found : nullptr;
}

MountTable::Place* MountTable::FindFor(pid_t tid, uint64_t fingerprint) {
  const auto found = std::ranges::find_if(places, [&](const Place& place) {
    return place.mount != 0 && place.tid == tid && place.fingerprint == fingerprint;
  });
  return found != places.end() ? &*found : nullptr;
}

void MountTable::Remove(uint64_t mount) {
  if (Place* const place = Find(mount)) place->mount.compare_exchange_strong(mount, 0);
}

void MountTable::Forget(bool (*is_gone)(uint64_t mount)) {
  for (Place& place : places) {
    uint64_t mount = place.mount;
    if (mount != 0 && is_gone(mount)) place.mount.compare_exchange_strong(mount, 0);
  }
}

bool MountTable::empty() const {
  return std::ranges::all_of(
      places, [](const Place& place) { return place.mount.load(std::memory_order_relaxed) == 0; });
}

}  // namespace shunt
