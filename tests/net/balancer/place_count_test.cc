// SPDX-License-Identifier: Apache-2.0
// Places at a backend: what is counted between two looks, what calls hold, and who waits for one.

#include "net/balancer/place_count.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "core/fd.h"
#include "net/balancer/held_place.h"
#include "net/balancer/place_queue.h"

namespace shunt::net {
namespace {

// One at which so many connections are open.
void Look(PlaceCount& place, uint32_t open) {
  place.EndLook(open, place.BeginLook());
}

TEST(PlaceCount, HasNoPlaceBeforeAnybodyHasLooked) {
  PlaceCount place;
  EXPECT_FALSE(place.Hold(PlaceCount::kMost));
  Look(place, 0);
  EXPECT_TRUE(place.Hold(1));
  EXPECT_FALSE(place.Hold(1));
  place.Forget();
  EXPECT_FALSE(place.Hold(PlaceCount::kMost));
  EXPECT_EQ(place.held(), 1u);
}

TEST(PlaceCount, WhatHasBegunCountsUntilTheKernelWasAskedAfterwards) {
  PlaceCount place;
  Look(place, 1);
  ASSERT_TRUE(place.Hold(3));
  place.Begin();
  const uint32_t before = place.BeginLook();
  ASSERT_TRUE(place.Hold(3));
  place.Begin();  // while the kernel is asked: in its answer or not
  EXPECT_FALSE(place.Hold(3));
  place.EndLook(2, before);  // both that there were before
  EXPECT_EQ(place.taken(), 3u);
  Look(place, 1);  // two have ended
  EXPECT_EQ(place.taken(), 1u);
}

TEST(PlaceCount, WhatIsHeldCountsOverLooksUntilItIsGivenBack) {
  PlaceCount place;
  Look(place, 0);
  ASSERT_TRUE(place.Hold(1));
  Look(place, 0);
  EXPECT_FALSE(place.Hold(1));
  place.GiveBack();
  EXPECT_TRUE(place.Hold(1));
}

TEST(PlaceCount, ThereAreNeverMoreThanTheLimitHoweverManyHold) {
  constexpr uint32_t kPlaces = 1;
  PlaceCount place;
  Look(place, 0);
  std::atomic<uint32_t> held = 0, most = 0;
  std::atomic<bool> over = false;
  std::thread looker([&] {
    while (!over) Look(place, 0);
  });
  std::vector<std::thread> holders;
  for (int i = 0; i < 4; ++i) {
    holders.emplace_back([&] {
      for (int k = 0; k < 500'000; ++k) {
        if (!place.Hold(kPlaces)) continue;
        const uint32_t now = ++held;
        uint32_t before = most;
        while (now > before && !most.compare_exchange_weak(before, now)) {
        }
        --held;
        place.GiveBack();
      }
    });
  }
  for (std::thread& holder : holders) holder.join();
  over = true;
  looker.join();
  EXPECT_LE(most, kPlaces);
  EXPECT_EQ(place.taken(), 0u);
}

TEST(HeldPlace, TheLastCopyGivesBackWhatHasNotBegun) {
  PlaceCount place;
  Look(place, 0);
  HeldPlaces all;
  {
    HeldPlace held(all, place, 2);
    ASSERT_TRUE(held.valid());
    HeldPlace copy = held;
    held = {};
    EXPECT_EQ(place.held(), 1u);
    const HeldPlace other(all, place, 2);
    EXPECT_FALSE(HeldPlace(all, place, 2).valid());
    other.Begin();
    other.Begin();
    EXPECT_EQ(place.taken(), 2u);
  }
  EXPECT_EQ(place.held(), 0u);
  EXPECT_EQ(place.taken(), 1u) << "what has begun, until the next look";
}

TEST(HeldPlace, OfOneReactorThereAreEnoughAndNotMore) {
  PlaceCount place;
  Look(place, 0);
  HeldPlaces all;
  for (int round = 0; round < 2; ++round) {
    std::vector<HeldPlace> held;
    for (;;) {
      HeldPlace one(all, place, PlaceCount::kMost);
      if (!one.valid()) break;
      held.push_back(one);
    }
    EXPECT_EQ(held.size(), 2 * (limits::kTaskSlots + 1));
  }
  EXPECT_EQ(place.taken(), 0u);
}

class PlaceQueueTest : public testing::Test {
 protected:
  class Waiter final : public PlaceQueue::Waiter {
   public:
    Waiter(PlaceQueueTest& test, int name) : Waiter(test, name, /*service=*/7, test.share_) {}
    Waiter(PlaceQueueTest& test, int name, uint32_t service, PlaceQueue::Share& share)
        : PlaceQueue::Waiter(test.queue_, service, share), test_(test), name_(name) {}

