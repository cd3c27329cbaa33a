// SPDX-License-Identifier: Apache-2.0
// The wire form of a lock policy: what the lock server believes, and what it does not.

#include "net/lock_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace shunt::net {
namespace {

IpAddress Ip(absl::string_view text) {
  return *IpAddress::Parse(text);
}

LockPolicy SomePolicy() {
  LockPolicy policy;
  for (const char* const network :
       {"127.0.0.0/8", "10.0.2.0/24", "0.0.0.0/32", "::1", "fd00::/8", "fe80::/10"}) {
    EXPECT_TRUE(policy.deny.Add(*ParseSubnet(network)));
  }
  policy.self = {{Ip("127.0.0.1"), 8080}, {Ip("::1"), 65535}};
  policy.listen = {{Ip("0.0.0.0"), 8080}, {Ip("fd00::2"), 1}, {Ip("192.0.2.1"), 443}};
  return policy;
}

absl::StatusOr<LockPolicy> Decode(const std::string& wire) {
  return DecodeLockPolicy(std::as_bytes(std::span(wire)));
}

void ExpectSame(const LockPolicy& a, const LockPolicy& b) {
  EXPECT_EQ(std::vector<Subnet>(a.deny.begin(), a.deny.end()),
            std::vector<Subnet>(b.deny.begin(), b.deny.end()));
  EXPECT_EQ(a.self, b.self);
  EXPECT_EQ(a.listen, b.listen);
}

// "shl1\0", the counts, then the entries, as the file's head says.
std::string Wire(size_t deny, size_t self, size_t listen, const std::string& entries) {
  std::string wire("shl1\0", 5);
  for (const size_t count : {deny, self, listen}) wire.push_back(static_cast<char>(count));
  return wire + entries;
}

TEST(LockPolicyTest, SurvivesTheWire) {
  const absl::StatusOr<LockPolicy> back = Decode(EncodeLockPolicy(SomePolicy()));
  ASSERT_TRUE(back.ok()) << back.status();
  ExpectSame(*back, SomePolicy());
}

TEST(LockPolicyTest, AnEmptyPolicySurvivesTheWire) {
  const absl::StatusOr<LockPolicy> back = Decode(EncodeLockPolicy({}));
  ASSERT_TRUE(back.ok()) << back.status();
  ExpectSame(*back, {});
}

TEST(LockPolicyTest, TheLargestPolicyFillsTheLongestRequestAndSurvivesTheWire) {
  LockPolicy policy;
  while (policy.deny.size() < SubnetSet::kCapacity) {
    ASSERT_TRUE(policy.deny.Add(Subnet(IpAddress(0xfd, policy.deny.size()), 128)));
  }
  policy.self.resize(LockPolicy::kMaxEndpoints, {Ip("::1"), 1});
  policy.listen.resize(LockPolicy::kMaxEndpoints, {Ip("::"), 2});
  ASSERT_TRUE(CheckLockPolicy(policy).ok());
  const std::string wire = EncodeLockPolicy(policy);
  EXPECT_EQ(wire.size(), kMaxLockRequest);
  const absl::StatusOr<LockPolicy> back = Decode(wire);
  ASSERT_TRUE(back.ok()) << back.status();
  ExpectSame(*back, policy);
}

TEST(LockPolicyTest, MorePortsThanFitAreRefusedByName) {
  LockPolicy policy;
  policy.listen.resize(LockPolicy::kMaxEndpoints + 1);
  EXPECT_THAT(std::string(CheckLockPolicy(policy).message()),
              testing::HasSubstr("64 published ports, not 65"));
  policy.listen.clear();
  policy.self.resize(LockPolicy::kMaxEndpoints + 1);
  EXPECT_EQ(CheckLockPolicy(policy).code(), absl::StatusCode::kInvalidArgument);
}

TEST(LockPolicyTest, EveryTruncationIsRefused) {
  const std::string wire = EncodeLockPolicy(SomePolicy());
  for (size_t size = 0; size < wire.size(); ++size) {
    EXPECT_EQ(Decode(wire.substr(0, size)).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST(LockPolicyTest, BytesBehindTheLastEntryAreRefused) {
  EXPECT_FALSE(Decode(EncodeLockPolicy(SomePolicy()) + '\0').ok());
}

TEST(LockPolicyTest, AnotherMagicIsRefused) {
  std::string wire = EncodeLockPolicy(SomePolicy());
  wire[3] = '2';
  EXPECT_FALSE(Decode(wire).ok());
}

TEST(LockPolicyTest, CountsBeyondTheLimitsAreRefused) {
  EXPECT_FALSE(
      Decode(Wire(SubnetSet::kCapacity + 1, 0, 0, std::string((SubnetSet::kCapacity + 1) * 17, '\1'))).ok());
  EXPECT_FALSE(Decode(Wire(0, 255, 0, std::string(255 * 18, '\1'))).ok());
  EXPECT_FALSE(Decode(Wire(0, 0, LockPolicy::kMaxEndpoints + 1, std::string(65 * 18, '\1'))).ok());
}

TEST(LockPolicyTest, PrefixLengthsBeyondTheFamilyAreRefused) {
  const std::string v6(16, '\xfd');
  const std::string v4 = std::string(10, '\0') + "\xff\xff\x0a\x01\x02\x03";
  EXPECT_TRUE(Decode(Wire(1, 0, 0, v6 + '\x80')).ok());
  EXPECT_FALSE(Decode(Wire(1, 0, 0, v6 + '\x81')).ok());
  EXPECT_TRUE(Decode(Wire(1, 0, 0, v4 + '\x20')).ok());
  EXPECT_FALSE(Decode(Wire(1, 0, 0, v4 + '\x21')).ok());
  EXPECT_FALSE(Decode(Wire(1, 0, 0, v4 + '\xff')).ok());
}

TEST(LockPolicyTest, DamagedRequestsAreRefusedOrMeanSomeBoundedPolicy) {
  std::mt19937 random(1);
  const std::string good = EncodeLockPolicy(SomePolicy());
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string wire = good;
    for (int flips = 1 + static_cast<int>(random() % 4); flips > 0; --flips) {
      wire[random() % wire.size()] = static_cast<char>(random());
    }
    const absl::StatusOr<LockPolicy> policy = Decode(wire);
    if (!policy.ok()) continue;
    ++accepted;
    EXPECT_TRUE(CheckLockPolicy(*policy).ok());
    EXPECT_LE(EncodeLockPolicy(*policy).size(), wire.size());  // overlapping networks merge
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace shunt::net
