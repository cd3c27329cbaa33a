// SPDX-License-Identifier: Apache-2.0
// DnsSource with servers that the test plays, and virtual time: only c-ares' own time-outs are real.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "net/discovery/dns_source.h"
#include "tests/net/discovery/dns_responder.h"
#include "tests/net/discovery/temporary_folder.h"
#include "tests/net/discovery/told.h"

namespace shunt::net {

inline constexpr int64_t kSecond = 1'000'000'000;

class DnsSourceTest : public testing::Test {
 protected:
  DnsSourceTest() { SetResolvConf("options ndots:1\n"); }

  void SetResolvConf(const std::string& text) {
    testing_support::Replace(folder_ / "resolv.conf", text);
    options_.resolv_conf = folder_ / "resolv.conf";
  }

  void Make(const std::string& dns) {
    if (options_.servers.empty()) options_.servers = server_.address();
    source_ = *DnsSource::Create(dns, told_.Taker(), options_);
  }
  // One turn of all, after something has come for somebody (or nothing, for a moment).
  void Turn() {
    std::vector<pollfd> watched = {{.fd = source_->event_fd(), .events = POLLIN, .revents = 0}};
    server_.AddTo(watched);
    second_.AddTo(watched);
    const int64_t wait_ms = std::clamp<int64_t>((source_->NextDue() - now_) / 1'000'000 + 1, 0, 50);
    poll(watched.data(), watched.size(), static_cast<int>(wait_ms));
    server_.Serve();
    second_.Serve();
    source_->Advance(now_);
  }
  // A round of questions, now. What it tells.
  std::vector<std::string> Round() {
    source_->Advance(now_);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (source_->asks() && std::chrono::steady_clock::now() < end) Turn();
    EXPECT_FALSE(source_->asks());
    return told_.Take();
  }
  // Asks for `dns`, for the first time.
  std::vector<std::string> FirstRound(const std::string& dns) {
    Make(dns);
    return Round();
  }
  // The next round, when it is due. `after` is when that was, in seconds.
  std::vector<std::string> NextRound(double* after = nullptr) {
    if (after != nullptr) *after = static_cast<double>(source_->NextDue() - now_) / 1e9;
    now_ = source_->NextDue();
    return Round();
  }
  double NextIn() const { return static_cast<double>(source_->NextDue() - now_) / 1e9; }

  static auto OpenFiles() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  }

  testing_support::TemporaryFolder folder_;
  testing_support::DnsResponder server_, second_;
  DnsOptions options_;
  Told told_;
  std::unique_ptr<DnsSource> source_;
  int64_t now_ = 1'000'000'000'000;
};

}  // namespace shunt::net