   private:
    void Look() override {
      if (test_.free_ == 0) return;
      --test_.free_;
      test_.served_.push_back(name_);
      Leave();
    }
    void GiveWay() override {
      test_.gave_way_.push_back(name_);
      Leave();
    }
    PlaceQueueTest& test_;
    const int name_;
  };

  bool Woken() const {
    uint64_t count = 0;
    return read(wake_.get(), &count, sizeof(count)) > 0;
  }

  const Fd wake_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  PlaceQueue queue_{wake_.get()};
  QueueTally tally_;
  PlaceQueue::Share share_;
  int free_ = 0;
  std::vector<int> served_, gave_way_;
};

TEST_F(PlaceQueueTest, ServesInTheOrderInWhichTheyCame) {
  Waiter a(*this, 1), b(*this, 2), c(*this, 3);
  EXPECT_FALSE(queue_.busy());
  for (Waiter* waiter : {&a, &b, &c}) ASSERT_TRUE(waiter->Join(tally_, 3));
  EXPECT_TRUE(Woken());
  free_ = 2;
  queue_.Offer();
  EXPECT_EQ(served_, (std::vector<int>{1, 2}));
  EXPECT_EQ(tally_.waiting, 1u);
  EXPECT_TRUE(queue_.busy());
  EXPECT_TRUE(queue_.HasWaiters(7));
  EXPECT_FALSE(queue_.HasWaiters(8));
}

TEST_F(PlaceQueueTest, HasAsMuchRoomAsTheServiceSaysAndWhoGoesLeavesIt) {
  Waiter a(*this, 1);
  {
    Waiter b(*this, 2), c(*this, 3);
    ASSERT_TRUE(a.Join(tally_, 2));
    ASSERT_TRUE(b.Join(tally_, 2));
    EXPECT_FALSE(c.Join(tally_, 2));
  }
  Waiter d(*this, 4);
  EXPECT_TRUE(d.Join(tally_, 2));
  free_ = 5;
  queue_.Offer();
  EXPECT_EQ(served_, (std::vector<int>{1, 4}));
  EXPECT_EQ(tally_.waiting, 0u);
  EXPECT_FALSE(queue_.busy());
}

TEST_F(PlaceQueueTest, OneReactorHasRoomForHalfOfItsTasks) {
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (size_t i = 0; i < PlaceQueue::kMost; ++i) {
    waiters.push_back(std::make_unique<Waiter>(*this, 0));
    ASSERT_TRUE(waiters.back()->Join(tally_, 100'000));
  }
  EXPECT_FALSE(Waiter(*this, 1).Join(tally_, 100'000));
  EXPECT_EQ(tally_.waiting, PlaceQueue::kMost);
}

TEST_F(PlaceQueueTest, WhoTakesAllThereIsGivesWayToThoseWhoHaveLess) {
  PlaceQueue::Share other, third;  // they outlive who waits
  std::vector<std::unique_ptr<Waiter>> hogs, others;
  const auto join = [&](std::vector<std::unique_ptr<Waiter>>& all, int name, PlaceQueue::Share& share) {
    all.push_back(std::make_unique<Waiter>(*this, name, /*service=*/7, share));
    return all.back()->Join(tally_, 100'000);
  };
  for (size_t i = 0; i < PlaceQueue::kMost; ++i) ASSERT_TRUE(join(hogs, static_cast<int>(i), share_));
  for (size_t i = 0; i < PlaceQueue::kMost / 2; ++i) {
    EXPECT_TRUE(join(others, 1000, other)) << i;
    EXPECT_FALSE(join(hogs, 2000, share_)) << i;  // and gets nothing back
  }
  EXPECT_FALSE(join(others, 1000, other));  // no more than the hog has
  EXPECT_TRUE(join(others, 3000, third));
  EXPECT_EQ(share_.waiting + other.waiting + third.waiting, PlaceQueue::kMost);
  EXPECT_EQ(tally_.waiting, PlaceQueue::kMost);
  ASSERT_FALSE(gave_way_.empty());
  EXPECT_EQ(gave_way_.front(), static_cast<int>(PlaceQueue::kMost) - 1);  // who has come last
  free_ = 1;
  queue_.Offer();
  EXPECT_EQ(served_, std::vector<int>{0});  // who has come first is still the first
}

TEST_F(PlaceQueueTest, NobodyGivesWayToAConnectForWhichItsServiceHasNoRoom) {
  std::vector<std::unique_ptr<Waiter>> hogs;
  for (size_t i = 0; i < PlaceQueue::kMost; ++i) {
    hogs.push_back(std::make_unique<Waiter>(*this, 0));
    ASSERT_TRUE(hogs.back()->Join(tally_, 100'000));
  }
  PlaceQueue::Share other;
  QueueTally full;
  full.waiting = 5;
  EXPECT_FALSE(Waiter(*this, 1, 8, other).Join(full, 5));
  EXPECT_TRUE(gave_way_.empty());
}

}  // namespace
}  // namespace shunt::net
