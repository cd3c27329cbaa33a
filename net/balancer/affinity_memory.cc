// SPDX-License-Identifier: Apache-2.0
#include "net/balancer/affinity_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "core/result.h"

namespace shunt::net {
namespace {

// Changes with the layout.
constexpr uint64_t kAffinityMagic = 0x31'79'74'69'6e'66'61;  // "afinity1"

constexpr int64_t kUnit = 1'000'000;  // of what is written down of a time, in ns

}  // namespace

absl::StatusOr<std::unique_ptr<AffinityMemory>> AffinityMemory::Map(Fd file) {
  void* const memory = mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return ToStatus({errno}, "map the memory of affinities");
  return std::unique_ptr<AffinityMemory>(new AffinityMemory(std::move(file), static_cast<Table*>(memory)));
}

absl::StatusOr<std::unique_ptr<AffinityMemory>> AffinityMemory::Create() {
  Fd file(memfd_create("shunt-affinity", MFD_CLOEXEC));
  if (!file.valid() || ftruncate(file.get(), sizeof(Table)) != 0)
    return ToStatus({errno}, "make the memory of affinities");
  absl::StatusOr<std::unique_ptr<AffinityMemory>> made = Map(std::move(file));
  // The places are zero, which is how they begin; to write that would take the memory.
  if (made.ok()) (*made)->table_->magic = kAffinityMagic;
  return made;
}

absl::StatusOr<std::unique_ptr<AffinityMemory>> AffinityMemory::Open(Fd file) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return ToStatus({errno}, "look at the memory of affinities");
  if (status.st_size != sizeof(Table))
    return absl::InvalidArgumentError("a memory of affinities of another size than ours");
  absl::StatusOr<std::unique_ptr<AffinityMemory>> opened = Map(std::move(file));
  if (opened.ok() && (*opened)->table_->magic != kAffinityMagic)
    return absl::InvalidArgumentError("a memory of affinities of another layout than ours");
  return opened;
}

AffinityMemory::~AffinityMemory() {
  munmap(table_, sizeof(Table));
}

uint64_t AffinityMemory::UseWord(const Use& use) {
  constexpr uint64_t kOwner = (uint64_t{1} << kOwnerBits) - 1;
  return static_cast<uint64_t>(use.now / kUnit) << kOwnerBits | (use.owner & kOwner);
}

bool AffinityMemory::IsOver(uint64_t use_word, const Use& use) {
  const auto used = static_cast<int64_t>(use_word >> kOwnerBits);
  return use.now / kUnit - used > use.timeout / kUnit;
}

AffinityMemory::Entry AffinityMemory::Find(const Use& use) const {
  const uint64_t tag = TagOf(use.key);
  for (Place& place : PlacesOf(use.key)) {
    const uint64_t word = place.word.load(std::memory_order_acquire);
    if (word >> kNameBits != tag) continue;
    if (IsOver(place.use.load(std::memory_order_relaxed), use)) return {};
    return {.backend = word & ((uint64_t{1} << kNameBits) - 1), .place = &place};
  }
  return {};
}

// Its place may be another key's by now: that one lasts a little longer then.
void AffinityMemory::Renew(const Entry& entry, const Use& use) {
  entry.place->use.store(UseWord(use), std::memory_order_relaxed);
}

// Where there is room; else the oldest of the container's own, if it has its share; else the oldest of those
// who have more than theirs; else the oldest.
size_t AffinityMemory::PlaceToGive(const Set& set, uint64_t owner) {
  constexpr uint64_t kOwner = (uint64_t{1} << kOwnerBits) - 1;
  const uint64_t self = owner & kOwner;
  const auto room = std::find(set.words.begin(), set.words.end(), 0);
  if (room != set.words.end()) return static_cast<size_t>(room - set.words.begin());
  const auto share_of = [&](uint64_t of) {
    return static_cast<size_t>(
        std::count_if(set.uses.begin(), set.uses.end(), [&](uint64_t use) { return (use & kOwner) == of; }));
  };
  const auto oldest = [&](auto counts) {
    size_t place = kProbed;
    for (size_t i = 0; i < kProbed; ++i) {
      if (counts(set.uses[i] & kOwner) && (place == kProbed || set.uses[i] < set.uses[place])) place = i;
    }
    return place;
  };
  const size_t place = share_of(self) >= kMostOfOwner
                           ? oldest([&](uint64_t of) { return of == self; })
                           : oldest([&](uint64_t of) { return share_of(of) > kMostOfOwner; });
  return place != kProbed ? place : oldest([](uint64_t) { return true; });
}

uint64_t AffinityMemory::Remember(const Use& use, const Entry& before, uint64_t backend) {
  constexpr uint64_t kName = (uint64_t{1} << kNameBits) - 1;
  const uint64_t tag = TagOf(use.key);
  const std::span<Place, kProbed> places = PlacesOf(use.key);
  // One look at all of it: who decides by it finds out by the exchange whether it has changed. The uses
  // first, which are written before the words.
  Set set;
  for (size_t i = 0; i < kProbed; ++i) set.uses[i] = places[i].use.load(std::memory_order_acquire);
  for (size_t i = 0; i < kProbed; ++i) set.words[i] = places[i].word.load(std::memory_order_acquire);
  const auto known = std::find_if(set.words.begin(), set.words.end(),
                                  [&](uint64_t word) { return word >> kNameBits == tag; });
  size_t place = static_cast<size_t>(known - set.words.begin());
  if (known == set.words.end()) {
    place = PlaceToGive(set, use.owner);
  } else if (const uint64_t theirs = *known & kName;
             theirs != before.backend && !IsOver(places[place].use.load(std::memory_order_relaxed), use)) {
    return theirs;
  }
  places[place].use.store(UseWord(use), std::memory_order_release);
  uint64_t word = set.words[place];
  if (places[place].word.compare_exchange_strong(word, tag << kNameBits | backend,
                                                 std::memory_order_acq_rel) ||
      word >> kNameBits != tag) {
    return backend;  // taken by another key meanwhile: this one is not remembered
  }
  return word & kName;
}

}  // namespace shunt::net
