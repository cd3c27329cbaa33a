// SPDX-License-Identifier: Apache-2.0
// Services in the agent's configuration: what is read, what holds without being told, and what is said of
// each mistake.

#include "tools/service_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tools/agent_config.h"
#include "tools/check_config.h"
#include "tools/service_values.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::StartsWith;

net::SockAddr PeerAt(const char* text) {
  return *net::SockAddr::FromText(text);
}

// What is said of a configuration that is wrong; empty: it is right.
std::string MistakeIn(const std::string& text) {
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(text, "f");
  return config.ok() ? "" : std::string(config.status().message());
}

// A service that is right, and `more` lines of it from line 5 on.
std::string With(const std::string& more) {
  return "services:\n"
         "  - name: orders\n"
         "    address: 10.96.0.10:80\n"
         "    backends: [192.168.7.11:8080]\n    " +
         absl::StrReplaceAll(more, {{"\n", "\n    "}}) + "\n";
}

// The one service of a configuration that is right.
net::ServiceSpec SpecIn(const std::string& text) {
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(text, "f");
  if (config.ok() && config->services.size() == 1) return config->services[0];
  ADD_FAILURE() << config.status() << "\n" << text;
  return {.backends = {{}}};
}

TEST(ServiceConfigTest, ReadsEveryKey) {
  const auto config = ParseAgentConfig(
      "zone: a\n"
      "services:\n"
      "  - name: orders\n"
      "    address: [10.96.0.10:80/tcp, \"[fd00:96::10]:80/tcp\"]\n"
      "    policy: maglev\n"
      "    affinity: {by: user}\n"
      "    backends:\n"
      "      - {address: 192.168.7.11:8080, weight: 3, zone: a, labels: {version: v2}}\n"
      "      - {address: 192.168.7.12:8080, backup: true}\n"
      "      - 192.168.7.13:8080\n"
      "    subset: {version: v2}\n"
      "    discover: {file: /etc/shunt/orders.yaml}\n"
      "    connect: {attempts: 5, attempt-timeout: 1.5s}\n"
      "    health: {interval: 3s, timeout: 300ms, fall: 4, rise: 5}\n"
      "    outlier: {consecutive: 6, base-ejection: 31s, max-ejection: 301s, interval: 11s, max-ejected: "
      "20%,\n"
      "              panic: 40%}\n"
      "    slow-start: {window: 30s, aggression: 1.5, min-weight: 5%}\n"
      "    drain: {on-removal: 20s}\n"
      "    zone-aware: {min-cluster-size: 7}\n"
      "    network: container\n"
      "    getpeername: service\n",
      "f");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->zone, "a");
  ASSERT_THAT(config->services, SizeIs(1));
  const net::ServiceSpec& spec = config->services[0];
  EXPECT_EQ(spec.name, "orders");
  ASSERT_THAT(spec.addresses, SizeIs(2));
  EXPECT_EQ(spec.addresses[0].network, *net::ParseSubnet("10.96.0.10"));
  EXPECT_EQ(spec.addresses[1].network, *net::ParseSubnet("fd00:96::10"));
  EXPECT_EQ(spec.policy, net::PickPolicy::kMaglev);
  EXPECT_EQ(spec.affinity, net::AffinityKey::kUser);
  ASSERT_THAT(spec.backends, SizeIs(3));
  EXPECT_EQ(
      spec.backends[0],
      (net::BackendSpec{
          .address = PeerAt("192.168.7.11:8080"), .weight = 3, .zone = "a", .labels = {{"version", "v2"}}}));
  EXPECT_EQ(spec.backends[1], (net::BackendSpec{.address = PeerAt("192.168.7.12:8080"), .backup = true}));
  EXPECT_EQ(spec.backends[2], (net::BackendSpec{.address = PeerAt("192.168.7.13:8080")}));
  EXPECT_THAT(spec.subset, ElementsAre(Pair("version", "v2")));
  EXPECT_EQ(spec.discover, net::DiscoverSpec{.file = "/etc/shunt/orders.yaml"});
  EXPECT_EQ(spec.connect, (net::ConnectSpec{.attempts = 5, .attempt_timeout = milliseconds(1500)}));
  EXPECT_EQ(
      spec.health,
      (net::HealthSpec{
          .enabled = true, .interval = seconds(3), .timeout = milliseconds(300), .fall = 4, .rise = 5}));
  EXPECT_EQ(spec.outlier, (net::OutlierSpec{.enabled = true,
                                            .consecutive = 6,
                                            .interval = seconds(11),
                                            .base_ejection = seconds(31),
                                            .max_ejection = seconds(301),
                                            .max_ejected = 0.2}));
  EXPECT_DOUBLE_EQ(spec.panic, 0.4);
  EXPECT_EQ(spec.slow_start,
            (net::SlowStartSpec{.window = seconds(30), .aggression = 1.5, .min_weight = 0.05}));
  EXPECT_EQ(spec.close_after, nanoseconds(seconds(20)));
  EXPECT_EQ(spec.zone_aware_from, 7u);
  EXPECT_EQ(spec.network, net::ServiceNetwork::kContainer);
  EXPECT_EQ(spec.peer_name, net::PeerName::kService);
}

