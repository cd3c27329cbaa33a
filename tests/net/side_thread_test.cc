// SPDX-License-Identifier: Apache-2.0
// SideThread: a descriptor table of its own, jobs in order, a bound on what is under way.

#include "net/side_thread.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <vector>

namespace shunt::net {
namespace {

struct Lambda : SideJob {
  explicit Lambda(std::function<void(SideTable&)> what) : run(std::move(what)) {}
  void Run(SideTable& table) override { run(table); }
  std::function<void(SideTable&)> run;
};

class SideThreadTest : public testing::Test {
 protected:
  void SetUp() override {
    auto side = SideThread::Start();
    ASSERT_TRUE(side.ok()) << side.status();
    side_ = std::move(*side);
  }
  SideJob* WaitForOne() {
    pollfd readable{side_->completion_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 10000), 1);
    return side_->TakeFinished();
  }
  std::unique_ptr<SideThread> side_;
};

TEST_F(SideThreadTest, SeesNothingOfTheEnginesTableButWhatItAsksFor) {
  std::array<int, 2> pipe_fds;
  ASSERT_EQ(pipe(pipe_fds.data()), 0);
  const Fd read_end(pipe_fds[0]);
  Fd write_end(pipe_fds[1]);
  int open_descriptors = 0;
  bool copy_is_the_pipe = false;
  Lambda job([&](SideTable& table) {
    for (int fd = 0; fd < 1024; ++fd) open_descriptors += fcntl(fd, F_GETFD) >= 0;
    const Result<Fd> copy = table.FromEngine(write_end.get());
    copy_is_the_pipe = copy.has_value() && write(copy->get(), "x", 1) == 1;
  });
  ASSERT_TRUE(side_->Submit(&job));
  EXPECT_EQ(WaitForOne(), &job);
  EXPECT_EQ(open_descriptors, 2);
  EXPECT_TRUE(copy_is_the_pipe);
  // Nothing is kept: with our end closed the pipe has no writer left.
  write_end.reset();
  char byte;
  EXPECT_EQ(read(read_end.get(), &byte, 1), 1);
  EXPECT_EQ(read(read_end.get(), &byte, 1), 0);
}

TEST_F(SideThreadTest, PutsACopyAtAnyNumberTimeAfterTime) {
  struct stat want;
  ASSERT_EQ(fstat(side_->completion_fd(), &want), 0);
  int wrong = 0;
  Lambda job([&](SideTable& table) {
    for (int round = 0; round < 3; ++round) {
      for (int number = 0; number < 40; ++number) {
        const Result<Fd> copy = table.FromEngineAt(side_->completion_fd(), number);
        struct stat have {};
        if (!copy || copy->get() != number || fstat(number, &have) != 0 || have.st_ino != want.st_ino)
          ++wrong;
      }
    }
  });
  ASSERT_TRUE(side_->Submit(&job));
  EXPECT_EQ(WaitForOne(), &job);
  EXPECT_EQ(wrong, 0);
}

TEST_F(SideThreadTest, ADescriptorThatIsNotOpenIsEbadf) {
  int error = 0;
  Lambda job([&](SideTable& table) {
    const Result<Fd> copy = table.FromEngine(60000);
    error = copy ? 0 : copy.error().code;
  });
  ASSERT_TRUE(side_->Submit(&job));
  EXPECT_EQ(WaitForOne(), &job);
  EXPECT_EQ(error, EBADF);
}

TEST_F(SideThreadTest, JobsRunInOrderAndNoMoreThanItsCapacityAreUnderWay) {
  std::vector<int> order;
  std::vector<std::unique_ptr<Lambda>> jobs;
  const int capacity = static_cast<int>(SideThread::kCapacity);
  for (int i = 0; i <= capacity; ++i) {
    jobs.push_back(std::make_unique<Lambda>([&order, i](SideTable&) { order.push_back(i); }));
  }
  for (int i = 0; i < capacity; ++i) ASSERT_TRUE(side_->Submit(jobs[static_cast<size_t>(i)].get()));
  EXPECT_FALSE(side_->Submit(jobs.back().get()));
  EXPECT_EQ(WaitForOne(), jobs.front().get());
  EXPECT_TRUE(side_->Submit(jobs.back().get()));
  side_.reset();  // finishes what was submitted
  ASSERT_EQ(order.size(), jobs.size());
  for (int i = 0; i <= capacity; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace shunt::net
