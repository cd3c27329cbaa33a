// SPDX-License-Identifier: Apache-2.0
// What is said of a source, and to whom.

#include "tools/service_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "tools/log.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As long as it is there, no descriptor can be had.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{.rlim_cur = 0, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST(ServiceSourceTest, ThatCannotBeMadeIsToldAndLogged) {
  log::Start(log::Level::kInfo);
  net::ServiceSpec service{.name = "web", .discover = {.dns = "web.svc:80"}};
  ServiceSources sources;
  std::vector<std::string> told;
  const auto note = [&told](const absl::StatusOr<std::vector<net::BackendSpec>>& found) {
    told.emplace_back(found.status().message());
  };
  ::testing::internal::CaptureStderr();
  absl::Status status;
  {
    const NoDescriptors none;
    status = sources.Make(service, note, {}).status();
  }
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(told, ElementsAre(HasSubstr("ask DNS for web.svc:80")));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("warning: service web: ask DNS for web.svc:80"));
}

TEST(ServiceSourceTest, NoThreadIsStartedWhenThatIsOver) {
  ServiceSources sources;
  sources.StartNoThread();
  const net::ServiceSpec service{
      .name = "web", .discover = {.etcd = {.endpoints = {"http://127.0.0.1:1"}, .prefix = "/web"}}};
  std::vector<std::string> told;
  const absl::Status status = sources
                                  .Make(service,
                                        [&told](const absl::StatusOr<std::vector<net::BackendSpec>>& found) {
                                          told.emplace_back(found.status().message());
                                        },
                                        {})
                                  .status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(told,
              ElementsAre(HasSubstr("etcd /web/ is asked by engines that have begun with such a service")));
  EXPECT_THAT(told, ElementsAre(HasSubstr("shunt ctl upgrade")));

  const net::ServiceSpec cluster{.name = "cluster", .discover = {.kubernetes = {.services = "all"}}};
  std::string wrong;
  EXPECT_FALSE(sources
                   .Make(cluster, {},
                         [&wrong](const net::FoundChanges& changes, const absl::Status& status) {
                           EXPECT_TRUE(changes.empty());
                           wrong = std::string(status.message());
                         })
                   .ok());
  EXPECT_THAT(wrong, HasSubstr("shunt ctl upgrade"));
}

}  // namespace
}  // namespace shunt
