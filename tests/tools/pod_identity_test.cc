// SPDX-License-Identifier: Apache-2.0
// Who a container is, from what runtimes and the kernel say.

#include "tools/pod_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;
using ::testing::Pair;

constexpr char kUid[] = "8d6a3ee2-6d3b-4a3e-9b49-2f1c1f3a9b10";
constexpr char kUidForSystemd[] = "8d6a3ee2_6d3b_4a3e_9b49_2f1c1f3a9b10";
constexpr char kId[] = "76ade0df80339e2c9e1bb4e8c19d5f2f7e98f3048beac288accc81f08d517507";
constexpr char kNode[] = "dfddf79ef6fc529f50e0ab285fac4c96c9846366c9041e45aa3beecc001c9afd";

TEST(PodAnnotationsTest, KnowsThoseOfContainerd) {
  const ContainerOrigin origin = OriginFromAnnotations({{"io.kubernetes.cri.container-name", "container1"},
                                                        {"io.kubernetes.cri.container-type", "container"},
                                                        {"io.kubernetes.cri.image-name", "bb:latest"},
                                                        {"io.kubernetes.cri.sandbox-name", "mynotifypod"},
                                                        {"io.kubernetes.cri.sandbox-namespace", "default"},
                                                        {"io.kubernetes.cri.sandbox-uid", kUid}});
  EXPECT_EQ(origin.identity, (PodIdentity{"default", "mynotifypod", "container1"}));
  EXPECT_EQ(origin.pod_uid, kUid);
  EXPECT_EQ(origin.image, "bb:latest");
  EXPECT_FALSE(origin.labels);
}

TEST(PodAnnotationsTest, KnowsThoseOfCriOWithLabels) {
  const ContainerOrigin origin =
      OriginFromAnnotations({{"io.kubernetes.pod.namespace", "n"},
                             {"io.kubernetes.pod.name", "p"},
                             {"io.kubernetes.pod.uid", kUid},
                             {"io.kubernetes.container.name", "c"},
                             {"io.kubernetes.cri-o.ImageName", "img"},
                             {"io.kubernetes.cri-o.Labels", R"({"app":"web","odd":1})"}});
  EXPECT_EQ(origin.identity, (PodIdentity{"n", "p", "c"}));
  EXPECT_EQ(origin.pod_uid, kUid);
  EXPECT_EQ(origin.image, "img");
  EXPECT_THAT(origin.labels, Optional(ElementsAre(Pair("app", "web"))));
  EXPECT_FALSE(OriginFromAnnotations({{"io.kubernetes.cri-o.Labels", "{"}}).labels);
}

struct CgroupCase {
  std::string text;
  const char* pod_uid;
  const char* container_id;
};

TEST(PodCgroupsTest, FindsPodAndContainerWhoeverMadeThePath) {
  const CgroupCase cases[] = {
      // v1, the kubelet's own driver
      {absl::StrCat("12:pids:/kubepods/burstable/pod", kUid, "/", kId,
                    "\n1:name=systemd:/kubepods/burstable/pod", kUid, "/", kId, "\n"),
       kUid, kId},
      // v2
      {absl::StrCat("0::/kubepods/pod", kUid, "/", kId, "\n"), kUid, kId},
      // v2, systemd's; containerd and CRI-O
      {absl::StrCat("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod", kUidForSystemd,
                    ".slice/cri-containerd-", kId, ".scope\n"),
       kUid, kId},
      {absl::StrCat("0::/kubepods.slice/kubepods-pod", kUidForSystemd, ".slice/crio-", kId,
                    ".scope/container\n"),
       kUid, kId},
      // containerd with the other driver than the kubelet's
      {absl::StrCat("0::/system.slice/kubepods-pod", kUidForSystemd, ".slice:cri-containerd:", kId), kUid,
       kId},
      // hybrid: one of the trees says nothing
      {absl::StrCat("1:name=systemd:/kubepods/pod", kUid, "/", kId, "\n0::/\n"), kUid, kId},
      {absl::StrCat("1:name=systemd:/\n0::/kubepods/pod", kUid, "/", kId, "\n"), kUid, kId},
      // a node that is a container itself; a pod from a file
      {absl::StrCat("0::/docker/", kNode, "/kubelet/kubepods/pod0123456789abcdef0123456789abcdef/", kId),
       "0123456789abcdef0123456789abcdef", kId},
      {absl::StrCat("0::/kubepods/pod00000000-0000-0000-0000-000000000000/", kNode, "/kubepods/pod", kUid,
                    "/", kId),
       kUid, kId},
      // no pod
      {absl::StrCat("0::/system.slice/docker-", kId, ".scope"), "", kId},
      {absl::StrCat("0::/user.slice/user@1000.service/libpod-", kId, ".scope/container"), "", kId},
      // neither
      {"0::/\n", "", ""},
      {"", "", ""},
      {absl::StrCat("0::/x/podium/", kId, "0"), "", ""},
      {absl::StrCat("0::/pod", kUid, "0/x", kId), "", ""},
  };
  for (const CgroupCase& one : cases) {
    const CgroupOrigin origin = OriginFromCgroups(one.text);
    EXPECT_EQ(origin.pod_uid, one.pod_uid) << one.text;
    EXPECT_EQ(origin.container_id, one.container_id) << one.text;
  }
}

TEST(LoggedPodTest, IsTheFolderWithItsUid) {
  std::string logs = ::testing::TempDir() + "pod_logs_XXXXXX";
  ASSERT_NE(mkdtemp(logs.data()), nullptr);
  std::filesystem::create_directories(absl::StrCat(logs, "/default_web-1_", kUid, "/nginx"));
  std::filesystem::create_directories(logs + "/default_other_11111111-2222-3333-4444-555555555555/c");
  EXPECT_EQ(FindLoggedPod(logs, kUid), (PodIdentity{"default", "web-1", "nginx"}));
  std::filesystem::create_directories(absl::StrCat(logs, "/default_web-1_", kUid, "/init"));
  EXPECT_EQ(FindLoggedPod(logs, kUid), (PodIdentity{"default", "web-1", ""}));
  EXPECT_EQ(FindLoggedPod(logs, "0"), PodIdentity());
  EXPECT_EQ(FindLoggedPod(logs + "/none", kUid), PodIdentity());
  std::filesystem::remove_all(logs);
}

}  // namespace
}  // namespace shunt
