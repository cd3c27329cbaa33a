// SPDX-License-Identifier: Apache-2.0
// The door: connections are held for every engine, a bounded number of them, and nobody is lost beyond it.

#include "tools/runtime_door.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/socket_file.h"
#include "tests/tools/keeper_stage.h"

namespace shunt {
namespace {

class RuntimeDoorTest : public ::testing::Test {
 protected:
  // The keeper that `stage_` is to have, with a door.
  void Start() {
    absl::StatusOr<SocketFile> socket = SocketFile::Listen(stage_.folder + "/agent.sock");
    ASSERT_TRUE(socket.ok()) << socket.status();
    stage_.Create();
    std::vector<Fd> fds;
    fds.emplace_back(dup(socket->fd()));
    ASSERT_TRUE(stage_.keeper->Hold({HoldingTag::kIntake, 0}, std::move(fds)).ok());
    door_ = std::make_unique<RuntimeDoor>(socket->Release(), *stage_.keeper);
  }

  Fd Connect() const {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    (stage_.folder + "/agent.sock").copy(address.sun_path, sizeof(address.sun_path) - 1);
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0)
        << std::strerror(errno);
    return fd;
  }
  // One turn of the process' loop, as far as it is about the door. False: nobody was let in.
  bool Turn() const {
    const size_t before = Held();
    pollfd ready{door_->fd(), POLLIN, 0};
    if (poll(&ready, 1, 0) == 1) door_->Accept();
    return Held() > before;
  }
  size_t Held() const { return stage_.keeper->holdings().Count(HoldingTag::kIntake) - 1; }

  KeeperStage stage_;
  std::unique_ptr<RuntimeDoor> door_;
};

TEST_F(RuntimeDoorTest, WhoComesWhileThereIsNoEngineIsGivenToAllThatCome) {
  Start();
  const Fd first = Connect(), second = Connect();
  ASSERT_TRUE(Turn());
  stage_.keeper->Begin();
  for (size_t engines = 1; engines <= 2; ++engines) {
    ASSERT_TRUE(stage_.Ready(engines));
    const RemoteEngine* const engine = stage_.NextEngine();
    ASSERT_TRUE(stage_.Until([&] { return engine->Count("give") == 3; }));
    kill(engine->pid, SIGKILL);
  }
  const Fd third = Connect();
  ASSERT_TRUE(Turn());
  const RemoteEngine* const engine = stage_.NextEngine();
  EXPECT_TRUE(stage_.Until([&] { return engine->Count("give") == 4; }));
}

TEST_F(RuntimeDoorTest, HoldsABoundedNumberAndTakesTheNextWhenOneIsDropped) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 4 * RuntimeDoor::kMostHeld)
    GTEST_SKIP() << "needs descriptors, has " << limit.rlim_cur;
  Start();
  stage_.keeper->Begin();
  ASSERT_TRUE(stage_.Ready(1));
  const RemoteEngine* const engine = stage_.NextEngine();
  std::vector<Fd> crowd;
  for (size_t i = 0; i < RuntimeDoor::kMostHeld + 100; ++i) crowd.push_back(Connect());
  while (Turn()) ASSERT_LE(Held(), RuntimeDoor::kMostHeld);
  EXPECT_EQ(Held(), RuntimeDoor::kMostHeld);
  EXPECT_EQ(door_->fd(), -1);
  EXPECT_EQ(door_->timeout(), -1) << "waiting for time to pass is of no use";

  engine->Do("drop 2 1");
  engine->Do("drop 2 2");
  ASSERT_TRUE(stage_.Until([&] { return Held() == RuntimeDoor::kMostHeld - 2; }));
  ASSERT_TRUE(Turn());
  EXPECT_EQ(Held(), RuntimeDoor::kMostHeld);
  const std::string next = "give 2 " + std::to_string(RuntimeDoor::kMostHeld + 2);
  EXPECT_TRUE(stage_.Until([&] {
    return std::any_of(engine->heard.begin(), engine->heard.end(),
                       [&](const std::string& line) { return line.starts_with(next); });
  })) << "names are never used again";
}

TEST_F(RuntimeDoorTest, NamesGoOnBehindThoseOfAnEarlierKeeper) {
  Start();
  const Thing thing;
  ASSERT_TRUE(stage_.keeper->HoldAdopted({HoldingTag::kIntake, 41}, Copies({&thing})).ok());
  door_ = std::make_unique<RuntimeDoor>(Fd(dup(stage_.keeper->holdings().all().begin()->second->fds()[0])),
                                        *stage_.keeper);
  const Fd runtime = Connect();
  ASSERT_TRUE(Turn());
  EXPECT_TRUE(stage_.keeper->holdings().all().contains({HoldingTag::kIntake, 42}));
}

TEST_F(RuntimeDoorTest, WhereDescriptorsAreShortConnectionsWaitAndAreNotLost) {
  Start();
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const Fd runtime = Connect();
  rlimit tight = limit;
  tight.rlim_cur = static_cast<rlim_t>(runtime.get()) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  EXPECT_FALSE(Turn());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(door_->fd(), -1);
  ASSERT_GT(door_->timeout(), 0);
  // Nothing tells that there is room again but the time.
  while (door_->fd() == -1) poll(nullptr, 0, std::max(door_->timeout(), 0));
  EXPECT_TRUE(Turn());
}

TEST_F(RuntimeDoorTest, WhoComesDuringAnUpgradeIsLetInAfterIt) {
  Start();
  stage_.keeper->Begin();
  ASSERT_TRUE(stage_.Ready(1));
  ASSERT_TRUE(stage_.keeper->Upgrade().ok());
  const Fd runtime = Connect();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(stage_.Until([&] { return !stage_.keeper->upgrading(); }));
  EXPECT_TRUE(Turn());
}

TEST_F(RuntimeDoorTest, TakesNobodyInOnceItIsClosed) {
  Start();
  const Fd runtime = Connect();
  door_->Close();
  EXPECT_EQ(door_->fd(), -1);
  door_->Accept();
  EXPECT_EQ(Held(), 0U);
}

}  // namespace
}  // namespace shunt
