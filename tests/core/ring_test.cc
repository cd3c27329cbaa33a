// SPDX-License-Identifier: Apache-2.0
// A ring does what the engine needs of it, and refuses the rest even to whoever has taken the engine over.

#include "core/ring.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <string>

#include "core/fd.h"

namespace shunt {
namespace {

// The descriptor of the only ring of this process.
int RingDescriptor() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) == "anon_inode:[io_uring]")
      return std::stoi(entry.path().filename());
  }
  return -1;
}

Completion Next(Ring& ring) {
  std::array<Completion, 1> completions{};
  for (int turns = 0; turns < 1000; ++turns) {
    if (ring.Turn(/*wait=*/true, completions) == 1) return completions[0];
  }
  return {.tag = 0, .result = -ETIME};
}

TEST(RingTest, DoesWhatTheEngineAsksFor) {
  absl::StatusOr<Ring> ring = Ring::Create(8, 16);
  ASSERT_TRUE(ring.ok()) << ring.status();
  Fd event(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  ring->PollOnce(event.get(), POLLIN, 8);
  EXPECT_EQ(Next(*ring).result, POLLIN);
  const __kernel_timespec soon{.tv_sec = 0, .tv_nsec = 1000};
  ring->Timer(&soon, 16);
  EXPECT_EQ(Next(*ring).result, -ETIME);
  const Fd silent(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ring->PollWithTimeout(silent.get(), POLLIN, &soon, 24, 32);
  EXPECT_NE(Next(*ring).result, -EACCES);
  EXPECT_NE(Next(*ring).result, -EACCES);
  ring->PollOnce(silent.get(), POLLIN, 40);
  ring->Cancel(40, 48);
  EXPECT_NE(Next(*ring).result, -EACCES);
  EXPECT_NE(Next(*ring).result, -EACCES);
  ring->Close(event.release(), 56);
  EXPECT_EQ(Next(*ring).result, 0);
}

TEST(RingTest, CannotBeGivenMoreThanItHas) {
  absl::StatusOr<Ring> ring = Ring::Create(8, 16);
  ASSERT_TRUE(ring.ok()) << ring.status();
  const int fd = RingDescriptor();
  ASSERT_GE(fd, 0);
  EXPECT_EQ(syscall(SYS_io_uring_register, fd, IORING_UNREGISTER_FILES, nullptr, 0), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST(RingTest, OpensNoFile) {
  absl::StatusOr<Ring> ring = Ring::Create(8, 16);
  ASSERT_TRUE(ring.ok()) << ring.status();
  const Fd silent(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ring->PollOnce(silent.get(), POLLIN, 8);
  // What has been queued becomes something else, as whoever can write to our memory would do it: the entries
  // are shared with the kernel, so we can have them mapped a second time.
  void* const mapped = mmap(nullptr, 8 * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED,
                            RingDescriptor(), IORING_OFF_SQES);
  ASSERT_NE(mapped, MAP_FAILED);
  io_uring_prep_openat(static_cast<io_uring_sqe*>(mapped), AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
  EXPECT_EQ(Next(*ring).result, -EACCES);
  munmap(mapped, 8 * sizeof(io_uring_sqe));
}

}  // namespace
}  // namespace shunt
