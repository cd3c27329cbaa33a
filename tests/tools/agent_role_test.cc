// SPDX-License-Identifier: Apache-2.0
// AgentRole over an accelerator that serves nothing: what it counts of what it is given.

#include "tools/agent_role.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tools/log.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

class NoAccelerator final : public Accelerator {
 public:
  absl::StatusOr<std::string> ServeAs(uint64_t key, Fd, ContainerSpec, std::function<void()> ended) override {
    ended_[key] = std::move(ended);
    return "";
  }
  uint64_t NewKey() override { return ++last_key_; }
  absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd>, std::function<void()> ended) override {
    ended_[key] = std::move(ended);
    return "";
  }
  bool Serves(int) const override { return false; }
  absl::Status TakeOver(uint64_t, Fd) override { return absl::OkStatus(); }
  void Begin() override {}
  void Halt() override {}
  int event_fd() const override { return -1; }
  void HandleEvents() override {}
  std::string LocksInForce() const override { return ""; }
  bool CanPublish() const override { return true; }
  std::vector<CounterValue> Counters() const override { return {}; }
  const RequestTimes* request_times() const override { return nullptr; }
  std::vector<ReactorStatus> Reactors() const override { return {}; }
  std::vector<ContainerStatus> Containers() const override { return {}; }
  void CallRoll(std::function<void()>) override {}
  void Balance(std::vector<net::ServiceSpec>, std::string, bool) override {}
  void Remember(std::vector<net::FoundBackends>) override {}
  absl::Status TellBackend(std::string_view, std::string_view, const net::BackendCommand&) override {
    return absl::OkStatus();
  }
  std::vector<net::ServiceReport> DescribeServices() const override { return {}; }

  void End(uint64_t key) { std::exchange(ended_[key], nullptr)(); }

 private:
  uint64_t last_key_ = 100;
  std::map<uint64_t, std::function<void()>> ended_;
};

class AgentRoleTest : public ::testing::Test {
 protected:
  AgentRoleTest()
      : role_(
            {}, [] {}, [](HoldingName, std::span<const int>) {}, [](HoldingName) {}, [](HoldingName) {}) {
    log::Start(log::Level::kInfo);
    EngineRole::Given given;
    given[{HoldingTag::kSettings, 0}].push_back(*AgentSettings{.socket = "/none"}.ToFile());
    EXPECT_TRUE(role_.Prepare(accelerator_, given).ok());
  }

  // As an engine before this one has held it.
  void Adopt(uint64_t key, const std::string& name) {
    std::vector<Fd> held;
    held.emplace_back(dup(STDERR_FILENO));  // its listener, which nobody looks at
    held.push_back(*MemoryFor({.name = name, .owner = 1000, .publish = {*net::ParsePublish("8080:80")}}));
    EXPECT_TRUE(role_.Adopt(key, std::move(held)).ok());
  }
  // What the log says of it.
  std::string End(uint64_t key) {
    ::testing::internal::CaptureStderr();
    accelerator_.End(key);
    return ::testing::internal::GetCapturedStderr();
  }

  NoAccelerator accelerator_;
  AgentRole role_;
};

TEST_F(AgentRoleTest, CountsWhatItIsGivenAgainOnce) {
  // The engine before this one has found out about the container's network meanwhile.
  Adopt(2, "first");
  Adopt(2, "first");
  Adopt(3, "other");
  EXPECT_THAT(End(2), HasSubstr("container first: ended (1 listeners left, of 1 containers)"));
  EXPECT_THAT(End(3), HasSubstr("container other: ended (0 listeners left, of 0 containers)"));
}

TEST_F(AgentRoleTest, CountsEachListenerOfOneContainer) {
  Adopt(2, "first");
  Adopt(3, "first");
  EXPECT_THAT(End(2), HasSubstr("ended (1 listeners left, of 1 containers)"));
  EXPECT_THAT(End(3), HasSubstr("ended (0 listeners left, of 0 containers)"));
}

}  // namespace
}  // namespace shunt
