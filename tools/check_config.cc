// SPDX-License-Identifier: Apache-2.0
#include "tools/check_config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tools/agent_config.h"
#include "tools/harmless.h"
#include "tools/log.h"
#include "tools/service_remarks.h"

namespace shunt {
namespace {

// What a key means, by its path; for keys below `handlers`, SettingKeys() tells.
const std::map<std::string, const char*>& Meanings() {
  static const auto* const kMeanings = new std::map<std::string, const char*>{
      {"allow-uids", "users whose runtimes may hand containers over, beside root and the agent's own user"},
      {"ignore", "networks that stay on every container's ordinary path"},
      {"publish.enabled", "whether containers may publish ports"},
      {"publish.host-ip", "the host address of published ports that name none"},
      {"publish.host-ports", "the host ports that containers may ask for"},
      {"log.level", "what is logged: this, and what is worse"},
      {"metrics-bind-address", "where metrics are served; holds from the agent's next start on"},
      {"middleware", "what watches the calls of every container, beside what its own policy names"},
      {"strict", "whether a container whose metadata has a mistake is refused"},
      {"containers.select.namespace",
       "the pod's namespace. Told by containerd's CRI and CRI-O; with --resolver kubernetes also where the "
       "control group tells the pod, and the kubelet's folder /var/log/pods or the API server its name; "
       "unknown outside of pods"},
      {"containers.select.pod", "the pod's name. Known and unknown where its namespace is"},
      {"containers.select.container",
       "the container's name in its pod. Told by containerd's CRI and CRI-O; with --resolver kubernetes also "
       "for a pod of one container"},
      {"containers.select.image",
       "the image's name, as the orchestrator has it. Told by containerd's CRI and CRI-O, and with "
       "--resolver "
       "kubernetes by the API server for a container whose name is known; unknown with Docker, Podman, and "
       "bare runtimes"},
      {"containers.select.id", "the runtime's id of the container. Always known"},
      {"containers.select.uid",
       "the user whose runtime hands the container over, as the kernel has it; a rootless runtime counts as "
       "the user "
       "who started it. Always known"},
      {"containers.select.annotations",
       "annotations in the runtime's state and, with --resolver kubernetes and an API server to ask, those "
       "of "
       "the pod, as they were when its first container came. Without, of a pod's own, containerd passes on "
       "only what its pod_annotations and container_annotations list; CRI-O passes on all"},
      {"containers.select.labels",
       "the pod's labels, as they were when its first container came: told by the API server, with "
       "--resolver "
       "kubernetes. No runtime passes them on (CRI-O those that the kubelet gives each container, "
       "io.kubernetes.container.name and the like); without an API server to ask, and outside of pods, this "
       "selects nothing"},
      {"containers.metadata", "false: what the container's own metadata says about handlers does not count"},
      {"containers.ignore", "networks that stay on its ordinary path, beside those of every container"},
      {"containers.publish",
       "ports that it publishes, beside those it asks for; publish.* does not limit them"},
      {"zone", "where this machine is: backends of the same zone come first"},
      {"node-name",
       "this machine's name in Kubernetes, for Services with internalTrafficPolicy: Local; left out: "
       "$NODE_NAME"},
      {"services.address", "connections to there get a backend"},
      {"services.policy", "which backend a connection gets"},
      {"services.affinity.by",
       "whose connections stay together; left out: a container's with maglev and ring-hash, nobody's with "
       "the "
       "others"},
      {"services.affinity.timeout",
       "whoever has connected within this time gets the backend of his last connection, as long as it is "
       "available, and others by the policy; left out: by hash"},
      {"services.subset", "only backends that have all of these labels"},
      {"services.discover.file", "more backends; read again whenever it changes"},
      {"services.discover.dns", "more backends; asked for again whenever the answer is too old"},
      {"services.discover.etcd.endpoints",
       "more backends: keys of etcd (v3), of which changes are heard at once"},
      {"services.discover.etcd.prefix", "the keys below it, each with a backend as its value"},
      {"services.discover.etcd.ca", "whose certificates count; left out: those that the machine trusts"},
      {"services.discover.etcd.cert", "who we are, with the key"},
      {"services.discover.etcd.key", "the certificate's; read again for each request"},
      {"services.discover.etcd.user", "a user of etcd who may read the prefix"},
      {"services.discover.etcd.password-file", "that user's"},
      {"services.discover.kubernetes.service",
       "more backends: the endpoints of that Service, by its EndpointSlices, of which changes are heard at "
       "once"},
      {"services.discover.kubernetes.services",
       "services at the cluster IPs of all Services, or those of a namespace, with their endpoints; changes "
       "are heard at once"},
      {"services.discover.kubernetes.port",
       "which of the Service's ports, by name or number; left out: it has only one"},
      {"services.discover.kubernetes.kubeconfig",
       "where the API server is; left out: $KUBECONFIG of the agent, or the pod's service account"},
      {"services.connect.attempts", "backends that a blocking connect tries, the first one included"},
      {"services.connect.attempt-timeout", "how long each attempt but the last may take"},
      {"services.connect.race-after",
       "when an attempt has taken so long another backend is tried beside it, and the first to answer gets "
       "it"},
      {"services.limits.max-connections",
       "connections that each backend may have, by all that the host's network has to it"},
      {"services.limits.queue", "blocking connects that wait when all backends are full; others are refused"},
      {"services.limits.queue-timeout", "how long at most, until they are refused as well"},
      {"services.health.interval",
       "time between two checks of a backend: connections that are closed at once"},
      {"services.health.timeout", "how long a check may take"},
      {"services.health.fall", "failures in a row that make a backend unhealthy"},
      {"services.health.rise", "successes in a row that make it healthy again"},
      {"services.outlier.consecutive", "failed connects in a row that eject a backend"},
      {"services.outlier.base-ejection", "how long, times the number of its ejections"},
      {"services.outlier.max-ejection", "how long at most"},
      {"services.outlier.interval", "time without an ejection that takes one off their number"},
      {"services.outlier.max-ejected", "share of the backends that may be ejected at a time; one always may"},
      {"services.outlier.panic",
       "share of available backends below which all are used; also of those that health finds healthy"},
      {"services.slow-start", "a backend that is new or back gets its share little by little, for so long"},
      {"services.drain.on-removal",
       "connections to a backend that has gone, or is drained, are closed after this; UDP sockets of one "
       "that "
       "is drained are connected to another one then"},
      {"services.zone-aware.min-cluster-size",
       "backends that there must be for those of this zone to come first; 0: never"},
      {"services.network", "where backends are: in the host's network, or in the container's own"},
      {"services.getpeername", "whom a program is shown as its peer"},
      {"multinode.etcd.endpoints", "who is asked where ports of other machines' containers are"},
      {"multinode.etcd.prefix", "what keys begin with, before /ADDRESS:PORT of a container"},
      {"multinode.register", "whether published ports of this machine's containers are announced there"},
      {"multinode.host-address", "where other machines reach them"},
      {"multinode.networks",
       "addresses that keys may be about; who can write to etcd decides where connects to these go"},
  };
  return *kMeanings;
}

std::string MeaningOf(absl::string_view path) {
  if (absl::string_view key = path; absl::ConsumePrefix(&key, "containers.handlers.")) {
    for (const SettingKey& one : SettingKeys()) {
      if (key == one.in_configuration) return absl::StrCat(one.gives, " (metadata: ", one.key, ")");
    }
  }
  const auto found = Meanings().find(std::string(path));
  return found == Meanings().end() ? "" : found->second;
}

std::string TextOf(const YAML::Node& value) {
  std::vector<std::string> parts;
  if (value.IsScalar()) return value.Scalar();
  if (value.IsSequence()) {
    for (const auto& item : value) parts.push_back(TextOf(item));
    return absl::StrCat("[", absl::StrJoin(parts, ", "), "]");
  }
  for (const auto& entry : value)
    parts.push_back(absl::StrCat(TextOf(entry.first), ": ", TextOf(entry.second)));
  return absl::StrCat("{", absl::StrJoin(parts, ", "), "}");
}

class Explanation {
 public:
  explicit Explanation(const std::string& name) : name_(name) {}

