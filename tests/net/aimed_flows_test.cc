// SPDX-License-Identifier: Apache-2.0
// What is noted of UDP flows is found again as it was, or not at all.

#include "net/aimed_flows.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace shunt::net {
namespace {

using Flow = AimedFlows::Flow;

std::unique_ptr<AimedFlows> NoFlows() {
  return std::make_unique<AimedFlows>(AimedFlows{});
}

std::vector<uint64_t> CookiesOf(const AimedFlows& flows, uint64_t service) {
  std::vector<uint64_t> cookies;
  flows.ForEach([&](const Flow& flow) {
    if (flow.service == service) cookies.push_back(flow.cookie);
    return true;
  });
  return cookies;
}

TEST(AimedFlows, AreFoundAsTheyWereNoted) {
  const auto flows = NoFlows();
  EXPECT_TRUE(flows->empty());
  EXPECT_FALSE(flows->MayHave(30));
  flows->Note({.cookie = 5, .service = 20, .backend = 30, .key = 40});
  EXPECT_FALSE(flows->empty());
  EXPECT_TRUE(flows->MayHave(30));
  EXPECT_FALSE(flows->MayHave(31));
  const std::optional<Flow> found = flows->Find(5);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->service, 20u);
  EXPECT_EQ(found->backend, 30u);
  EXPECT_EQ(found->key, 40u);
  EXPECT_FALSE(flows->Find(6));
  EXPECT_FALSE(flows->Find(5 + AimedFlows::kPlaces));
  EXPECT_EQ(CookiesOf(*flows, 20), std::vector<uint64_t>{5});
  EXPECT_TRUE(CookiesOf(*flows, 20 + AimedFlows::kParts).empty());
}

TEST(AimedFlows, ASocketIsOfTheServiceThatItWasConnectedToLast) {
  const auto flows = NoFlows();
  flows->Note({.cookie = 5, .service = 1, .backend = 30});
  flows->Note({.cookie = 5, .service = 2, .backend = 30});
  EXPECT_TRUE(CookiesOf(*flows, 1).empty());
  EXPECT_EQ(flows->Find(5)->service, 2u);
  flows->Forget(5 + AimedFlows::kPlaces);
  EXPECT_TRUE(flows->Find(5));
  flows->Forget(5);
  EXPECT_FALSE(flows->Find(5));
}

// A resolver that makes a socket for each question.
TEST(AimedFlows, ManySocketsOfOneServiceTakeNothingFromAnother) {
  const auto flows = NoFlows();
  flows->Note({.cookie = 5, .service = 1, .backend = 30});
  for (uint64_t cookie = 6; cookie < 100'000; ++cookie)
    flows->Note({.cookie = cookie, .service = 2, .backend = 31});
  EXPECT_EQ(CookiesOf(*flows, 1), std::vector<uint64_t>{5});
  EXPECT_EQ(CookiesOf(*flows, 2).size(), AimedFlows::kPlaces);
}

// Reactors that write to one place: what is found was noted by one of them.
TEST(AimedFlows, AreNeverMixed) {
  const auto flows = NoFlows();
  constexpr uint64_t kRounds = 200'000;
  std::vector<std::thread> writers;
  for (uint64_t writer = 1; writer <= 2; ++writer) {
    writers.emplace_back([&flows, writer] {
      for (uint64_t i = 0; i < kRounds; ++i) {
        const uint64_t cookie = writer * AimedFlows::kPlaces;
        flows->Note({.cookie = cookie, .service = 8 * writer, .backend = 8 * writer, .key = i});
      }
    });
  }
  for (uint64_t i = 0; i < kRounds; ++i) {
    for (uint64_t writer = 1; writer <= 2; ++writer) {
      const std::optional<Flow> found = flows->Find(writer * AimedFlows::kPlaces);
      if (found) ASSERT_EQ(found->backend, 8 * writer);
    }
  }
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace shunt::net
