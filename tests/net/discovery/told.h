// SPDX-License-Identifier: Apache-2.0
// What a source has told: each list as text in one line, each error as "error: ...".

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "net/discovery/source.h"

namespace shunt::net {

class Told {
 public:
  Source::Tell Taker() {
    return [this](const absl::StatusOr<std::vector<BackendSpec>>& told) { told_.push_back(TextOf(told)); };
  }
  // And forgets it.
  std::vector<std::string> Take() { return std::exchange(told_, {}); }
  bool nothing() const { return told_.empty(); }

 private:
  // "192.0.2.1:80", with "*3" for a weight, "+" before a backup.
  static std::string TextOf(const absl::StatusOr<std::vector<BackendSpec>>& told) {
    if (!told.ok()) return absl::StrCat("error: ", told.status().message());
    return absl::StrJoin(*told, " ", [](std::string* out, const BackendSpec& backend) {
      absl::StrAppend(out, backend.backup ? "+" : "", backend.address.ToString());
      if (backend.weight != 1) absl::StrAppend(out, "*", backend.weight);
    });
  }

  std::vector<std::string> told_;
};

}  // namespace shunt::net
