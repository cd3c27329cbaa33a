// SPDX-License-Identifier: Apache-2.0
// What we say to systemd, what it passes to us, and that a keeper's holdings survive the way through its
// store.

#include "tools/systemd.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "tests/tools/engine_script.h"
#include "tests/tools/keeper_stage.h"
#include "tools/keeper_protocol.h"
#include "tools/stored_holdings.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::string IdentityOf(int fd) {
  return Identity(("/proc/self/fd/" + std::to_string(fd)).c_str());
}

// systemd's side: reads datagrams, and keeps descriptors by their names as its store does.
class FakeManager {
 public:
  FakeManager() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_.reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // The kernel chooses an abstract name.
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)), 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    const size_t length = size - offsetof(sockaddr_un, sun_path) - 1;
    setenv("NOTIFY_SOCKET", ("@" + std::string(address.sun_path + 1, length)).c_str(), 1);
  }
  ~FakeManager() {
    for (const char* const name : {"NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID",
                                   "LISTEN_FDS", "LISTEN_FDNAMES"}) {
      unsetenv(name);
    }
  }

  // Reads what has come. False: nothing.
  bool Read() {
    bool any = false;
    while (ReadOne()) any = true;
    return any;
  }

  std::vector<std::string> messages;  // without the store's
  std::multimap<std::string, Fd> store;

  // "NAME=IDENTITY" of everything in the store.
  std::vector<std::string> Stored() const {
    std::vector<std::string> result;
    for (const auto& [name, fd] : store) result.push_back(name + "=" + IdentityOf(fd.get()));
    return result;
  }

 private:
  bool ReadOne() {
    char text[1024];
    iovec piece{text, sizeof(text)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (size < 0) return false;
    EXPECT_EQ(message.msg_flags & MSG_CTRUNC, 0);
    Fd fd;
    if (const cmsghdr* const header = CMSG_FIRSTHDR(&message)) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header), sizeof(number));
      fd.reset(number);
    }
    const std::string line(text, static_cast<size_t>(size));
    const size_t name = line.find("FDNAME=");
    if (line.rfind("FDSTORE=1\n", 0) == 0) {
      EXPECT_THAT(line, HasSubstr("\nFDPOLL=0\n"));
      store.emplace(line.substr(name + 7), std::move(fd));
    } else if (line.rfind("FDSTOREREMOVE=1\n", 0) == 0) {
      store.erase(line.substr(name + 7));
    } else {
      messages.push_back(line);
    }
    return true;
  }

  Fd socket_;
};

TEST(ServiceManagerTest, IsSilentWithoutOne) {
  unsetenv("NOTIFY_SOCKET");
  ServiceManager manager = ServiceManager::FromEnvironment(ServiceManager::FdStore::kAlways);
  manager.Ready();
  EXPECT_FALSE(manager.stores());
  EXPECT_FALSE(manager.watchdog().has_value());
  EXPECT_EQ(manager.TakeComplaint(), "");
}

TEST(ServiceManagerTest, SaysHowItGoesAndTakesTheVariablesAway) {
  FakeManager fake;
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  ServiceManager manager = ServiceManager::FromEnvironment();
  manager.Ready();
  manager.Status("two\nlines");
  manager.Reloading();
  manager.MainPid(17);
  manager.Alive();
  manager.Stopping();
  fake.Read();
  EXPECT_THAT(fake.messages,
              ElementsAre("READY=1", "STATUS=two lines", HasSubstr("RELOADING=1\nMONOTONIC_USEC="),
                          "MAINPID=17", "WATCHDOG=1", "STOPPING=1"));
  EXPECT_EQ(manager.watchdog(), std::chrono::seconds(3));
  EXPECT_EQ(getenv("NOTIFY_SOCKET"), nullptr);
  EXPECT_EQ(getenv("WATCHDOG_USEC"), nullptr);
}

TEST(ServiceManagerTest, ListensToNothingThatIsMeantForAnotherProcess) {
  FakeManager fake;
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  setenv("LISTEN_PID", "1", 1);
  setenv("LISTEN_FDS", "1", 1);
  ServiceManager manager = ServiceManager::FromEnvironment();
  EXPECT_FALSE(manager.watchdog().has_value());
  EXPECT_THAT(manager.TakePassed(), IsEmpty());
}

TEST(ServiceManagerTest, ComplainsOnceAboutAnAddressWhereNobodyIs) {
  setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
  ServiceManager manager = ServiceManager::FromEnvironment();
  manager.Ready();
  EXPECT_THAT(manager.TakeComplaint(), HasSubstr("/nonexistent/notify"));
  EXPECT_EQ(manager.TakeComplaint(), "");
}

