// SPDX-License-Identifier: Apache-2.0
// Sources and health checks in a process that is confined as an engine that serves is: they are made there,
// as after a change of the configuration, and find what changes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <memory>

#include "core/clock.h"
#include "core/confinement.h"
#include "net/balancer/connect_checks.h"
#include "net/discovery/dns_source.h"
#include "net/discovery/file_source.h"
#include "tests/net/discovery/dns_responder.h"
#include "tests/net/discovery/temporary_folder.h"
#include "tests/net/discovery/told.h"
#include "tests/support/sanitized.h"

namespace shunt::net {
namespace {

using testing_support::DnsResponder;
using testing_support::TemporaryFolder;

absl::StatusOr<std::vector<BackendSpec>> ParseOne(const std::string& text, const std::string&) {
  const absl::StatusOr<SockAddr> address = SockAddr::FromText(text);
  if (!address.ok()) return address.status();
  return std::vector<BackendSpec>{{.address = *address}};
}

// What the confined process ends with.
enum Ending : int { kWell, kNotConfined, kNoList, kNoChange, kNoDns, kNoCheck };

// Calls `advance` when something is readable, until `done`.
bool Until(const std::function<bool()>& done, const std::function<void(std::vector<pollfd>&)>& watch,
           const std::function<void()>& advance) {
  const int64_t end = MonotonicNow() + 20'000'000'000;
  while (!done() && MonotonicNow() < end) {
    std::vector<pollfd> watched;
    watch(watched);
    poll(watched.data(), watched.size(), 50);
    advance();
  }
  return done();
}

void Add(int fd, std::vector<pollfd>& watched) {
  watched.push_back({.fd = fd, .events = POLLIN, .revents = 0});
}

Ending WatchFile(const std::string& path, int progress_fd) {
  Told told;
  FileSource source(path, ParseOne, told.Taker());
  source.Advance(MonotonicNow());
  if (source.event_fd() < 0 || told.Take() != std::vector<std::string>{"192.0.2.1:80"}) return kNoList;
  if (write(progress_fd, "1", 1) != 1) return kNoList;
  std::vector<std::string> lists;
  const bool changed = Until([&] { return !lists.empty(); },
                             [&](std::vector<pollfd>& watched) { Add(source.event_fd(), watched); },
                             [&] {
                               source.Advance(MonotonicNow());
                               lists = told.Take();
                             });
  return changed && lists[0] == "192.0.2.2:80" ? kWell : kNoChange;
}

// Over UDP and TCP.
Ending AskDns() {
  DnsResponder server;
  for (int i = 1; i <= 100; ++i)
    server.zone["orders.svc"].push_back(testing_support::A(absl::StrCat("192.0.2.", i)));
  Told told;
  const auto source = DnsSource::Create("orders.svc.:80", told.Taker(), {.servers = server.address()});
  if (!source.ok()) return kNoDns;
  (*source)->Advance(MonotonicNow());
  const bool ended = Until([&] { return !(*source)->asks(); },
                           [&](std::vector<pollfd>& watched) {
                             Add((*source)->event_fd(), watched);
                             server.AddTo(watched);
                           },
                           [&] {
                             server.Serve();
                             (*source)->Advance(MonotonicNow());
                           });
  const std::vector<std::string> lists = told.Take();
  return ended && lists.size() == 1 && lists[0].starts_with("192.0.2.1:80 ") ? kWell : kNoDns;
}

Ending Check() {
  const DnsResponder listens;
  bool seen_up = false;
  const auto checks =
      ConnectChecks::Create([&](uint32_t, uint64_t, bool up, std::string_view, int64_t) { seen_up = up; });
  if (!checks.ok()) return kNoCheck;
  (*checks)->Begin({.address = *SockAddr::FromText(listens.address()), .timeout_ns = 1'000'000'000},
                   MonotonicNow());
  const bool up = Until([&] { return seen_up; },
                        [&](std::vector<pollfd>& watched) { Add((*checks)->event_fd(), watched); },
                        [&] { (*checks)->Advance(MonotonicNow()); });
  return up ? kWell : kNoCheck;
}

TEST(ConfinedTest, SourcesAndChecksDoTheirWorkInAConfinedEngine) {
  if (kSanitized) GTEST_SKIP() << "sanitized builds are confined less";
  const TemporaryFolder folder;
  testing_support::WriteInPlace(folder / "backends", "192.0.2.1:80");
  int progress[2];
  ASSERT_EQ(pipe2(progress, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!ConfineEngine().ok()) _exit(kNotConfined);
    Ending ending = WatchFile(folder / "backends", progress[1]);
    if (ending == kWell) ending = AskDns();
    if (ending == kWell) ending = Check();
    _exit(ending);
  }
  close(progress[1]);
  char byte;
  EXPECT_EQ(read(progress[0], &byte, 1), 1) << "it has not told the first list";
  testing_support::Replace(folder / "backends", "192.0.2.2:80");
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), kWell);
  close(progress[0]);
}

}  // namespace
}  // namespace shunt::net
