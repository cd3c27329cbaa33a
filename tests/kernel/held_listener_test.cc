// SPDX-License-Identifier: Apache-2.0
// A listener that comes a second time, out of a runtime's socket that another engine has read as well, is
// known by what it is: the numbers of its descriptors say nothing.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "handlers/accelerator.h"
#include "tests/support/listener.h"

namespace shunt {
namespace {

Fd Copy(const Fd& fd) {
  return Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

class HeldListener : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!known_.valid() || !other_.valid())
      GTEST_SKIP() << "no seccomp listener can be made here: " << std::strerror(errno);
    absl::StatusOr<std::unique_ptr<Accelerator>> accelerator = Accelerator::Start({.reactors = 1});
    ASSERT_TRUE(accelerator.ok()) << accelerator.status();
    accelerator_ = *std::move(accelerator);
  }

  const Fd known_ = MakeListener(), other_ = MakeListener();
  std::unique_ptr<Accelerator> accelerator_;
};

TEST_F(HeldListener, IsToldFromOthersWhenItIsServed) {
  accelerator_->Begin();
  EXPECT_FALSE(accelerator_->Serves(known_.get()));
  ASSERT_TRUE(accelerator_->Serve(Copy(known_), {.name = "guest"}, [] {}).ok());
  EXPECT_TRUE(accelerator_->Serves(known_.get()));
  EXPECT_TRUE(accelerator_->Serves(Copy(known_).get()));
  EXPECT_FALSE(accelerator_->Serves(other_.get()));
}

TEST_F(HeldListener, IsToldFromOthersBeforeItIsServed) {
  std::vector<Fd> held;
  held.push_back(Copy(known_));
  ASSERT_TRUE(accelerator_->Adopt(7, std::move(held), [] {}).ok());
  EXPECT_TRUE(accelerator_->Serves(known_.get()));
  EXPECT_FALSE(accelerator_->Serves(other_.get()));
}

}  // namespace
}  // namespace shunt