  void Say(int line, absl::string_view indent, absl::string_view what) {
    absl::StrAppend(&text_, Harmless(absl::StrCat(name_, ":", line, ": ", indent, what)), "\n");
  }

  // Each key that has a meaning, and those below the others.
  void Walk(const YAML::Node& mapping, const std::string& path, absl::string_view indent) {
    for (const auto& entry : mapping) {
      const std::string key = path + entry.first.Scalar();
      if (const std::string meaning = MeaningOf(key); !meaning.empty()) {
        Say(entry.first.Mark().line + 1, indent,
            absl::StrCat(entry.first.Scalar(), ": ", TextOf(entry.second), " -- ", meaning));
      } else if (entry.second.IsMap()) {
        Walk(entry.second, key + ".", indent);
      }
    }
  }

  std::string Take() { return std::move(text_); }

 private:
  const std::string& name_;
  std::string text_;
};

bool SelectsAll(const Selection& selection) {
  return selection.pod_namespace.empty() && selection.pod.empty() && selection.container.empty() &&
         selection.image.empty() && selection.id.empty() && selection.uids.empty() &&
         selection.annotations.empty() && selection.labels.empty();
}

void ExplainRules(const YAML::Node& list, const std::vector<ContainerRule>& rules, Explanation& explanation) {
  const ContainerRule* last_word = nullptr;
  for (size_t i = 0; i < rules.size(); ++i) {
    const ContainerRule& rule = rules[i];
    const bool all = SelectsAll(rule.selection);
    explanation.Say(rule.line, "",
                    absl::StrCat("rule ", rule.Title(), ", ", i + 1, " of ", rules.size(), ": for ",
                                 all ? "every container" : "containers that fit all that it selects by",
                                 i > 0 ? ", if no rule above is for it" : "",
                                 all ? "" : "; what is not known of a container fits nothing"));
    if (last_word != nullptr) {
      explanation.Say(rule.line, "  ",
                      absl::StrCat("NEVER USED: rule ", last_word->Title(), " above is for every container"));
    }
    if (all && last_word == nullptr) last_word = &rule;
    explanation.Walk(list[i], "containers.", "  ");
    for (const SettingKey& half : LoneHalves(rule.settings)) {
      explanation.Say(list[i]["handlers"][half.in_configuration].Mark().line + 1, "  ",
                      absl::StrCat(half.in_configuration,
                                   ": HALF OF A PAIR: means nothing for a container whose metadata ",
                                   "has no right ", half.other_half, ", which strict mode refuses for that"));
    }
  }
}

// Of a service that is right as such: which backends in it get no connections.
void ExplainUnused(const YAML::Node& list, const net::ServiceSpec& service, Explanation& explanation) {
  const bool v4_only = std::all_of(service.addresses.begin(), service.addresses.end(),
                                   [](const net::ServiceAddress& one) { return one.network.IsV4(); });
  for (size_t i = 0; i < service.backends.size(); ++i) {
    const net::BackendSpec& backend = service.backends[i];
    const bool in_subset =
        std::all_of(service.subset.begin(), service.subset.end(), [&backend](const auto& label) {
          const auto found = backend.labels.find(label.first);
          return found != backend.labels.end() && found->second == label.second;
        });
    const char* why = nullptr;
    if (backend.weight == 0) why = "its weight is 0";
    if (!in_subset) why = "it has not all labels of the subset";
    if (v4_only && !backend.address.ip().IsV4()) why = "all addresses of the service are IPv4";
    if (why == nullptr) continue;
    explanation.Say(list[i].Mark().line + 1, "  ",
                    absl::StrCat("backend ", backend.address.ToString(), ": NO CONNECTIONS: ", why));
  }
}

void ExplainServices(const YAML::Node& list, const std::vector<net::ServiceSpec>& services,
                     Explanation& explanation) {
  const std::vector<std::vector<ServiceRemark>> remarks = RemarksOn(list, services);
  for (size_t i = 0; i < services.size(); ++i) {
    const net::ServiceSpec& service = services[i];
    const auto backups = std::count_if(service.backends.begin(), service.backends.end(),
                                       [](const net::BackendSpec& one) { return one.backup; });
    explanation.Say(
        list[i].Mark().line + 1, "",
        absl::StrCat(
            "service ", service.name, ", ", i + 1, " of ", services.size(), ": ",
            service.discover.finds_services()
                ? std::string("finds services")
                : absl::StrCat(
                      service.backends.size(), " backends", backups == 0 ? "" : ", ",
                      backups == 0 ? "" : absl::StrCat(backups, " of them for when the others are too few"),
                      service.discover.none() ? "" : ", and those that are discovered"),
            service.health.enabled ? "; checked" : "; not checked",
            service.outlier.enabled ? "; ejected when connects fail" : ""));
    explanation.Walk(list[i], "services.", "  ");
    ExplainUnused(list[i]["backends"], service, explanation);
    for (const ServiceRemark& remark : remarks[i]) explanation.Say(remark.line, "  ", remark.text);
  }
}

}  // namespace

absl::StatusOr<std::string> ExplainConfig(const std::string& text, const std::string& name) {
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(text, name);
  if (!config.ok()) return config.status();
  Explanation explanation(name);
  const YAML::Node root = YAML::Load(text);  // known to be good
  for (const auto& entry : root) {
    if (entry.first.Scalar() == "containers") {
      ExplainRules(entry.second, config->rules, explanation);
    } else if (entry.first.Scalar() == "services") {
      ExplainServices(entry.second, config->services, explanation);
    } else {
      YAML::Node alone;
      alone[entry.first] = entry.second;
      explanation.Walk(alone, "", "");
    }
  }
  return explanation.Take();
}

int CheckConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadConfigText(path);
  const absl::StatusOr<std::string> explained =
      text.ok() ? ExplainConfig(*text, path) : absl::StatusOr<std::string>(text.status());
  if (!explained.ok()) {
    log::Error("{}", log::Text(explained.status()));
    return 2;
  }
  std::fputs(explained->c_str(), stdout);
  return 0;
}

}  // namespace shunt
