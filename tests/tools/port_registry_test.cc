// SPDX-License-Identifier: Apache-2.0
// A host port is promised to one container at a time.

#include "tools/port_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

net::Publish Port(const char* text) {
  return *net::ParsePublish(text);
}

const ContainerKey kFirst{1000, "first"};
const ContainerKey kSecond{1000, "second"};

TEST(PortRegistryTest, KeepsWhatIsTakenFromASecondContainerAndSaysWhoHasIt) {
  PortRegistry registry;
  std::vector<net::Publish> first{Port("8080:80")};
  std::vector<net::Publish> second{Port("8080:90"), Port("8081:91")};
  EXPECT_THAT(registry.Claim(kFirst, first), IsEmpty());
  const auto conflicts = registry.Claim(kSecond, second);
  ASSERT_THAT(conflicts, SizeIs(1));
  EXPECT_EQ(conflicts[0].wanted, Port("8080:90"));
  EXPECT_EQ(conflicts[0].holder, kFirst);
  EXPECT_THAT(second, ElementsAre(Port("8081:91")));
  EXPECT_EQ(registry.containers(), 2u);
}

TEST(PortRegistryTest, OneContainerMayClaimItsPortsAgainForEachListenerAndTheLastReleaseFreesThem) {
  PortRegistry registry;
  for (int i = 0; i < 2; ++i) {
    std::vector<net::Publish> ports{Port("8080:80")};
    EXPECT_THAT(registry.Claim(kFirst, ports), IsEmpty());
    EXPECT_THAT(ports, SizeIs(1));
  }
  registry.Release(kFirst);
  std::vector<net::Publish> ports{Port("8080:80")};
  EXPECT_THAT(registry.Claim(kSecond, ports), SizeIs(1));
  registry.Release(kFirst);
  ports = {Port("8080:80")};
  EXPECT_THAT(registry.Claim(kSecond, ports), IsEmpty());
  registry.Release(kSecond);
  registry.Release(kSecond);
  EXPECT_EQ(registry.containers(), 0u);
}

TEST(PortRegistryTest, ContainersOfOnePodShareWhatBothWant) {
  PortRegistry registry;
  std::vector<net::Publish> first{Port("8080:80"), Port("8081:81")};
  std::vector<net::Publish> second{Port("8080:80"), Port("8081:82")};
  EXPECT_THAT(registry.Claim(kFirst, first, "prod/web"), IsEmpty());
  // One number for two ports of the pod is none for the second.
  EXPECT_THAT(registry.Claim(kSecond, second, "prod/web"), SizeIs(1));
  EXPECT_THAT(second, ElementsAre(Port("8080:80")));
  // It is the pod's as long as one of the two is there.
  registry.Release(kFirst);
  std::vector<net::Publish> ports{Port("8080:80")};
  EXPECT_THAT(registry.Claim({1000, "third"}, ports, "prod/db"), SizeIs(1));
  ports = {Port("8080:80")};
  EXPECT_THAT(registry.Claim({1000, "fourth"}, ports), SizeIs(1));
  // The name of a pod is the word of a user's runtime, which counts among this user's containers.
  ports = {Port("8080:80")};
  EXPECT_THAT(registry.Claim({1001, "second"}, ports, "prod/web"), SizeIs(1));
}

TEST(PortRegistryTest, OneNumberOnDifferentHostAddressesIsNoConflict) {
  PortRegistry registry;
  std::vector<net::Publish> first{Port("127.0.0.1:8080:80")};
  std::vector<net::Publish> second{Port("127.0.0.2:8080:80")};
  std::vector<net::Publish> everywhere{Port("8080:80")};
  EXPECT_THAT(registry.Claim(kFirst, first), IsEmpty());
  EXPECT_THAT(registry.Claim(kSecond, second), IsEmpty());
  EXPECT_THAT(registry.Claim({1000, "third"}, everywhere), SizeIs(1));
}

TEST(PortRegistryTest, TheSameIdOfAnotherUserIsAnotherContainer) {
  PortRegistry registry;
  std::vector<net::Publish> ports{Port("8080:80")};
  EXPECT_THAT(registry.Claim({1000, "x"}, ports), IsEmpty());
  EXPECT_THAT(registry.Claim({1001, "x"}, ports), SizeIs(1));
}

}  // namespace
}  // namespace shunt
