// SPDX-License-Identifier: Apache-2.0
// How the API server is found: what a pod's environment says, and kubeconfigs.

#include "tools/kube_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kKubeconfig[] = R"(apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: there, context: {cluster: x, user: y}}
- {name: here, context: {cluster: c, user: u, namespace: n}}
clusters:
- name: c
  cluster: {server: "https://10.0.0.1:6443/k8s/", certificate-authority-data: Q0E=}
users:
- name: u
  user: {token: t0ken}
)";

absl::Status WithInstead(const std::string& old, const std::string& changed) {
  const std::string text = absl::StrReplaceAll(kKubeconfig, {{old, changed}});
  EXPECT_NE(text, kKubeconfig);
  return ServerOfKubeconfig(text, "/etc/k").status();
}

TEST(KubeServerTest, IsThatOfTheCurrentContext) {
  const absl::StatusOr<HttpOrigin> server = ServerOfKubeconfig(kKubeconfig, "/etc/k");
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(server->url, "https://10.0.0.1:6443/k8s");
  EXPECT_EQ(server->host, "10.0.0.1");
  EXPECT_EQ(server->port, "6443");
  EXPECT_EQ(*server->authority.Read(), "CA");
  EXPECT_EQ(*server->token.Read(), "t0ken");
  EXPECT_FALSE(server->certificate.is_there());
}

TEST(KubeServerTest, FilesLieBesideTheKubeconfig) {
  const std::string text = absl::StrReplaceAll(
      kKubeconfig,
      {{"certificate-authority-data: Q0E=", "certificate-authority: pki/ca.crt"},
       {"token: t0ken", "tokenFile: /run/token, client-certificate: me.crt, client-key-data: S0VZ"}});
  const absl::StatusOr<HttpOrigin> server = ServerOfKubeconfig(text, "/etc/k");
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(server->authority.file, "/etc/pki/ca.crt");
  EXPECT_EQ(server->token.file, "/run/token");
  EXPECT_EQ(server->certificate.file, "/etc/me.crt");
  EXPECT_EQ(server->key.text, "KEY");
  EXPECT_THAT(std::string(server->certificate.Read().status().message()), HasSubstr("/etc/me.crt"));
}

TEST(KubeServerTest, WhatIsNotSupportedIsAnErrorThatSaysWhatIs) {
  EXPECT_THAT(std::string(WithInstead("{token: t0ken}", "{exec: {command: aws}}").message()),
              HasSubstr("exec: programs are not run for this; give a token"));
  EXPECT_THAT(std::string(WithInstead("{token: t0ken}", "{auth-provider: {name: x}}").message()),
              HasSubstr("give a token"));
  EXPECT_THAT(std::string(WithInstead("{token: t0ken}", "{username: a, password: b}").message()),
              HasSubstr("username: "));
  EXPECT_THAT(std::string(WithInstead("{token: t0ken}", "{client-certificate: a}").message()),
              HasSubstr("both"));
  EXPECT_THAT(
      std::string(
          WithInstead("certificate-authority-data: Q0E=", "insecure-skip-tls-verify: true").message()),
      HasSubstr("give certificate-authority"));
  EXPECT_TRUE(WithInstead("certificate-authority-data: Q0E=", "insecure-skip-tls-verify: false").ok());
  EXPECT_THAT(std::string(WithInstead("Q0E=", "\"***\"").message()),
              HasSubstr("certificate-authority-data should be base64"));
  EXPECT_THAT(std::string(WithInstead("https:", "http:").message()), HasSubstr("without TLS"));
  EXPECT_THAT(std::string(WithInstead("10.0.0.1:6443", "10.0.0.1:66443").message()),
              HasSubstr("https://HOST:PORT"));
  EXPECT_THAT(std::string(WithInstead("10.0.0.1:6443", "a@10.0.0.1").message()),
              HasSubstr("https://HOST:PORT"));
}

TEST(KubeServerTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(std::string(WithInstead("current-context: here", "").message()),
              StartsWith("kubeconfig /etc/k: current-context"));
  EXPECT_THAT(std::string(WithInstead("cluster: c,", "cluster: d,").message()),
              HasSubstr("clusters has no \"d\""));
  EXPECT_THAT(std::string(WithInstead("user: u,", "user: v,").message()), HasSubstr("users has no \"v\""));
  for (const char* text :
       {"", "[", "- a", "current-context: [a]", "current-context: a\ncontexts: 5", "a: *b"})
    EXPECT_THAT(std::string(ServerOfKubeconfig(text, "k").status().message()), StartsWith("kubeconfig k: "))
        << text;
}

TEST(KubeServerTest, APodIsToldByItsEnvironment) {
  const absl::StatusOr<HttpOrigin> server = ServerOfPod("10.96.0.1", "443", "/account");
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(server->url, "https://10.96.0.1:443");
  EXPECT_EQ(server->authority.file, "/account/ca.crt");
  EXPECT_EQ(server->token.file, "/account/token");
  const absl::StatusOr<HttpOrigin> v6 = ServerOfPod("fd00::1", "6443", "/account");
  ASSERT_TRUE(v6.ok()) << v6.status();
  EXPECT_EQ(v6->url, "https://[fd00::1]:6443");
  EXPECT_EQ(v6->host, "fd00::1");
  EXPECT_THAT(std::string(ServerOfPod("10.96.0.1", "", "/account").status().message()),
              StartsWith("KUBERNETES_SERVICE_HOST and"));
}

}  // namespace
}  // namespace shunt