TEST(ServiceConfigTest, AnAffinityMayHaveATimeout) {
  EXPECT_EQ(SpecIn(With("affinity: {by: process}")).affinity_timeout, seconds(0));
  const net::ServiceSpec spec = SpecIn(With("policy: round-robin\naffinity: {by: container, timeout: 3h}"));
  EXPECT_EQ(spec.affinity, net::AffinityKey::kContainer);
  EXPECT_EQ(spec.affinity_timeout, seconds(10'800));
  EXPECT_EQ(MistakeIn(With("affinity: {by: user, timeout: 1s}")), "");
  EXPECT_EQ(MistakeIn(With("affinity: {by: user, timeout: 168h}")), "");
}

TEST(ServiceConfigTest, WhatIsLeftOutHasTheDefaultsOfEnvoyAndHaproxy) {
  const net::ServiceSpec spec = SpecIn(With(""));
  EXPECT_EQ(spec.policy, net::PickPolicy::kLeastRequest);
  EXPECT_EQ(spec.affinity, net::AffinityKey::kDefault);
  EXPECT_EQ(spec.backends[0].weight, 1u);
  EXPECT_FALSE(spec.backends[0].backup);
  EXPECT_TRUE(spec.discover.none());
  EXPECT_EQ(spec.connect.attempts, 3);
  EXPECT_EQ(spec.connect.attempt_timeout, milliseconds(1200));
  EXPECT_FALSE(spec.health.enabled);
  EXPECT_FALSE(spec.outlier.enabled);
  EXPECT_DOUBLE_EQ(spec.panic, 0.5);
  EXPECT_EQ(spec.slow_start.window, nanoseconds(0));
  EXPECT_EQ(spec.close_after, std::nullopt);
  EXPECT_EQ(spec.zone_aware_from, 6u);
  EXPECT_EQ(spec.network, net::ServiceNetwork::kHost);
  EXPECT_EQ(spec.peer_name, net::PeerName::kBackend);
}

TEST(ServiceConfigTest, ChecksThatAreThereHaveDefaultsOfTheirOwn) {
  for (const char* value : {"", " {}", " true"}) {
    const net::ServiceSpec spec = SpecIn(With(absl::StrCat("health:", value, "\noutlier:", value)));
    EXPECT_EQ(spec.health,
              (net::HealthSpec{
                  .enabled = true, .interval = seconds(2), .timeout = seconds(1), .fall = 3, .rise = 2}));
    EXPECT_EQ(spec.outlier, (net::OutlierSpec{.enabled = true,
                                              .consecutive = 5,
                                              .interval = seconds(10),
                                              .base_ejection = seconds(30),
                                              .max_ejection = seconds(300),
                                              .max_ejected = 0.1}));
  }
  const net::ServiceSpec none = SpecIn(With("health: false\noutlier: false"));
  EXPECT_EQ(none.health, net::HealthSpec());
  EXPECT_EQ(none.outlier, net::OutlierSpec());
}

TEST(ServiceConfigTest, ACheckTakesNoLongerThanItsInterval) {
  EXPECT_EQ(SpecIn(With("health: {interval: 500ms}")).health.timeout, milliseconds(500));
  EXPECT_EQ(SpecIn(With("health: {timeout: 2s}")).health.timeout, seconds(2));
}

TEST(ServiceConfigTest, SlowStartIsADurationOrMore) {
  EXPECT_EQ(SpecIn(With("slow-start: 30s")).slow_start,
            (net::SlowStartSpec{.window = seconds(30), .aggression = 1.0, .min_weight = 0.1}));
  EXPECT_EQ(SpecIn(With("slow-start: {window: 30s}")).slow_start, net::SlowStartSpec{.window = seconds(30)});
}

TEST(ServiceConfigTest, AllWeightsMayBeZero) {
  EXPECT_EQ(SpecIn("services: [{name: a, address: 10.0.0.1:1, backends: [{address: 1.2.3.4:5, weight: 0}]}]")
                .backends[0]
                .weight,
            0u);
}

TEST(ServiceConfigTest, BackendsMayAllBeDiscovered) {
  const std::string service = "services: [{name: a, address: 10.0.0.1:1, discover: ";
  EXPECT_EQ(SpecIn(service + "{dns: _http._tcp.orders.svc}}]").discover.dns, "_http._tcp.orders.svc");
  EXPECT_EQ(SpecIn(service + "{dns: orders.svc:8080}}]").discover.dns, "orders.svc:8080");
  EXPECT_EQ(SpecIn(service + "{file: /a b}}]").discover.file, "/a b");
  const net::EtcdSpec etcd = {.endpoints = {"https://a:1", "https://b:2"},
                              .prefix = "/services/orders",
                              .authority = "/ca",
                              .certificate = "/cert",
                              .key = "/key",
                              .user = "reader",
                              .password_file = "/word"};
  EXPECT_EQ(SpecIn(service + "{etcd: {endpoints: ['https://a:1', 'https://b:2/'], prefix: /services/orders, "
                             "ca: /ca, cert: /cert, key: /key, user: reader, password-file: /word}}}]")
                .discover,
            net::DiscoverSpec{.etcd = etcd});
  const net::KubernetesSpec kubernetes = {
      .service = "default/orders", .port = "http", .kubeconfig = "/etc/kube"};
  EXPECT_EQ(SpecIn(service + "{kubernetes: {service: default/orders, port: http, kubeconfig: /etc/kube}}}]")
                .discover,
            net::DiscoverSpec{.kubernetes = kubernetes});
}

TEST(ServiceConfigTest, AServiceOfUdpAloneIsInTheContainersNetwork) {
  EXPECT_EQ(SpecIn("services: [{name: a, address: 10.0.0.1:53/udp, backends: [1.2.3.4:53]}]").network,
            net::ServiceNetwork::kContainer);
  EXPECT_EQ(SpecIn("services: [{name: a, address: [10.0.0.1:53/udp, 10.0.0.1:53], health: true,\n"
                   "  backends: [1.2.3.4:53]}]")
                .network,
            net::ServiceNetwork::kHost);
}

struct RightAddress {
  const char* text;
  const char* network;
  uint16_t first, last;
  net::Transport transport;
  const char* again;
};

TEST(ServiceAddressTest, ReadsAddressesNetworksPortsAndTransports) {
  const RightAddress cases[] = {
      {"10.96.0.10:80", "10.96.0.10/32", 80, 80, net::Transport::kTcp, "10.96.0.10:80/tcp"},
      {"10.96.0.10:80/tcp", "10.96.0.10/32", 80, 80, net::Transport::kTcp, "10.96.0.10:80/tcp"},
      {"10.96.0.10:53/udp", "10.96.0.10/32", 53, 53, net::Transport::kUdp, "10.96.0.10:53/udp"},
      {"[fd00:96::10]:80/tcp", "fd00:96::10/128", 80, 80, net::Transport::kTcp, "[fd00:96::10]:80/tcp"},
      {"10.96.0.10:8000-8999", "10.96.0.10/32", 8000, 8999, net::Transport::kTcp, "10.96.0.10:8000-8999/tcp"},
      {"10.96.0.0/16:1-65535/udp", "10.96.0.0/16", 1, 65535, net::Transport::kUdp,
       "10.96.0.0/16:1-65535/udp"},
      {"10.96.7.7/16:80", "10.96.0.0/16", 80, 80, net::Transport::kTcp, "10.96.0.0/16:80/tcp"},
      {"[fd00:96::/64]:80", "fd00:96::/64", 80, 80, net::Transport::kTcp, "[fd00:96::/64]:80/tcp"},
      {"0.0.0.0/0:443", "0.0.0.0/0", 443, 443, net::Transport::kTcp, "0.0.0.0/0:443/tcp"},
      {"[::ffff:10.0.0.1]:80", "10.0.0.1/32", 80, 80, net::Transport::kTcp, "10.0.0.1:80/tcp"},
  };
  for (const RightAddress& right : cases) {
    const auto address = ParseServiceAddress(right.text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->network, *net::ParseSubnet(right.network)) << right.text;
    EXPECT_EQ(address->first_port, right.first) << right.text;
    EXPECT_EQ(address->last_port, right.last) << right.text;
    EXPECT_EQ(address->transport, right.transport) << right.text;
    EXPECT_EQ(ServiceAddressText(*address), right.again);
    EXPECT_EQ(*ParseServiceAddress(right.again), *address);
  }
}

struct Mistake {
  const char* text;
  const char* complaint;
};

TEST(ServiceConfigTest, NamesLineKeyAndRemedyOfAMistakeInAnAddress) {
  const Mistake cases[] = {
      {"10.96.0.10", "\"10.96.0.10\" should be ADDRESS:PORT, for example 10.96.0.10:80"},
      {"'fd00::1:80'",
       "\"fd00::1:80\" should be ADDRESS:PORT, for example 10.96.0.10:80, [fd00:96::10]:80/udp"},
      {"'[10.0.0.1]:80'", "\"[10.0.0.1]:80\" should be ADDRESS:PORT"},
      {"'[fd00::1:80'", "\"[fd00::1:80\" should be ADDRESS:PORT"},
      {"':80'", "\":80\" should be ADDRESS:PORT"},
      {"orders:80", "\"orders\" is not a network; write one like 10.0.0.0/8, fd00::/8 or 192.0.2.1"},
      {"10.0.0.0/33:80", "a number from 0 to 32"},
      {"10.0.0.1:0",
       "\"10.0.0.1:0\" should have a port from 1 to 65535, or a range of them such as 8000-8999"},
      {"10.0.0.1:65536", "should have a port from 1 to 65535"},
      {"10.0.0.1:http", "should have a port from 1 to 65535"},
      {"10.0.0.1:90-80", "should have a port from 1 to 65535"},
      {"10.0.0.1:80-", "should have a port from 1 to 65535"},
      {"10.0.0.1:0-80", "should have a port from 1 to 65535"},
      {"10.0.0.1:1-2-3", "should have a port from 1 to 65535"},
      {"10.0.0.1:80/sctp", "\"10.0.0.1:80/sctp\" should end in /tcp, /udp or a port"},
      {"10.0.0.1:80/", "should end in /tcp, /udp or a port"},
      {"0.0.0.0:80", "should be an address that programs connect to; any address is 0.0.0.0/0:80"},
      {"'[::]:80'", "any address is [::/0]:80"},
      {"{}", "should be ADDRESS:PORT, or a list of such"},
      {"[]", "should be ADDRESS:PORT, or a list of 1 to 64 such"},
  };
  for (const Mistake& bad : cases) {
    EXPECT_THAT(MistakeIn(absl::StrCat("services:\n  - name: a\n    address: ", bad.text,
                                       "\n    backends: [1.2.3.4:5]\n")),
                AllOf(StartsWith("f:3: \"services[0].address\": "), HasSubstr(bad.complaint)))
        << bad.text;
  }
  EXPECT_THAT(MistakeIn("services:\n- name: a\n  address:\n  - 10.0.0.1:80\n  - 10.0.0.1\n"),
              StartsWith("f:5: \"services[0].address[1]\": \"10.0.0.1\" should be ADDRESS:PORT"));
  std::string many = "services: [{name: a, address: [";
  for (int i = 0; i < 65; ++i) absl::StrAppend(&many, "10.0.0.", i, ":80, ");
  EXPECT_THAT(MistakeIn(many + "]}]"), HasSubstr("a list of 1 to 64 such"));
}

TEST(ServiceConfigTest, NamesLineKeyAndRemedyOfAMistakeInAKey) {
  const Mistake cases[] = {
      {"polcy: x",
       "f:5: unknown key \"services[0].polcy\": known are address, affinity, backends, connect, discover, "
       "drain, getpeername, health, limits, name, network, outlier, policy, slow-start, subset, zone-aware"},
      {"policy: lr",
       "f:5: \"services[0].policy\": \"lr\" should be one of round-robin, random, least-request, maglev, "
       "ring-hash, first, least-connections, least-rtt"},
      {"policy: least-connections\nnetwork: container",
       "f:5: \"services[0].policy\": counts connections in the host's network: should be least-request"},
      {"policy: [maglev]", "f:5: \"services[0].policy\": should be one of round-robin, "},
      {"policy: first\npolicy: first", "f:6: \"services[0].policy\" is there twice"},
      {"affinity: container", "f:5: \"services[0].affinity\": should be a mapping of keys to values"},
      {"affinity: {by: pod}",
       "f:5: \"services[0].affinity.by\": \"pod\" should be one of container, user, process, none"},
      {"affinity: {of: pod}", "f:5: unknown key \"services[0].affinity.of\": known are by, timeout"},
      {"affinity: {by: user, timeout: 0s}",
       "f:5: \"services[0].affinity.timeout\": \"0s\" should be a duration from 1s to 168h"},
      {"affinity: {by: user, timeout: 169h}", "f:5: \"services[0].affinity.timeout\": \"169h\" should be"},
      {"affinity: {timeout: 3h}",
       "f:5: \"services[0].affinity\": has a timeout and says of nobody that he stays: should be"},
      {"affinity: {by: none, timeout: 3h}",
       "f:5: \"services[0].affinity\": has a timeout and says of nobody"},
      {"policy: maglev\naffinity: {by: user, timeout: 3h}",
       "f:5: \"services[0].policy\": keeps connections together by hash"},
      {"affinity: {timeout: 3h}\npolicy: ring-hash",
       "f:6: \"services[0].policy\": keeps connections together by hash"},
      {"subset: v2", "f:5: \"services[0].subset\": should be a mapping of labels to values, {version: v2}"},
      {"subset: {a: [b]}", "f:5: \"services[0].subset\": \"a\" should have a text of at most 320 bytes"},
      {"subset: {a: b, a: c}", "f:5: \"services[0].subset\": \"a\" is there twice"},
      {"discover: {}",
       "f:5: \"services[0].discover\": should be one of {file: PATH}, {dns: NAME}, {etcd: "
       "...} and {kubernetes: ...}"},
      {"discover: {file: /a, dns: b:1}",
       "f:5: \"services[0].discover\": should be one of {file: PATH}, {dns: NAME}, {etcd: "
       "...} and {kubernetes: ...}"},
      {"discover: {file: orders.yaml}", "f:5: \"services[0].discover.file\": should be a path from / on"},
      {"discover: {dns: orders.svc}",
       "f:5: \"services[0].discover.dns\": should be _SERVICE._tcp.NAME, whose SRV records are asked for, or "
       "NAME:PORT"},
      {"discover: {dns: 'orders.svc:0'}", "NAME:PORT"},
      {"discover: {dns: '10.0.0.1:80'}", "NAME:PORT"},
      {"discover: {dns: '_http._tcp.a:80'}", "NAME:PORT"},
      {"discover: {dns: 'a..b:80'}", "NAME:PORT"},
      {"discover: {dns: 'a b:80'}", "NAME:PORT"},
      {"discover: {consul: x}",
       "f:5: unknown key \"services[0].discover.consul\": known are dns, etcd, file, kubernetes"},
      {"discover: {etcd: {prefix: /a}}", "discover.etcd\": has no endpoints: [https://HOST:PORT]"},
      {"discover: {etcd: {endpoints: ['http://a:1']}}", "discover.etcd\": has no prefix: /services/orders"},
      {"discover: {etcd: {endpoints: ['a:1'], prefix: /a}}",
       "endpoints\": \"a:1\" should be https://HOST:PORT or http://HOST:PORT"},
      {"discover: {etcd: {endpoints: ['https://a:1'], prefix: /a, cert: /c}}",
       "discover.etcd\": should be cert and key together, or none of them"},
      {"discover: {etcd: {endpoints: ['http://a:1'], prefix: /a, user: u, password-file: /p}}",
       "should be https:// at all endpoints"},
      {"discover: {kubernetes: {service: orders}}",
       "discover.kubernetes.service\": should be NAMESPACE/NAME of a Service"},
      {"connect: {attempts: 0}",
       "f:5: \"services[0].connect.attempts\": should be a whole number from 1 to 16"},
      {"connect: {attempts: 17}", "should be a whole number from 1 to 16"},
      {"connect: {attempts: 1.5}", "should be a whole number from 1 to 16"},
      {"connect: {attempts: -1}", "should be a whole number from 1 to 16"},
      {"connect: {attempts: ''}", "should be a whole number from 1 to 16"},
      {"connect: {attempt-timeout: 1.2}",
       "f:5: \"services[0].connect.attempt-timeout\": \"1.2\" should be a duration as Go writes it"},
      {"connect: {attempt-timeout: 9ms}",
       "f:5: \"services[0].connect.attempt-timeout\": \"9ms\" should be a duration from 10ms to 10m"},
      {"connect: {attempt-timeout: 11m}", "should be a duration from 10ms to 10m"},
      {"connect: {attempt-timeout: -1s}", "should be a duration from 10ms to 10m"},
      {"connect: {retries: 3}", "f:5: unknown key \"services[0].connect.retries\": known are attempt"},
      {"health: no", "f:5: \"services[0].health\": should be a mapping of keys to values, or false"},
      {"health: []", "f:5: \"services[0].health\": should be a mapping of keys to values"},
      {"health: {interval: 1ms}",
       "f:5: \"services[0].health.interval\": \"1ms\" should be a duration from 100ms"},
      {"health: {interval: 25h}", "to 24h"},
      {"health: {timeout: 0}",
       "f:5: \"services[0].health.timeout\": \"0\" should be a duration from 1ms to 5m"},
      {"health: {timeout: 3s}",
       "f:5: \"services[0].health\": the timeout should be no longer than the interval"},
      {"health: {fall: 0}", "f:5: \"services[0].health.fall\": should be a whole number from 1 to 1000"},
      {"health: {rise: 1001}", "f:5: \"services[0].health.rise\": should be a whole number from 1 to 1000"},
      {"health: {path: /}",
       "f:5: unknown key \"services[0].health.path\": known are fall, interval, rise, timeout"},
      {"outlier: {consecutive: 0}",
       "f:5: \"services[0].outlier.consecutive\": should be a whole number from 1 to 1000"},
      {"outlier: {max-ejected: 10}",
       "f:5: \"services[0].outlier.max-ejected\": should be a percentage from 0% to 100%, for example 10%"},
      {"outlier: {panic: 101%}",
       "f:5: \"services[0].outlier.panic\": should be a percentage from 0% to 100%"},
      {"outlier: {panic: -1%}", "should be a percentage"},
      {"outlier: {panic: nan%}", "should be a percentage"},
      {"outlier: {panic: '%'}", "should be a percentage"},
      {"outlier: {base-ejection: 0}",
       "f:5: \"services[0].outlier.base-ejection\": \"0\" should be a duration from 100ms to 24h"},
      {"outlier: {base-ejection: 301s}",
       "f:5: \"services[0].outlier\": max-ejection (300s if left out) should be no shorter than "
       "base-ejection"},
      {"outlier: {interval: 10}", "f:5: \"services[0].outlier.interval\": \"10\" should be a duration as Go"},
      {"slow-start: 30", "f:5: \"services[0].slow-start\": \"30\" should be a duration as Go writes it"},
      {"slow-start: 25h", "f:5: \"services[0].slow-start\": \"25h\" should be a duration from 0 to 24h"},
      {"slow-start: {aggression: 2}",
       "f:5: \"services[0].slow-start\": should be a duration, or a mapping with a window"},
      {"slow-start: {window: 1s, aggression: 0}",
       "f:5: \"services[0].slow-start.aggression\": should be a number above 0, and at most 100"},
      {"slow-start: {window: 1s, min-weight: 10}",
       "f:5: \"services[0].slow-start.min-weight\": should be a percentage"},
      {"drain: 30s", "f:5: \"services[0].drain\": should be a mapping of keys to values"},
      {"drain: {on-removal: -1s}",
       "f:5: \"services[0].drain.on-removal\": \"-1s\" should be a duration from 0 to 24h"},
      {"zone-aware: {min-cluster-size: x}",
       "f:5: \"services[0].zone-aware.min-cluster-size\": should be a whole number from 0 to 1000000"},
      {"network: pod", "f:5: \"services[0].network\": \"pod\" should be one of host, container"},
      {"getpeername: vip", "f:5: \"services[0].getpeername\": \"vip\" should be one of backend, service"},
  };
  for (const Mistake& bad : cases) {
    EXPECT_THAT(MistakeIn(With(bad.text)), AllOf(StartsWith("f:"), HasSubstr(bad.complaint))) << bad.text;
    EXPECT_THAT(MistakeIn(With(bad.text)), Not(HasSubstr("\n")));
  }
}

TEST(ServiceConfigTest, NamesLineKeyAndRemedyOfAMistakeInABackend) {
  const Mistake cases[] = {
      {"192.168.7.11",
       "f:6: \"services[0].backends[1]\": \"192.168.7.11\" should be ADDRESS:PORT, for example"},
      {"orders.svc:80", "(names are for discover: {dns: NAME:PORT})"},
      {"192.168.7.11:0",
       "f:6: \"services[0].backends[1]\": \"192.168.7.11:0\" should have a port from 1 to 65535"},
      {"0.0.0.0:80", "f:6: \"services[0].backends[1]\": \"0.0.0.0:80\" should be the address of one machine"},
      {"224.0.0.1:80", "should be the address of one machine"},
      {"[]", "f:6: \"services[0].backends[1]\": should be ADDRESS:PORT or a mapping, {address: "},
      {"{weight: 3}", "f:6: \"services[0].backends[1]\": has no address: ADDRESS:PORT"},
      {"{address: x}", "f:6: \"services[0].backends[1].address\": \"x\" should be ADDRESS:PORT"},
      {"{address: 1.2.3.4:5, weight: 65536}",
       "f:6: \"services[0].backends[1].weight\": should be a whole number from 0 to 65535"},
      {"{address: 1.2.3.4:5, weight: 1.5}", "should be a whole number from 0 to 65535"},
      {"{address: 1.2.3.4:5, weigth: 1}",
       "f:6: unknown key \"services[0].backends[1].weigth\": known are address, backup, labels, weight, "
       "zone"},
      {"{address: 1.2.3.4:5, backup: 1}", "f:6: \"services[0].backends[1].backup\": should be true or false"},
      {"{address: 1.2.3.4:5, zone: ''}",
       "f:6: \"services[0].backends[1].zone\": should be a text of 1 to 320"},
      {"{address: 1.2.3.4:5, labels: [a]}",
       "f:6: \"services[0].backends[1].labels\": should be a mapping of labels to values"},
      {"1.2.3.3:80",
       "f:6: \"services[0].backends[1]\": 1.2.3.3:80 is there twice; once, with the sum of the weights"},
      {"'[::ffff:1.2.3.3]:80'", "f:6: \"services[0].backends[1]\": 1.2.3.3:80 is there twice"},
      {"10.96.0.10:85",
       "f:6: \"services[0].backends[1]\": 10.96.0.10:85 is an address of the service itself: what is "
       "connected"},
  };
  for (const Mistake& bad : cases) {
    EXPECT_THAT(MistakeIn(absl::StrCat("services:\n- name: orders\n  address: 10.96.0.10:80-89\n  backends:\n"
                                       "  - 1.2.3.3:80\n  - ",
                                       bad.text, "\n")),
                AllOf(StartsWith("f:6: "), HasSubstr(bad.complaint)))
        << bad.text;
  }
  EXPECT_THAT(MistakeIn("services: [{name: a, address: 1.1.1.1:1, backends: 1.2.3.4:5}]"),
              HasSubstr("\"services[0].backends\": should be a list of backends, [192.168.7.11:8080]"));
}

TEST(ServiceConfigTest, NamesWhatAServiceLacksOrSharesWithAnother) {
  const Mistake cases[] = {
      {"services: {}", "f:1: \"services\": should be a list of services"},
      {"services:\n- orders", "f:2: \"services[0]\": should be a mapping of keys to values"},
      {"services:\n- address: 10.0.0.1:1\n  backends: [1.2.3.4:5]", "f:2: \"services[0]\": has no name"},
      {"services:\n- name: a\n  backends: [1.2.3.4:5]",
       "f:2: \"services[0]\": a has no address: ADDRESS:PORT"},
      {"services:\n- name: a\n  address: 10.0.0.1:1",
       "f:2: \"services[0]\": a should have backends, or discover: with file, dns, "
       "etcd or kubernetes"},
      {"services:\n- name: a\n  address: 10.0.0.1:1\n  backends: []",
       "f:2: \"services[0]\": a should have backends"},
      {"services:\n"
       "- {name: a, address: 10.0.0.1:1, backends: [1.2.3.4:5]}\n"
       "- {name: b, address: 10.0.0.2:1, backends: [1.2.3.4:5]}\n"
       "- {name: a, address: 10.0.0.3:1, backends: [1.2.3.4:5]}",
       "f:4: \"services[2].name\": \"a\" is the name of the service of line 2 already"},
      {"services:\n"
       "- {name: a, address: 10.0.0.1:1, backends: [1.2.3.4:5]}\n"
       "- {name: b, address: ['[::ffff:10.0.0.1]:1/tcp'], backends: [1.2.3.4:5]}",
       "f:3: \"services[1].address[0]\": 10.0.0.1:1/tcp is there already, in line 2: each address should "
       "belong"},
      {"services:\n- {name: a, address: 10.0.0.1:1/udp, health: true, backends: [1.2.3.4:5]}",
       "f:2: \"services[0].health\": is for TCP: should be left out of a service of UDP"},
      {"services:\n- {name: a, address: 10.0.0.1:1/udp, connect: {attempts: 2}, backends: [1.2.3.4:5]}",
       "f:2: \"services[0].connect\": is for TCP: should be left out of a service of UDP"},
      {"services:\n- {name: a, address: 10.0.0.1:1/udp, network: host, backends: [1.2.3.4:5]}",
       "f:2: \"services[0].network\": should be container: UDP is balanced in there only"},
      {"services:\n- {name: a, address: 10.0.0.0/8:1, network: container, backends: [10.2.3.4:1]}",
       "f:2: \"services[0].backends[0]\": 10.2.3.4:1 is an address of the service itself"},
      {"zone: ''", "f:1: \"zone\": should be a text of 1 to 320 bytes"},
      {"services: [{name: a, address: 10.0.0.1:1, backends: [1.2.3.4:5, *x]}]", "f:1: "},
  };
  for (const Mistake& bad : cases) EXPECT_THAT(MistakeIn(bad.text), StartsWith(bad.complaint)) << bad.text;
}

TEST(ServiceConfigTest, ANameIsOneWordOfALabelsLetters) {
  const auto with_name = [](const std::string& name) {
    return MistakeIn("services:\n- name: '" + name + "'\n  address: 10.0.0.1:1\n  backends: [1.2.3.4:5]\n");
  };
  for (const std::string& name : {std::string("a"), std::string("0.b-c"), std::string(63, 'x')})
    EXPECT_EQ(with_name(name), "") << name;
  for (const std::string& name : {std::string(), std::string(64, 'x'), std::string("A"), std::string("-a"),
                                  std::string("a."), std::string("a b"), std::string("a_b")}) {
    EXPECT_EQ(
        with_name(name),
        "f:2: \"services[0].name\": should be 1 to 63 of a-z, 0-9, \"-\" and \".\", beginning and ending "
        "with a letter or a digit")
        << name;
  }
}

TEST(ServiceConfigTest, ANetworkMayHaveItsBackendsInsideWhereTheSocketMoves) {
  EXPECT_EQ(MistakeIn("services: [{name: a, address: 10.0.0.0/8:1, backends: [10.2.3.4:1]}]"), "");
  EXPECT_EQ(MistakeIn("services: [{name: a, address: 10.0.0.1:1, backends: [10.0.0.1:2]}]"), "");
}

TEST(ServiceConfigTest, SaysOfWhatThereIsTooMuch) {
  std::string services = "services:\n";
  for (size_t i = 0; i <= kMostServices; ++i)
    absl::StrAppend(&services, "- {name: s", i, ", address: 127.0.0.1:", i + 1, ", discover: {file: /a}}\n");
  EXPECT_THAT(MistakeIn(services), AllOf(StartsWith(absl::StrCat("f:", kMostServices + 2, ": ")),
                                         HasSubstr("is one too many: at most 20000 in a file")));
  // An alias makes much of little.
  std::string backends = "services:\n- name: s0\n  address: 127.0.0.1:1\n  backends: &b\n";
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&backends, "  - 10.0.", i / 250, ".", i % 250, ":1\n");
  for (int i = 1; i <= 200; ++i)
    absl::StrAppend(&backends, "- {name: s", i, ", address: 127.0.0.1:", i + 1, ", backends: *b}\n");
  EXPECT_THAT(MistakeIn(backends),
              HasSubstr("\"services[200].backends[0]\": is one too many: at most 200000"));
}

// ---- what is said of a service that is right

TEST(ExplainServicesTest, SaysWhatEachLineMeansAndWhichBackendsGetNothing) {
  const auto explained = ExplainConfig(
      "zone: a\n"
      "services:\n"
      "  - name: orders\n"
      "    address: 10.0.0.1:80\n"
      "    subset: {version: v2}\n"
      "    backends:\n"
      "      - {address: 1.2.3.4:5, labels: {version: v2}}\n"
      "      - {address: 1.2.3.5:5, labels: {version: v2}, weight: 0}\n"
      "      - {address: 1.2.3.6:5, labels: {version: v1}, backup: true}\n"
      "      - {address: '[fd00::1]:5', labels: {version: v2}}\n"
      "  - {name: b, address: 10.0.0.2:80, discover: {file: /b}, health: true, outlier: }\n",
      "f");
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_THAT(*explained, HasSubstr("f:1: zone: a -- "));
  EXPECT_THAT(*explained,
              HasSubstr("f:3: service orders, 1 of 2: 4 backends, 1 of them for when the others"));
  EXPECT_THAT(*explained, HasSubstr("; not checked\n"));
  EXPECT_THAT(*explained, HasSubstr("f:4:   address: 10.0.0.1:80 -- "));
  EXPECT_THAT(*explained, Not(HasSubstr("f:7:")));
  EXPECT_THAT(*explained, HasSubstr("f:8:   backend 1.2.3.5:5: NO CONNECTIONS: its weight is 0\n"));
  EXPECT_THAT(*explained, HasSubstr("f:9:   backend 1.2.3.6:5: NO CONNECTIONS: it has not all labels"));
  EXPECT_THAT(*explained,
              HasSubstr("f:10:   backend [fd00::1]:5: NO CONNECTIONS: all addresses of the service"));
  EXPECT_THAT(*explained,
              HasSubstr("f:11: service b, 2 of 2: 0 backends, and those that are discovered; checked; "
                        "ejected when connects fail\n"));
}

TEST(ExplainServicesTest, EveryKeyHasAMeaning) {
  const std::pair<const char*, const char*> keys[] = {
      {"policy: first", "policy"},
      {"affinity: {by: user}", "by"},
      {"affinity: {by: user, timeout: 3h}", "timeout"},
      {"subset: {a: b}", "subset"},
      {"discover: {file: /a}", "file"},
      {"discover: {dns: 'a:1'}", "dns"},
      {"connect: {attempts: 3}", "attempts"},
      {"connect: {attempt-timeout: 1s}", "attempt-timeout"},
      {"connect: {race-after: 250ms}", "race-after"},
      {"limits: {max-connections: 1}", "max-connections"},
      {"limits: {max-connections: 1, queue: 1}", "queue"},
      {"limits: {max-connections: 1, queue-timeout: 1s}", "queue-timeout"},
      {"health: {interval: 1s}", "interval"},
      {"health: {timeout: 1s}", "timeout"},
      {"health: {fall: 1}", "fall"},
      {"health: {rise: 1}", "rise"},
      {"outlier: {consecutive: 1}", "consecutive"},
      {"outlier: {base-ejection: 1s}", "base-ejection"},
      {"outlier: {max-ejection: 30s}", "max-ejection"},
      {"outlier: {interval: 1s}", "interval"},
      {"outlier: {max-ejected: 1%}", "max-ejected"},
      {"outlier: {panic: 1%}", "panic"},
      {"slow-start: {window: 1s}", "slow-start"},
      {"drain: {on-removal: 1s}", "on-removal"},
      {"zone-aware: {min-cluster-size: 1}", "min-cluster-size"},
      {"network: host", "network"},
      {"getpeername: service", "getpeername"}};
  for (const auto& [line, key] : keys) {
    const auto explained = ExplainConfig(With(line), "f");
    ASSERT_TRUE(explained.ok()) << explained.status();
    EXPECT_THAT(*explained, HasSubstr(absl::StrCat("f:5:   ", key, ": "))) << line;
  }
}

}  // namespace
}  // namespace shunt
