// SPDX-License-Identifier: Apache-2.0
// What a container's memory takes, and that an engine to come finds it as it was begun.

#include "handlers/container_memory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "core/fd.h"

namespace shunt {
namespace {

constexpr int64_t kKiB = 1024;

// Of a file in memory, what is really there.
int64_t BytesOf(const ContainerMemory& memory) {
  struct stat status {};
  EXPECT_EQ(fstat(memory.fd(), &status), 0);
  return status.st_blocks * int64_t{512};
}

TEST(ContainerMemory, TakesAsMuchAsTheContainerMakesUseOf) {
  const auto memory = ContainerMemory::Create({.name = "idle"});
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_GT(sizeof(ContainerMemory::Facts), 256 * kKiB) << "or else there is nothing to try here";
  EXPECT_LE(BytesOf(*memory), 16 * kKiB);
}

TEST(ContainerMemory, BeginsAsItsPartsDo) {
  const auto memory = ContainerMemory::Create({.name = "new"});
  ASSERT_TRUE(memory.ok()) << memory.status();
  const auto opened = ContainerMemory::Open(Fd(dup(memory->fd())));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ContainerMemory::Facts& facts = opened->facts();
  EXPECT_EQ(facts.introduced, ContainerMemory::Introduced::kNotYet);
  EXPECT_TRUE(facts.aimed.empty());
  // Nobody is owed an answer, whatever his number.
  EXPECT_FALSE(facts.lost_replies.Take(/*tid=*/0, /*inode=*/0));
  facts.lost_replies.Note(/*tid=*/7, /*inode=*/9, Reply::Fail(EINTR));
  EXPECT_TRUE(facts.lost_replies.Take(/*tid=*/7, /*inode=*/9));
}

}  // namespace
}  // namespace shunt
