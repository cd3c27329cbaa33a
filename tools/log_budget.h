// SPDX-License-Identifier: Apache-2.0
// LogBudget: how many lines one user's mistakes may cost in the log: some at once, then one each second. So
// whoever makes mistakes for a pastime fills no disk and hides nobody else's lines.
//
// Control thread.

#pragma once

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <utility>

namespace shunt {

class LogBudget {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int kAtOnce = 20;
  static constexpr std::chrono::seconds kEach{1};

  // Nothing: this line is to be left out. Else how many of this user's were, since the last one that was not.
  std::optional<size_t> Spend(uid_t uid, Clock::time_point now) {
    // What is not known any more is as if it had never been.
    std::erase_if(accounts_, [now](const auto& entry) {
      return entry.second.full_again <= now && entry.second.left_out == 0;
    });
    Account& account = accounts_.try_emplace(uid, Account{.full_again = now}).first->second;
    account.full_again = std::max(account.full_again, now);
    if (account.full_again + kEach > now + kAtOnce * kEach) {
      ++account.left_out;
      return std::nullopt;
    }
    account.full_again += kEach;
    return std::exchange(account.left_out, 0);
  }

 private:
  struct Account {
    Clock::time_point full_again;  // when all that may be spent at once is there, if nothing more is spent
    size_t left_out = 0;
  };
  std::map<uid_t, Account> accounts_;
};

}  // namespace shunt
