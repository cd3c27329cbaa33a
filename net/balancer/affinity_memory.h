// SPDX-License-Identifier: Apache-2.0
// AffinityMemory: which backend a key (a container, a user, a process) has got of a service, for as long as
// the service says (ServiceSpec::affinity_timeout).
//
// One for all reactors of an agent, so that containers of one user that different reactors serve agree; and a
// memfd, so that it outlives engines if somebody holds it. An entry is two words, without a lock:
//
//   word   24 bits that tell its key from others, and 40 that tell its backend from others, by its address.
//          Written as a whole by one compare-and-exchange: nobody ever sees half an entry, and a writer that
//          is killed leaves none. Of two reactors that bring the same key the first one has its way: the
//          second sees so and goes there, too.
//   use    when it was used last, in milliseconds, and 24 bits of the container that did. Written before the
//          word, so that nobody takes a new entry for one that is over.
//
// What is found is the name of a backend, not a place in any table: whoever asks looks whether the service
// has one of that name. So slots that are given out again, other engines and other tables do no harm. That
// two addresses of a service have the same 40 bits is known to whoever makes its table, which then remembers
// neither (BackendIndex); that two keys of a service share an entry happens once in a million, and costs
// nothing but that they go together.
//
// A key may lie in eight places. When others have all of them, the one that was used the longest time ago
// goes, over or not, but a container has two of the eight for sure and no more: who has two gives up his own
// for a third, and who has more, from times with room, gives to others first. So a program that brings ever
// new keys (processes, users) takes a quarter of the room from others, and it takes four such to make anybody
// forget who uses what he has. Two
// reactors that bring a new key in the same nanoseconds, where others have all places, may remember it in two
// of them: then the first one counts, and the other gets old.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/limits.h"

namespace shunt::net {

class AffinityMemory {
 public:
  static constexpr size_t kProbed = 8;
  static constexpr size_t kMostOfOwner = kProbed / 4;

  // Forgetful in the beginning.
  static absl::StatusOr<std::unique_ptr<AffinityMemory>> Create();
  // What another engine has filled. The error says why it is of no use.
  static absl::StatusOr<std::unique_ptr<AffinityMemory>> Open(Fd file);
  ~AffinityMemory();
  AffinityMemory(const AffinityMemory&) = delete;
  AffinityMemory& operator=(const AffinityMemory&) = delete;

  int fd() const { return file_.get(); }

  struct Place {
    std::atomic<uint64_t> word{0};
    std::atomic<uint64_t> use{0};
  };

  // A backend, as it is remembered: never 0.
  static constexpr uint64_t NameOf(uint64_t backend_identity) {
    const uint64_t name = backend_identity >> kTagBits;
    return name == 0 ? 1 : name;
  }

  // The rest is for any thread, and neither allocates nor waits. Times are CLOCK_MONOTONIC in ns. `key` is a
  // hash in which each bit depends on all of what makes the key, the service included.
  struct Use {
    uint64_t key = 0;
    uint64_t owner = 0;  // a hash of the container whose connection it is
    int64_t now = 0;
    int64_t timeout = 0;  // what has not been used for longer is over
  };
  struct Entry {
    uint64_t backend = 0;    // its name; 0: the key has none
    Place* place = nullptr;  // null, as well
  };
  Entry Find(const Use& use) const;
  // The connection goes where the entry says.
  void Renew(const Entry& entry, const Use& use);
  // The key has `backend` (its name) from now on, in the place of `before`, which Find() has found. Whom it
  // has indeed: somebody else may have been quicker.
  uint64_t Remember(const Use& use, const Entry& before, uint64_t backend);

 private:
  static constexpr unsigned kTagBits = 24;
  static constexpr unsigned kNameBits = 64 - kTagBits;
  static constexpr unsigned kOwnerBits = 24;
  struct Table {
    uint64_t magic = 0;
    alignas(64) std::array<Place, limits::kRememberedBackends> places;
  };
  static_assert(limits::kRememberedBackends % kProbed == 0);

  AffinityMemory(Fd file, Table* table) : file_(std::move(file)), table_(table) {}
  static absl::StatusOr<std::unique_ptr<AffinityMemory>> Map(Fd file);

  static uint64_t TagOf(uint64_t key) { return key >> kNameBits == 0 ? 1 : key >> kNameBits; }
  std::span<Place, kProbed> PlacesOf(uint64_t key) const {
    const size_t set = key % (limits::kRememberedBackends / kProbed);
    return std::span<Place, kProbed>(&table_->places[set * kProbed], kProbed);
  }
  static uint64_t UseWord(const Use& use);
  static bool IsOver(uint64_t use_word, const Use& use);
  // The places that a key may have, at a glance.
  struct Set {
    std::array<uint64_t, kProbed> words, uses;
  };
  static size_t PlaceToGive(const Set& set, uint64_t owner);

  Fd file_;
  Table* table_;
};

}  // namespace shunt::net
