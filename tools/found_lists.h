// SPDX-License-Identifier: Apache-2.0
// FoundLists: what the sources of services have found, as a file in memory that the keeper holds while
// engines come and go. So a source that is away is no worse for a new engine than for the one before.
//
// A line of JSON for each service, and for each that a source has found. All of it is written anew when some
// of it is new; the lines of the others are there already. 10,000 backends are 200 to 700 KiB.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/fd.h"
#include "net/balancer/found.h"
#include "tools/keeper_protocol.h"

namespace shunt {

// Under a tag that every keeper knows: one of an earlier version may be the keeper of this engine.
inline constexpr HoldingName kFoundLists = {HoldingTag::kSettings, 1};

// What affinities with a timeout remember (net/balancer/affinity_memory.h): the file itself, which all
// engines write to.
inline constexpr HoldingName kAffinities = {HoldingTag::kSettings, 3};

class FoundLists {
 public:
  // Takes the place of what was known of the same services.
  void Note(const std::vector<net::FoundBackends>& found);

  absl::StatusOr<Fd> ToFile() const;
  static absl::StatusOr<std::vector<net::FoundBackends>> FromFile(int fd);

 private:
  struct Lines {
    std::string own;
    // Of services that were found: the same object has the same line.
    absl::flat_hash_map<net::FoundServicePtr, std::string> found;
  };
  std::map<std::string, Lines> lines_;  // by service
};

}  // namespace shunt
