// SPDX-License-Identifier: Apache-2.0
#include "tools/undecided.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

}  // namespace

void LastingPid::Watch() {
  watched_ = true;
  if (pid_ > 0) process_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
}

pid_t LastingPid::Get() const {
  if (!watched_) return pid_;
  pollfd ended = {.fd = process_.get(), .events = POLLIN, .revents = 0};
  return process_.valid() && poll(&ended, 1, 0) == 0 ? pid_ : 0;
}

std::string ToText(const Undecided& container) {
  const ContainerState& state = container.state;
  const ContainerOrigin& origin = container.origin;
  return Json{{"state",
               {{"id", state.id},
                {"pid", state.pid},
                {"state_pid", state.state_pid},
                {"status", state.status},
                {"bundle", state.bundle},
                {"metadata", state.metadata},
                {"annotations", state.annotations}}},
              {"peer", {{"uid", container.peer.uid}, {"pid", container.peer.pid}}},
              {"origin",
               {{"namespace", origin.identity.pod_namespace},
                {"pod", origin.identity.pod},
                {"container", origin.identity.container},
                {"uid", origin.pod_uid},
                {"container_id", origin.container_id},
                {"image", origin.image},
                {"labels", origin.labels ? Json(*origin.labels) : Json(nullptr)}}}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<Undecided> UndecidedFrom(const std::string& text) try {
  const Json json = Json::parse(text);
  Undecided container;
  const Json& state = json.at("state");
  container.state = {.id = state.at("id").get<std::string>(),
                     .pid = state.at("pid").get<pid_t>(),
                     .state_pid = state.at("state_pid").get<pid_t>(),
                     .status = state.at("status").get<std::string>(),
                     .bundle = state.at("bundle").get<std::string>(),
                     .metadata = state.at("metadata").get<std::string>(),
                     .annotations = state.at("annotations").get<std::map<std::string, std::string>>()};
  const Json& peer = json.at("peer");
  container.peer = {.uid = peer.at("uid").get<uid_t>(), .pid = peer.at("pid").get<pid_t>()};
  const Json& origin = json.at("origin");
  container.origin.identity = {.pod_namespace = origin.at("namespace").get<std::string>(),
                               .pod = origin.at("pod").get<std::string>(),
                               .container = origin.at("container").get<std::string>()};
  container.origin.pod_uid = origin.at("uid").get<std::string>();
  container.origin.container_id = origin.at("container_id").get<std::string>();
  container.origin.image = origin.at("image").get<std::string>();
  if (const Json& labels = origin.at("labels"); !labels.is_null())
    container.origin.labels = labels.get<std::map<std::string, std::string>>();
  return container;
} catch (const Json::exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("what is held of a container: ", error.what()));
}

}  // namespace shunt
