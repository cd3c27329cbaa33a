// SPDX-License-Identifier: Apache-2.0
// What is remembered of keys: for how long, by whom, and who can make it be forgotten.

#include "net/balancer/affinity_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <barrier>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "net/balancer/mix.h"

namespace shunt::net {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kOneSecond = 1'000'000'000;
constexpr size_t kSetsOfPlaces = limits::kRememberedBackends / AffinityMemory::kProbed;

std::unique_ptr<AffinityMemory> EmptyMemory() {
  return AffinityMemory::Create().value();
}

AffinityMemory::Use UseOf(uint64_t key, int64_t now, uint64_t owner = 1) {
  return {.key = Mix64(key), .owner = owner, .now = now, .timeout = 10 * kOneSecond};
}

// As a connection does it: the backend that it goes to, of which `fresh` is the policy's.
uint64_t ConnectBy(AffinityMemory& memory, const AffinityMemory::Use& use, uint64_t fresh) {
  const AffinityMemory::Entry entry = memory.Find(use);
  if (entry.backend == 0) return memory.Remember(use, entry, fresh);
  memory.Renew(entry, use);
  return entry.backend;
}

TEST(AffinityMemory, AKeyKeepsItsBackendAsLongAsItIsUsed) {
  const auto memory = EmptyMemory();
  EXPECT_EQ(memory->Find(UseOf(1, kOneSecond)).backend, 0u);
  EXPECT_EQ(ConnectBy(*memory, UseOf(1, kOneSecond), 7), 7u);
  EXPECT_EQ(ConnectBy(*memory, UseOf(1, 10 * kOneSecond), 8), 7u);
  EXPECT_EQ(ConnectBy(*memory, UseOf(1, 20 * kOneSecond), 8), 7u);
  EXPECT_EQ(ConnectBy(*memory, UseOf(2, 20 * kOneSecond), 9), 9u);
  EXPECT_EQ(memory->Find(UseOf(1, 30 * kOneSecond)).backend, 7u);
  EXPECT_EQ(ConnectBy(*memory, UseOf(1, 31 * kOneSecond), 8), 8u);
}

TEST(AffinityMemory, WhatCannotBeHadMakesWay) {
  const auto memory = EmptyMemory();
  ConnectBy(*memory, UseOf(1, kOneSecond), 7);
  const AffinityMemory::Entry entry = memory->Find(UseOf(1, 2 * kOneSecond));
  EXPECT_EQ(memory->Remember(UseOf(1, 2 * kOneSecond), entry, 8), 8u);
  EXPECT_EQ(memory->Find(UseOf(1, 3 * kOneSecond)).backend, 8u);
}

TEST(AffinityMemory, WhoeverIsFirstHasHisWay) {
  const auto memory = EmptyMemory();
  const AffinityMemory::Entry nobody = memory->Find(UseOf(1, kOneSecond));
  EXPECT_EQ(memory->Remember(UseOf(1, kOneSecond), nobody, 7), 7u);
  EXPECT_EQ(memory->Remember(UseOf(1, kOneSecond), nobody, 8), 7u);
  const AffinityMemory::Entry seven = memory->Find(UseOf(1, kOneSecond));
  EXPECT_EQ(memory->Remember(UseOf(1, kOneSecond), seven, 8), 8u);
  EXPECT_EQ(memory->Remember(UseOf(1, kOneSecond), seven, 9), 8u);
}

TEST(AffinityMemory, ReactorsAgreeAboutAKeyThatTheyBringAtTheSameTime) {
  constexpr size_t kThreads = 4;
  constexpr uint64_t kKeys = 4'000;
  const auto memory = EmptyMemory();
  std::vector<std::vector<uint64_t>> went(kThreads, std::vector<uint64_t>(kKeys));
  std::barrier together(kThreads);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (uint64_t key = 0; key < kKeys; ++key) {
        if (key % 64 == 0) together.arrive_and_wait();
        went[i][key] = ConnectBy(*memory, UseOf(key, kOneSecond, i), 100 + i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t key = 0; key < kKeys; ++key) {
    for (size_t i = 1; i < kThreads; ++i) ASSERT_EQ(went[i][key], went[0][key]) << key;
  }
}

TEST(AffinityMemory, OutlivesAnEngine) {
  auto memory = EmptyMemory();
  ConnectBy(*memory, UseOf(1, kOneSecond), 7);
  Fd held(fcntl(memory->fd(), F_DUPFD_CLOEXEC, 0));
  memory.reset();
  const auto next = AffinityMemory::Open(std::move(held));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ((*next)->Find(UseOf(1, 2 * kOneSecond)).backend, 7u);
}

TEST(AffinityMemory, OfAnotherKindIsRefused) {
  Fd shorter(memfd_create("shorter", MFD_CLOEXEC));
  EXPECT_THAT(AffinityMemory::Open(std::move(shorter)).status().message(), HasSubstr("another size"));
  const auto memory = EmptyMemory();
  const uint64_t other = 1;
  ASSERT_EQ(pwrite(memory->fd(), &other, sizeof(other), 0), ssize_t{sizeof(other)});
  Fd copy(fcntl(memory->fd(), F_DUPFD_CLOEXEC, 0));
  EXPECT_THAT(AffinityMemory::Open(std::move(copy)).status().message(), HasSubstr("another layout"));
}

// Keys that share their eight places.
AffinityMemory::Use UseInSet(size_t set, uint64_t number, int64_t now, uint64_t owner) {
  AffinityMemory::Use use = UseOf(0, now, owner);
  use.key = (number + 1) << 40 | set;
  return use;
}

TEST(AffinityMemory, TheOneThatWasUsedTheLongestTimeAgoGoes) {
  const auto memory = EmptyMemory();
  int64_t now = kOneSecond;
  const auto use = [&](uint64_t number) { return UseInSet(3, number, now += kOneSecond / 100, number); };
  for (uint64_t number = 0; number < 8; ++number) ConnectBy(*memory, use(number), 100 + number);
  for (const uint64_t number : {0, 1, 3, 4, 5, 6, 7}) ConnectBy(*memory, use(number), 0);
  ConnectBy(*memory, use(8), 108);
  for (uint64_t number = 0; number <= 8; ++number)
    EXPECT_EQ(memory->Find(use(number)).backend, number == 2 ? 0 : 100 + number);
}

// The attack: processes without end, each with a key of its own, used again and again so that they are never
// the oldest.
TEST(AffinityMemory, AContainerWithEverNewKeysTakesAQuarterOfTheRoom) {
  constexpr uint64_t kAttacker = 0, kOthers = 6;  // of eight
  for (const bool attacker_first : {false, true}) {
    const auto memory = EmptyMemory();
    int64_t now = kOneSecond;
    const auto attack = [&] {
      now += kOneSecond;
      for (uint64_t i = 0; i < 20 * limits::kRememberedBackends; ++i)
        ConnectBy(*memory, UseInSet(i % kSetsOfPlaces, 1000 + i / kSetsOfPlaces % 80, now, kAttacker), 1);
    };
    if (attacker_first) attack();
    for (size_t set = 0; set < kSetsOfPlaces; ++set) {
      for (uint64_t number = 0; number < kOthers; ++number)
        ConnectBy(*memory, UseInSet(set, number, now, 1 + number), 100 + number);
    }
    attack();
    uint64_t forgotten = 0;
    for (size_t set = 0; set < kSetsOfPlaces; ++set) {
      for (uint64_t number = 0; number < kOthers; ++number)
        forgotten += memory->Find(UseInSet(set, number, now, 1 + number)).backend != 100 + number;
    }
    EXPECT_EQ(forgotten, 0u) << attacker_first;
  }
}

}  // namespace
}  // namespace shunt::net
