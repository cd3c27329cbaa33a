// SPDX-License-Identifier: Apache-2.0
// Identity: with whose rights a caller acts on files, as /proc/TID/status tells it.
//
// The numbers are those of the user namespace of whoever reads: a worker that has entered the caller's reads
// what it can use at once.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/result.h"

namespace shunt {

struct Identity {
  struct Ids {
    uint32_t real = 0, effective = 0, saved = 0, filesystem = 0;
    friend bool operator==(const Ids&, const Ids&) = default;
  };
  Ids user, group;
  uint64_t capabilities = 0;  // the effective ones
  uint32_t umask = 0;
  size_t group_count = 0;
  static constexpr size_t kGroups = 1024;
  std::array<uint32_t, kGroups> groups;  // the supplementary ones

  std::span<const uint32_t> supplementary() const { return {groups.data(), group_count}; }
};

// Its numbers: the process's in the reader's pid namespace, and both in its own.
struct PidNumbers {
  pid_t process = 0;
  pid_t inner_process = 0;
  pid_t inner_thread = 0;
};

// Reads the text of a status file. EINVAL: a line is missing, or is not as expected. E2BIG: more groups than
// kGroups. Pure.
Result<void> ParseIdentity(std::string_view status, Identity& into);
// EINVAL: as above.
Result<PidNumbers> ParsePidNumbers(std::string_view status);

// The capabilities and ids of the calling thread, which is its process's only one. Knows what is in force, so
// that nothing is set that is set already.
class Guise {
 public:
  // EPERM: this process has not got the capabilities that it takes (setuid, setgid, setpcap).
  static Result<Guise> Take();

  // All capabilities that this process may have, for work that is its own.
  Result<void> TakeOff();
  // The caller's rights: ids, groups, umask, and of its effective capabilities those that we have at all.
  Result<void> PutOn(const Identity& identity);
  // The rights of the last PutOn(), after a TakeOff() or a Raise().
  Result<void> PutOnAgain() { return SetEffective(last_.capabilities & own_); }
  // The rights of the last PutOn() and these capabilities, as far as we have them.
  Result<void> Raise(uint64_t capabilities) {
    return SetEffective((last_.capabilities | capabilities) & own_);
  }

 private:
  explicit Guise(uint64_t own) : own_(own), in_force_(own) {}
  Result<void> SetEffective(uint64_t capabilities);
  Result<void> SetIds(const Identity& identity);

  uint64_t own_;
  uint64_t in_force_;  // effective
  bool worn_ = false;  // the ids in `last_` are in force; its groups always are
  Identity last_;      // whose rights were put on last
  // Groups that this user namespace has no number for look alike, and like the one that may have 65534 in it:
  // those that we had from the start are only taken for a caller's if they cannot be set.
  bool groups_known_ = false;
};

}  // namespace shunt
