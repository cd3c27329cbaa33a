// SPDX-License-Identifier: Apache-2.0
#include "net/listener_census.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "net/sock_addr.h"

namespace shunt::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

IpAddress Ip(const char* text) {
  return *IpAddress::Parse(text);
}

struct Options {
  bool v6_only = false;
  bool reuse_port = false;
  bool listen = true;
};

Fd Bound(const SockAddr& address, const Options& options = {}) {
  Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int v6_only = options.v6_only ? 1 : 0;
  const int reuse_port = options.reuse_port ? 1 : 0;
  if (address.family() == AF_INET6)
    SHUNT_CHECK(setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) == 0);
  SHUNT_CHECK(setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &reuse_port, sizeof(reuse_port)) == 0);
  SHUNT_CHECK(bind(fd.get(), address.data(), address.size()) == 0);
  if (options.listen) SHUNT_CHECK(listen(fd.get(), 16) == 0);
  return fd;
}

uint16_t PortOf(const Fd& fd) {
  sockaddr_in6 address;
  socklen_t size = sizeof(address);
  SHUNT_CHECK(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin6_port);  // sin_port lies at the same place
}

uint64_t CookieOf(const Fd& fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  SHUNT_CHECK(getsockopt(fd.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0);
  return cookie;
}

class ListenerCensusTest : public testing::Test {
 protected:
  std::vector<ListeningSocket> All(sa_family_t family, uint16_t port) {
    std::vector<ListeningSocket> all;
    EXPECT_TRUE(census_.Visit(family, port, [&](const ListeningSocket& one) { all.push_back(one); }));
    return all;
  }
  std::vector<uint64_t> Cookies(sa_family_t family, uint16_t port) {
    std::vector<uint64_t> cookies;
    for (const ListeningSocket& one : All(family, port)) cookies.push_back(one.cookie);
    return cookies;
  }

  ListenerCensus census_ = ListenerCensus::Open().value();
};

TEST_F(ListenerCensusTest, KnowsAListenerByItsCookieUntilItIsClosed) {
  Fd fd = Bound({Ip("127.0.0.1"), 0});
  const uint16_t port = PortOf(fd);
  EXPECT_THAT(Cookies(AF_INET, port), ElementsAre(CookieOf(fd)));
  EXPECT_THAT(Cookies(AF_INET6, port), IsEmpty());
  fd.reset();
  EXPECT_THAT(Cookies(AF_INET, port), IsEmpty());
}

TEST_F(ListenerCensusTest, ASocketThatIsOnlyBoundDoesNotListen) {
  const Fd fd = Bound({Ip("127.0.0.1"), 0}, {.listen = false});
  EXPECT_THAT(Cookies(AF_INET, PortOf(fd)), IsEmpty());
}

TEST_F(ListenerCensusTest, ListsAllThatShareAPort) {
  const Fd first = Bound({Ip("0.0.0.0"), 0}, {.reuse_port = true});
  const uint16_t port = PortOf(first);
  std::vector<Fd> others;
  std::vector<uint64_t> cookies = {CookieOf(first)};
  // More than one of the kernel's messages can hold.
  for (int i = 0; i < 400; ++i) {
    others.push_back(Bound({Ip("0.0.0.0"), port}, {.reuse_port = true}));
    cookies.push_back(CookieOf(others.back()));
  }
  EXPECT_THAT(Cookies(AF_INET, port), testing::UnorderedElementsAreArray(cookies));
}

TEST_F(ListenerCensusTest, TellsAddressesAndWhetherIPv4ClientsAreTaken) {
  const Fd dual = Bound({Ip("::"), 0});
  const Fd only6 = Bound({Ip("::1"), 0}, {.v6_only = true});
  const Fd mapped = Bound({Ip("127.0.0.1"), 0, AF_INET6});
  ASSERT_EQ(All(AF_INET6, PortOf(dual)).size(), 1u);
  EXPECT_FALSE(All(AF_INET6, PortOf(dual))[0].v6_only);
  EXPECT_EQ(All(AF_INET6, PortOf(dual))[0].ip, Ip("::"));
  EXPECT_TRUE(All(AF_INET6, PortOf(only6))[0].v6_only);
  EXPECT_EQ(All(AF_INET6, PortOf(only6))[0].ip, Ip("::1"));
  EXPECT_EQ(All(AF_INET6, PortOf(mapped))[0].ip, Ip("127.0.0.1"));
}

// What Accepts() says is what the kernel does.
TEST_F(ListenerCensusTest, AcceptsWhatTheKernelConnects) {
  const struct {
    SockAddr address;
    bool v6_only;
  } listeners[] = {{{Ip("0.0.0.0"), 0}, false},
                   {{Ip("127.0.0.1"), 0}, false},
                   {{Ip("127.0.0.2"), 0}, false},
                   {{Ip("::"), 0}, false},
                   {{Ip("::"), 0}, true},
                   {{Ip("::1"), 0}, false},
                   {{Ip("0.0.0.0"), 0, AF_INET6}, false},
                   {{Ip("127.0.0.1"), 0, AF_INET6}, false}};
  for (const auto& [address, v6_only] : listeners) {
    const Fd fd = Bound(address, {.v6_only = v6_only});
    const std::vector<ListeningSocket> found = All(address.family(), PortOf(fd));
    ASSERT_EQ(found.size(), 1u);
    for (const char* const destination : {"127.0.0.1", "127.0.0.2", "::1"}) {
      const SockAddr to(Ip(destination), PortOf(fd));
      const Fd client(socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
      EXPECT_EQ(found[0].Accepts(Ip(destination)), connect(client.get(), to.data(), to.size()) == 0)
          << address.ToString() << (v6_only ? " (IPv6 only)" : "") << " from " << destination;
    }
  }
}

}  // namespace
}  // namespace shunt::net