TEST(ServiceManagerTest, WaitsForAManagerThatDoesNotReadAndBlocksNobody) {
  FakeManager fake;
  ServiceManager manager = ServiceManager::FromEnvironment();
  int sent = 0;
  while (!manager.waiting() && sent < 100'000) {
    manager.MainPid(sent++);
  }
  ASSERT_TRUE(manager.waiting());
  manager.MainPid(sent++);
  for (int i = 0; i < 1000 && manager.waiting(); ++i) {
    fake.Read();
    manager.Flush();
  }
  fake.Read();
  ASSERT_EQ(fake.messages.size(), static_cast<size_t>(sent));
  EXPECT_EQ(fake.messages.back(), "MAINPID=" + std::to_string(sent - 1));
}

TEST(ServiceManagerTest, IsOnlyTrustedWithDescriptorsIfItSaysThatItKeepsThem) {
  FakeManager fake;
  const std::string path = getenv("NOTIFY_SOCKET");
  EXPECT_FALSE(ServiceManager::FromEnvironment().stores());
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  setenv("FDSTORE", "0", 1);
  EXPECT_FALSE(ServiceManager::FromEnvironment().stores());
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  setenv("FDSTORE", "100", 1);
  EXPECT_TRUE(ServiceManager::FromEnvironment().stores());
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  EXPECT_TRUE(ServiceManager::FromEnvironment(ServiceManager::FdStore::kAlways).stores());
}

// Runs `body` in a process that was started with these descriptors, as a service manager passes them. True if
// it returns true.
bool InStartedProcess(const std::vector<std::pair<std::string, int>>& passed,
                      const std::function<bool()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    std::vector<Fd> up;
    for (const auto& [name, fd] : passed) up.emplace_back(fcntl(fd, F_DUPFD, 500));
    std::string names;
    for (size_t i = 0; i < passed.size(); ++i) {
      dup2(up[i].get(), 3 + static_cast<int>(i));
      names += (i == 0 ? "" : ":") + passed[i].first;
    }
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", std::to_string(passed.size()).c_str(), 1);
    setenv("LISTEN_FDNAMES", names.c_str(), 1);
    _exit(body() && !::testing::Test::HasFailure() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0;
}

TEST(StoredHoldingsTest, AreAdoptedInAnyOrder) {
  const Thing listener, memory, journal;
  EXPECT_TRUE(InStartedProcess({{"shunt.5.1.1", memory.fd.get()},
                                {"shunt.4.0.0", journal.fd.get()},
                                {"shunt.5.1.0", listener.fd.get()}},
                               [&] {
                                 ServiceManager manager = ServiceManager::FromEnvironment();
                                 const Adopted adopted = AdoptPassed(manager);
                                 EXPECT_EQ(adopted.refused, 0U);
                                 EXPECT_EQ(adopted.holdings.size(), 2U);
                                 EXPECT_EQ(adopted.holdings[0].name, kJournal);
                                 EXPECT_EQ(adopted.holdings[1].name, kOne);
                                 EXPECT_EQ(adopted.holdings[1].fds.size(), 2U);
                                 EXPECT_EQ(IdentityOf(adopted.holdings[1].fds[0].get()), listener.identity);
                                 EXPECT_EQ(IdentityOf(adopted.holdings[1].fds[1].get()), memory.identity);
                                 EXPECT_EQ(fcntl(adopted.holdings[1].fds[1].get(), F_GETFD), FD_CLOEXEC);
                                 return true;
                               }));
}

TEST(StoredHoldingsTest, WhatMakesNoSenseIsClosedAndRemoved) {
  const Thing thing, first;
  FakeManager fake;
  const std::vector<std::string> bad = {absl::StrCat("shunt.", kHighestHoldingTag + 1, ".0.0"),
                                        "shunt.0.0.0",
                                        "shunt.5.1.4",
                                        "shunt.5.1",
                                        "shunt.5.x.0",
                                        "shunt.5.01.0",
                                        "stored",
                                        "shunt.5.7.1",
                                        "shunt.5.-1.0"};
  std::vector<std::pair<std::string, int>> passed = {{"shunt.5.1.0", first.fd.get()}};
  for (const std::string& name : bad) {
    passed.emplace_back(name, thing.fd.get());
    fake.store.emplace(name, thing.Copy());
  }
  EXPECT_TRUE(InStartedProcess(passed, [&] {
    ServiceManager manager = ServiceManager::FromEnvironment(ServiceManager::FdStore::kAlways);
    const Adopted adopted = AdoptPassed(manager);
    EXPECT_EQ(adopted.refused, bad.size());
    EXPECT_EQ(adopted.holdings.size(), 1U);
    EXPECT_FALSE(adopted.activated.valid());
    for (size_t i = 0; i < bad.size(); ++i) EXPECT_EQ(fcntl(4 + static_cast<int>(i), F_GETFD), -1);
    return true;
  }));
  fake.Read();
  EXPECT_THAT(fake.Stored(), IsEmpty());
}

TEST(StoredHoldingsTest, AListeningSocketOfAnotherNameIsTheOneThatRuntimesConnectTo) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const Fd listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)), 0);
  ASSERT_EQ(listen(listening.get(), 1), 0);
  const Fd deaf(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const std::string identity = IdentityOf(listening.get());
  EXPECT_TRUE(InStartedProcess({{"other.socket", deaf.get()}, {"shunt-agent.socket", listening.get()}}, [&] {
    ServiceManager manager = ServiceManager::FromEnvironment();
    const Adopted adopted = AdoptPassed(manager);
    EXPECT_EQ(IdentityOf(adopted.activated.get()), identity);
    EXPECT_EQ(adopted.refused, 1U);
    EXPECT_EQ(fcntl(3, F_GETFD), -1);
    return true;
  }));
}

