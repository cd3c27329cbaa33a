// SPDX-License-Identifier: Apache-2.0
#include "tools/container_decision.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/filter.h"
#include "tools/container_masks.h"
#include "tools/metadata.h"

namespace shunt {
namespace {

SettingContext ContextOf(const ContainerState& state, const ContainerOrigin& origin) {
  // Some runtimes tell one of the two only.
  const pid_t pid = state.pid != 0 ? state.pid : state.state_pid;
  const pid_t pid1 = state.state_pid != 0 ? state.state_pid : state.pid;
  return {.pod = {.identity = origin.identity, .pid = pid, .pid1 = pid1},
          .begins = pid == pid1 && state.status != "running"};
}

// One of the host's users, whose rights are not those of the agent.
bool IsOrdinary(uid_t uid) {
  return uid != 0 && uid != geteuid();
}

// What takes rights on the host is given to its own users by the configuration alone: their containers'
// metadata is what they have written themselves. Their containers need not even be any: who may mount without
// CAP_SYS_ADMIN could do so on the host.
std::vector<Setting> WithoutHostRights(std::vector<Setting> settings, uid_t uid,
                                       std::vector<std::string>& mistakes) {
  if (!IsOrdinary(uid)) return settings;
  std::erase_if(settings, [&](const Setting& setting) {
    const bool takes_rights = setting.key == "MKNOD" || setting.key == "MOUNT_OTHER_FS_LIST" ||
                              (setting.key == "MOUNT_NEED_CAP_ADMIN" && setting.value == "false");
    if (takes_rights) {
      mistakes.push_back(absl::StrCat(setting.key, ": user ", uid,
                                      " cannot give it to itself; let a rule of the configuration do so"));
    }
    return takes_rights;
  });
  return settings;
}

void BeTheDemo(pid_t pid, Policy& policy) {
  // Machines differ in which of these there are; programs do not care.
  for (const char* syscall : {"chmod", "fchmodat", "fchmodat2"}) {
    if (!NumbersOf(syscall).empty()) policy.errors[syscall] = EBADMSG;
  }
  policy.mkdir_suffix = absl::StrCat("-pid-", pid);
  policy.mounts.proc = true;
  policy.mounts.need_cap_admin = false;
}

}  // namespace

absl::StatusOr<Resolver> ParseResolver(const std::string& text) {
  if (text == "metadata") return Resolver::kMetadata;
  if (text == "none") return Resolver::kNone;
  if (text == "demo-basic") return Resolver::kDemoBasic;
  if (text == "kubernetes") return Resolver::kKubernetes;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" should be metadata, none, demo-basic or kubernetes"));
}

ContainerOrigin OriginOf(const ContainerState& state, pid_t pid, Resolver resolver) {
  ContainerOrigin origin = OriginFromAnnotations(state.annotations);
  AddCgroupOrigin(pid, origin);
  PodIdentity& identity = origin.identity;
  if (resolver != Resolver::kKubernetes || origin.pod_uid.empty()) return origin;
  if (!identity.pod.empty() && !identity.pod_namespace.empty()) return origin;
  PodIdentity logged = FindLoggedPod(kPodLogs, origin.pod_uid);
  if (identity.container.empty()) identity.container = std::move(logged.container);
  identity.pod = std::move(logged.pod);
  identity.pod_namespace = std::move(logged.pod_namespace);
  return origin;
}

void AddMiddleware(const AgentConfig& config, Policy& policy) {
  for (const std::string& name : config.middleware) {
    if (std::ranges::find(policy.middleware, name) == policy.middleware.end())
      policy.middleware.push_back(name);
  }
}

Decision Decide(const ContainerState& state, ContainerOrigin origin, uid_t uid, const DecisionMaker& maker) {
  Decision decision{.origin = std::move(origin)};
  const ContainerRule* rule =
      RuleFor(maker.config.rules, {.state = state, .origin = decision.origin, .uid = uid});
  if (rule != nullptr) decision.rule = rule->Title();

  Policy policy;
  const SettingContext context = ContextOf(state, decision.origin);
  std::vector<Setting> settings;
  if (maker.resolver == Resolver::kDemoBasic) BeTheDemo(context.pod.pid, policy);
  policy.mounts.need_cap_admin = policy.mounts.need_cap_admin || IsOrdinary(uid);
  const bool obeys = maker.resolver == Resolver::kMetadata || maker.resolver == Resolver::kKubernetes;
  if (obeys && (rule == nullptr || rule->metadata))
    settings = WithoutHostRights(SplitMetadata(state.metadata), uid, decision.mistakes);
  if (rule != nullptr) settings.insert(settings.end(), rule->settings.begin(), rule->settings.end());
  const std::vector<std::string> mistakes = Obey(settings, context, policy);
  decision.mistakes.insert(decision.mistakes.end(), mistakes.begin(), mistakes.end());
  AddMiddleware(maker.config, policy);
  if (policy.mounts.proc || policy.mounts.sysfs) decision.masks = AddMasks(state.bundle, policy.mounts);

  absl::StatusOr<ContainerSpec> spec = SpecFor(state, maker.config, rule);
  decision.wishes = spec.status();
  decision.spec = spec.ok() ? *std::move(spec) : OrdinarySpec(state.id);
  decision.spec.policy = std::move(policy);
  if (maker.strict && (!decision.mistakes.empty() || !decision.wishes.ok()))
    decision.spec.policy.refuse = EPERM;
  return decision;
}

}  // namespace shunt
