// SPDX-License-Identifier: Apache-2.0
// Publish: the notation of -p, and lists that contradict themselves.

#include "net/publish.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

namespace shunt::net {
namespace {

using testing::HasSubstr;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(Publish, PortsAloneArePublishedOnAnyAddress) {
  const absl::StatusOr<Publish> publish = ParsePublish("8080:80");
  ASSERT_TRUE(publish.ok()) << publish.status();
  EXPECT_EQ(publish->host_ip, std::nullopt);
  EXPECT_EQ(publish->host_port, 8080);
  EXPECT_EQ(publish->port, 80);
}

TEST(Publish, AHostAddressIsKept) {
  EXPECT_EQ(ParsePublish("127.0.0.1:8080:80").value(),
            (Publish{IpAddress::Parse("127.0.0.1").value(), 8080, 80}));
  EXPECT_EQ(ParsePublish("[2001:db8::1]:1:65535").value(),
            (Publish{IpAddress::Parse("2001:db8::1").value(), 1, 65535}));
  EXPECT_EQ(ParsePublish("[::]:8080:80/tcp").value(), (Publish{IpAddress(), 8080, 80}));
}

TEST(Publish, TcpMayBeSaid) {
  EXPECT_EQ(ParsePublish("8080:80/tcp").value(), ParsePublish("8080:80").value());
}

TEST(Publish, TextSurvivesTheRoundTrip) {
  for (const char* text : {"8080:80", "127.0.0.1:8080:80", "[::1]:8080:80"}) {
    EXPECT_EQ(ParsePublish(text).value().ToString(), text);
  }
}

struct Refused {
  const char* text;
  const char* why;
};

TEST(Publish, WhatIsWrongIsRefusedByNameAndReason) {
  const Refused cases[] = {{"8080:80/udp", "UDP"},
                           {"8080:80/sctp", "/sctp"},
                           {"8080:80/", "protocol"},
                           {"8080:80/TCP", "protocol"},
                           {"8080:80/tcp/tcp", "protocol"},
                           {"", "HOSTPORT:PORT"},
                           {"80", "HOSTPORT:PORT"},
                           {"0:80", "host port"},
                           {"8080:0", "container port"},
                           {"65536:80", "host port"},
                           {"8080:65536", "container port"},
                           {"-1:80", "host port"},
                           {"+1:80", "host port"},
                           {" 1:80", "host port"},
                           {"1:80 ", "container port"},
                           {":80", "host port"},
                           {"8080:", "container port"},
                           {":", "host port"},
                           {"::", "IP address"},
                           {":8080:80", "IP address"},
                           {"8000-8010:80", "host port"},
                           {"http:80", "host port"},
                           {"localhost:8080:80", "IP address"},
                           {"1.2.3:8080:80", "IP address"},
                           {"1.2.3.4::80", "host port"},
                           {"::1:8080:80", "brackets"},
                           {"[::1:8080:80", "brackets"},
                           {"::1]:8080:80", "brackets"},
                           {"[127.0.0.1]:8080:80", "IP address"},
                           {"[]:8080:80", "IP address"},
                           {"[::1%1]:8080:80", "IP address"},
                           {"[::1]8080:80", "brackets"}};
  for (const Refused& refused : cases) {
    const absl::StatusOr<Publish> publish = ParsePublish(refused.text);
    ASSERT_FALSE(publish.ok()) << refused.text;
    EXPECT_THAT(Message(publish.status()), HasSubstr(std::string("\"") + refused.text + "\""));
    EXPECT_THAT(Message(publish.status()), HasSubstr(refused.why)) << refused.text;
  }
}

std::vector<Publish> List(std::initializer_list<const char*> texts) {
  std::vector<Publish> list;
  for (const char* text : texts) list.push_back(ParsePublish(text).value());
  return list;
}

TEST(PublishList, DifferentPortsGoTogether) {
  EXPECT_TRUE(CheckPublishList({}).ok());
  EXPECT_TRUE(CheckPublishList(List({"8080:80"})).ok());
  EXPECT_TRUE(CheckPublishList(List({"8080:80", "8443:443", "80:8080"})).ok());
}

TEST(PublishList, OneHostPortTwiceIsRefusedWithBothNamed) {
  const absl::Status status = CheckPublishList(List({"1:1", "8080:80", "127.0.0.1:8080:81"}));
  EXPECT_THAT(Message(status), HasSubstr("\"8080:80\""));
  EXPECT_THAT(Message(status), HasSubstr("\"127.0.0.1:8080:81\""));
  EXPECT_THAT(Message(status), HasSubstr("host port 8080"));
}

TEST(PublishList, OneContainerPortTwiceIsRefusedWithBothNamed) {
  const absl::Status status = CheckPublishList(List({"8080:80", "8081:80"}));
  EXPECT_THAT(Message(status), HasSubstr("\"8080:80\""));
  EXPECT_THAT(Message(status), HasSubstr("\"8081:80\""));
  EXPECT_THAT(Message(status), HasSubstr("container port 80"));
}

TEST(PublishList, AddressesThatDoNotOverlapMayShareAPort) {
  EXPECT_TRUE(CheckPublishList(List({"127.0.0.1:8080:80", "127.0.0.2:8080:81"})).ok());
  EXPECT_TRUE(CheckPublishList(List({"127.0.0.1:8080:80", "[::1]:8080:80"})).ok());
  EXPECT_TRUE(CheckPublishList(List({"0.0.0.0:8080:80", "[::1]:8080:80"})).ok());
}

TEST(PublishList, AContainerPortHasOnePlaceInEachFamily) {
  EXPECT_TRUE(CheckPublishList(List({"127.0.0.1:8080:80", "[::1]:8081:80"})).ok());
  const absl::Status status = CheckPublishList(List({"127.0.0.1:8080:80", "127.0.0.2:8081:80"}));
  EXPECT_THAT(Message(status), HasSubstr("container port 80"));
  EXPECT_THAT(Message(status), HasSubstr("IPv4 and an IPv6"));
  EXPECT_FALSE(CheckPublishList(List({"[::1]:8080:80", "[::2]:8081:80"})).ok());
}

TEST(PublishList, WildcardsOverlap) {
  EXPECT_FALSE(CheckPublishList(List({"127.0.0.1:8080:80", "127.0.0.1:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"0.0.0.0:8080:80", "127.0.0.1:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"127.0.0.1:8080:80", "0.0.0.0:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"[::]:8080:80", "127.0.0.1:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"127.0.0.1:8080:80", "[::]:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"[::]:8080:80", "[::1]:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"0.0.0.0:8080:80", "[::]:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"[::]:8080:80", "0.0.0.0:8080:81"})).ok());
  EXPECT_FALSE(CheckPublishList(List({"[::1]:8080:80", "8080:81"})).ok());
}

}  // namespace
}  // namespace shunt::net