class KeeperUnderManagerTest : public ::testing::Test {
 protected:
  void StartStage() {
    manager_.emplace(ServiceManager::FromEnvironment(ServiceManager::FdStore::kAlways));
    stage_.manager = &*manager_;
    stage_.Start();
    ASSERT_TRUE(stage_.Ready(1));
    engine_ = stage_.NextEngine();
  }

  FakeManager fake_;
  std::optional<ServiceManager> manager_;
  KeeperStage stage_;
  RemoteEngine* engine_ = nullptr;
};

TEST_F(KeeperUnderManagerTest, StoresWhatIsHeldAndRemovesWhatIsDropped) {
  StartStage();
  const Thing listener, memory, other, journal;
  engine_->Do("hold 5 1", {listener.fd.get(), memory.fd.get()});
  engine_->Do("hold 4 0", {journal.fd.get()});
  engine_->Do("hold 5 2", {other.fd.get()});
  ASSERT_TRUE(stage_.Until([&] {
    fake_.Read();
    return fake_.store.size() == 4;
  }));
  EXPECT_THAT(fake_.Stored(),
              UnorderedElementsAre("shunt.5.1.0=" + listener.identity, "shunt.5.1.1=" + memory.identity,
                                   "shunt.4.0.0=" + journal.identity, "shunt.5.2.0=" + other.identity));
  engine_->Do("drop 5 1");
  engine_->Do("hold 5 2", {memory.fd.get()});  // replaces
  engine_->Do("drop 4 0");
  ASSERT_TRUE(stage_.Until([&] {
    fake_.Read();
    return fake_.store.count("shunt.4.0.0") == 0;  // the last of it
  }));
  EXPECT_THAT(fake_.Stored(), ElementsAre("shunt.5.2.0=" + memory.identity));
}

TEST_F(KeeperUnderManagerTest, AKeeperThatIsStartedAgainFindsEverythingInTheStore) {
  StartStage();
  const Thing listener, memory;
  engine_->Do("hold 5 1", {listener.fd.get(), memory.fd.get()});
  ASSERT_TRUE(stage_.Until([&] {
    fake_.Read();
    return fake_.store.size() == 2;
  }));
  std::vector<std::pair<std::string, int>> passed;
  for (const auto& [name, fd] : fake_.store) passed.emplace_back(name, fd.get());
  EXPECT_TRUE(InStartedProcess(passed, [&] {
    KeeperStage next;
    ServiceManager manager = ServiceManager::FromEnvironment(ServiceManager::FdStore::kAlways);
    next.manager = &manager;
    next.Create();
    for (Adopted::One& one : AdoptPassed(manager).holdings) {
      EXPECT_TRUE(next.keeper->HoldAdopted(one.name, std::move(one.fds)).ok());
    }
    next.keeper->Begin();
    EXPECT_TRUE(next.Ready(1));
    const RemoteEngine* const engine = next.NextEngine();
    return next.Until([&] { return engine->Heard(GiveLine(kOne, {&listener, &memory})); });
  }));
}

TEST_F(KeeperUnderManagerTest, SaysThatItIsAliveAndWhenItLeaves) {
  setenv("WATCHDOG_USEC", "40000", 1);
  StartStage();
  ASSERT_TRUE(stage_.Until([&] {
    fake_.Read();
    return std::count(fake_.messages.begin(), fake_.messages.end(), "WATCHDOG=1") >= 3;
  }));
  stage_.keeper->Leave();
  EXPECT_TRUE(stage_.Until([&] { return stage_.ended.has_value(); }));
  fake_.Read();
  EXPECT_THAT(fake_.messages, ::testing::Contains("STOPPING=1"));
}

}  // namespace
}  // namespace shunt
