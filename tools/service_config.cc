// SPDX-License-Identifier: Apache-2.0
#include "tools/service_config.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "net/balancer/place_count.h"
#include "tools/discover_config.h"
#include "tools/service_values.h"
#include "tools/yaml_reading.h"

namespace shunt {
namespace {

constexpr size_t kLongestName = 63;     // of a service: a label of a metric, a word of a command
constexpr size_t kMostAddresses = 64;   // of a service
constexpr uint32_t kMostInARow = 1000;  // failures or successes that are waited for
constexpr uint32_t kMostInACluster = 1'000'000;
constexpr uint32_t kMostQueued = 100'000;

// ---- backends

absl::Status ReadBackend(const std::string& file, const std::string& path, const YAML::Node& value,
                         net::BackendSpec& backend) {
  const auto read_address = [&](const YAML::Node& node) -> absl::Status {
    if (!node.IsScalar()) return Should("ADDRESS:PORT");
    const absl::StatusOr<net::SockAddr> address = ParseBackendAddress(node.Scalar());
    if (!address.ok()) return address.status();
    backend.address = *address;
    return absl::OkStatus();
  };
  if (value.IsScalar()) return read_address(value);
  if (!value.IsMap()) return Should("ADDRESS:PORT or a mapping, {address: 192.168.7.11:8080, weight: 3}");
  const absl::Status status = ReadMapping(
      file, path + ".", value,
      {{"address", read_address},
       {"weight",
        [&](const YAML::Node& node) { return ReadCount(node, 0, net::kMostWeight, backend.weight); }},
       {"backup", [&](const YAML::Node& node) { return ReadBool(node, backend.backup); }},
       {"zone", [&](const YAML::Node& node) { return ReadWord(node, backend.zone); }},
       {"labels", [&](const YAML::Node& node) { return ReadLabels(node, backend.labels); }}});
  if (!status.ok() || backend.address.valid()) return status;
  return absl::InvalidArgumentError("has no address: ADDRESS:PORT");
}

enum class Twice { kMistake, kFirstCounts };

// `room`: how many more there may be in the file.
absl::Status ReadBackends(const std::string& file, const std::string& path, const YAML::Node& value,
                          Twice twice, size_t& room, std::vector<net::BackendSpec>& backends) {
  if (!value.IsSequence()) return Should("a list of backends, [192.168.7.11:8080]");
  std::unordered_set<std::string> seen;
  return ReadList(
      file, path, value, [&](const std::string& its_path, const YAML::Node& item) -> absl::Status {
        if (room == 0)
          return absl::InvalidArgumentError(
              absl::StrCat("is one too many: at most ", kMostBackends, " in a file"));
        --room;
        net::BackendSpec backend;
        if (absl::Status status = ReadBackend(file, its_path, item, backend); !status.ok()) return status;
        if (seen.insert(backend.address.ToString()).second) {
          backends.push_back(std::move(backend));
        } else if (twice == Twice::kMistake) {
          return absl::InvalidArgumentError(
              absl::StrCat(backend.address.ToString(), " is there twice; once, with the sum of the weights"));
        }
        return absl::OkStatus();
      });
}

// ---- checks, and what else has keys of its own

// Keys that need not be there: `health:` alone means all defaults, `health: false` none of it.
absl::Status ReadSwitch(const std::string& file, const std::string& path, const YAML::Node& value,
                        const Keys& keys, bool& enabled) {
  enabled = true;
  if (value.IsNull()) return absl::OkStatus();
  if (value.IsScalar()) {
    const absl::Status status = ReadBool(value, enabled);
    return status.ok() ? status : Should("a mapping of keys to values, or false");
  }
  return ReadMapping(file, path + ".", value, keys);
}

absl::Status ReadHealth(const std::string& file, const std::string& path, const YAML::Node& value,
                        net::HealthSpec& health) {
  const std::chrono::nanoseconds usual = health.timeout;
  health.timeout = std::chrono::nanoseconds(0);  // not told
  const absl::Status status = ReadSwitch(
      file, path, value,
      {{"interval",
        [&](const YAML::Node& node) { return ReadDuration(node, "100ms", "24h", health.interval); }},
       {"timeout", [&](const YAML::Node& node) { return ReadDuration(node, "1ms", "5m", health.timeout); }},
       {"fall", [&](const YAML::Node& node) { return ReadCount(node, 1, kMostInARow, health.fall); }},
       {"rise", [&](const YAML::Node& node) { return ReadCount(node, 1, kMostInARow, health.rise); }}},
      health.enabled);
  if (!status.ok()) return status;
  if (health.timeout > health.interval)
    return absl::InvalidArgumentError("the timeout should be no longer than the interval");
  if (health.timeout.count() == 0) health.timeout = std::min(usual, health.interval);
  return absl::OkStatus();
}

absl::Status ReadOutlier(const std::string& file, const std::string& path, const YAML::Node& value,
                         net::OutlierSpec& outlier, double& panic) {
  const auto duration = [](std::chrono::nanoseconds& into) -> ReadValue {
    return [&into](const YAML::Node& node) { return ReadDuration(node, "100ms", "24h", into); };
  };
  const auto share = [](double& into) -> ReadValue {
    return [&into](const YAML::Node& node) { return ReadShare(node, into); };
  };
  const absl::Status status = ReadSwitch(
      file, path, value,
      {{"consecutive",
        [&](const YAML::Node& node) { return ReadCount(node, 1, kMostInARow, outlier.consecutive); }},
       {"interval", duration(outlier.interval)},
       {"base-ejection", duration(outlier.base_ejection)},
       {"max-ejection", duration(outlier.max_ejection)},
       {"max-ejected", share(outlier.max_ejected)},
       {"panic", share(panic)}},
      outlier.enabled);
  if (!status.ok()) return status;
  if (outlier.max_ejection < outlier.base_ejection)
    return absl::InvalidArgumentError(
        "max-ejection (300s if left out) should be no shorter than base-ejection");
  return absl::OkStatus();
}

absl::Status ReadSlowStart(const std::string& file, const std::string& path, const YAML::Node& value,
                           net::SlowStartSpec& slow_start) {
  const auto read_window = [&](const YAML::Node& node) {
    return ReadDuration(node, "0", "24h", slow_start.window);
  };
  const auto read_aggression = [&](const YAML::Node& node) -> absl::Status {
    double number = 0;
    if (!node.IsScalar() || !absl::SimpleAtod(node.Scalar(), &number) || !(number > 0) || number > 100)
      return Should("a number above 0, and at most 100");
    slow_start.aggression = number;
    return absl::OkStatus();
  };
  if (value.IsScalar()) return read_window(value);
  const absl::Status status = ReadMapping(
      file, path + ".", value,
      {{"window", read_window},
       {"aggression", read_aggression},
       {"min-weight", [&](const YAML::Node& node) { return ReadShare(node, slow_start.min_weight); }}});
  if (!status.ok() || value["window"].IsDefined()) return status;
  return Should("a duration, or a mapping with a window");
}

absl::Status ReadConnect(const std::string& file, const std::string& path, const YAML::Node& value,
                         net::ConnectSpec& connect) {
  const auto read_attempts = [&](const YAML::Node& node) {
    uint32_t attempts = 1;
    absl::Status status = ReadCount(node, 1, net::ConnectSpec::kMostAttempts, attempts);
    connect.attempts = static_cast<int>(attempts);
    return status;
  };
  return ReadMapping(
      file, path + ".", value,
      {{"attempts", read_attempts},
       {"attempt-timeout",
        [&](const YAML::Node& node) { return ReadDuration(node, "10ms", "10m", connect.attempt_timeout); }},
       // The bounds of gRPC's A61.
       {"race-after",
        [&](const YAML::Node& node) { return ReadDuration(node, "100ms", "2s", connect.race_after); }}});
}

absl::Status ReadLimits(const std::string& file, const std::string& path, const YAML::Node& value,
                        net::LimitSpec& limits) {
  const absl::Status status = ReadMapping(
      file, path + ".", value,
      {{"max-connections",
        [&](const YAML::Node& node) {
          return ReadCount(node, 1, net::PlaceCount::kMost, limits.max_connections);
        }},
       {"queue", [&](const YAML::Node& node) { return ReadCount(node, 0, kMostQueued, limits.queue); }},
       {"queue-timeout",
        [&](const YAML::Node& node) { return ReadDuration(node, "1ms", "10m", limits.queue_timeout); }}});
  if (!status.ok() || limits.enabled()) return status;
  return absl::InvalidArgumentError("should have max-connections: how many each backend may have");
}

// ---- services

absl::Status ReadServiceName(const YAML::Node& value, std::string& name) {
  const auto outer = [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) ||
           absl::ascii_isdigit(static_cast<unsigned char>(c));
  };
  const auto inner = [&outer](char c) { return outer(c) || c == '.' || c == '-'; };
  const std::string& text = value.IsScalar() ? value.Scalar() : std::string();
  if (text.empty() || text.size() > kLongestName || !outer(text.front()) || !outer(text.back()) ||
      !std::all_of(text.begin(), text.end(), inner)) {
    return Should(
        absl::StrCat("1 to ", kLongestName,
                     " of a-z, 0-9, \"-\" and \".\", beginning and ending with a letter or a digit"));
  }
  name = text;
  return absl::OkStatus();
}

// Reads services one after the other, and remembers what may be there only once.
class ServiceReader {
 public:
  explicit ServiceReader(const std::string& file) : file_(file) {}

  absl::Status Read(const std::string& path, const YAML::Node& value, net::ServiceSpec& service);

 private:
  absl::Status ReadAddress(const std::string& path, const YAML::Node& value, net::ServiceSpec& service);
  absl::Status AddAddress(const YAML::Node& text, net::ServiceSpec& service);
  // Whether the keys agree with each other.
  absl::Status Check(const std::string& path, const YAML::Node& value, net::ServiceSpec& service) const;
  absl::Status CheckAffinity(const std::string& path, const YAML::Node& value,
                             const net::ServiceSpec& service) const;
  absl::Status CheckUdp(const std::string& path, const YAML::Node& value, net::ServiceSpec& service) const;
  absl::Status AtKey(const std::string& path, const YAML::Node& value, const char* key,
                     absl::string_view what) const {
    return At(file_, value[key].Mark(), absl::StrCat("\"", path, ".", key, "\": ", what));
  }

  const std::string& file_;
  size_t room_ = kMostBackends;
  std::unordered_map<std::string, int> names_;      // their lines
  std::unordered_map<std::string, int> addresses_;  // by their text
};

absl::Status ServiceReader::AddAddress(const YAML::Node& text, net::ServiceSpec& service) {
  if (!text.IsScalar()) return Should("ADDRESS:PORT, or a list of such");
  const absl::StatusOr<net::ServiceAddress> address = ParseServiceAddress(text.Scalar());
  if (!address.ok()) return address.status();
  const int line = text.Mark().line + 1;
  const auto [before, is_new] = addresses_.emplace(ServiceAddressText(*address), line);
  if (!is_new) {
    return absl::InvalidArgumentError(
        absl::StrCat(before->first, " is there already, in line ", before->second,
                     ": each address should belong to one service, and be there once"));
  }
  service.addresses.push_back(*address);
  return absl::OkStatus();
}

absl::Status ServiceReader::ReadAddress(const std::string& path, const YAML::Node& value,
                                        net::ServiceSpec& service) {
  if (!value.IsSequence()) return AddAddress(value, service);
  if (value.size() == 0 || value.size() > kMostAddresses)
    return Should(absl::StrCat("ADDRESS:PORT, or a list of 1 to ", kMostAddresses, " such"));
  return ReadList(file_, path, value,
                  [&](const std::string&, const YAML::Node& item) { return AddAddress(item, service); });
}

absl::Status ServiceReader::Read(const std::string& path, const YAML::Node& value,
                                 net::ServiceSpec& service) {
  using Node = YAML::Node;
  static constexpr std::pair<const char*, net::ServiceNetwork> kNetworks[] = {
      {"host", net::ServiceNetwork::kHost}, {"container", net::ServiceNetwork::kContainer}};
  static constexpr std::pair<const char*, net::PeerName> kPeerNames[] = {
      {"backend", net::PeerName::kBackend}, {"service", net::PeerName::kService}};
  const auto below = [&path](const char* key) { return absl::StrCat(path, ".", key); };
  const auto word = [](auto words, auto& into) -> ReadValue {
    return [words, &into](const Node& node) { return ReadOneOf(node, words, into); };
  };
  const Keys affinity = {{"by", word(AffinityWords(), service.affinity)},
                         {"timeout", [&](const Node& node) {
                            return ReadDuration(node, "1s", "168h", service.affinity_timeout);
                          }}};
  const Keys drain = {{"on-removal", [&](const Node& node) {
                         return ReadDuration(node, "0", "24h", service.close_after.emplace());
                       }}};
  const Keys zone_aware = {{"min-cluster-size", [&](const Node& node) {
                              return ReadCount(node, 0, kMostInACluster, service.zone_aware_from);
                            }}};
  const Keys keys = {
      {"name", [&](const Node& node) { return ReadServiceName(node, service.name); }},
      {"address", [&](const Node& node) { return ReadAddress(below("address"), node, service); }},
      {"policy", word(PolicyWords(), service.policy)},
      {"affinity", [&](const Node& node) { return ReadMapping(file_, below("affinity."), node, affinity); }},
      {"backends",
       [&](const Node& node) {
         return ReadBackends(file_, below("backends"), node, Twice::kMistake, room_, service.backends);
       }},
      {"subset", [&](const Node& node) { return ReadLabels(node, service.subset); }},
      {"discover",
       [&](const Node& node) { return ReadDiscover(file_, below("discover"), node, service.discover); }},
      {"connect",
       [&](const Node& node) { return ReadConnect(file_, below("connect"), node, service.connect); }},
      {"limits", [&](const Node& node) { return ReadLimits(file_, below("limits"), node, service.limits); }},
      {"health", [&](const Node& node) { return ReadHealth(file_, below("health"), node, service.health); }},
      {"outlier",
       [&](const Node& node) {
         return ReadOutlier(file_, below("outlier"), node, service.outlier, service.panic);
       }},
      {"slow-start",
       [&](const Node& node) { return ReadSlowStart(file_, below("slow-start"), node, service.slow_start); }},
      {"drain", [&](const Node& node) { return ReadMapping(file_, below("drain."), node, drain); }},
      {"zone-aware",
       [&](const Node& node) { return ReadMapping(file_, below("zone-aware."), node, zone_aware); }},
      {"network", word(Words<net::ServiceNetwork>(kNetworks), service.network)},
      {"getpeername", word(Words<net::PeerName>(kPeerNames), service.peer_name)},
  };
  if (absl::Status status = ReadMapping(file_, path + ".", value, keys); !status.ok()) return status;
  if (absl::Status status = Check(path, value, service); !status.ok()) return status;
  const auto [before, is_new] = names_.emplace(service.name, value.Mark().line + 1);
  if (is_new) return absl::OkStatus();
  return AtKey(
      path, value, "name",
      absl::StrCat("\"", service.name, "\" is the name of the service of line ", before->second, " already"));
}

absl::Status ServiceReader::Check(const std::string& path, const YAML::Node& value,
                                  net::ServiceSpec& service) const {
  if (service.name.empty()) return absl::InvalidArgumentError("has no name");
  if (service.discover.finds_services()) {
    for (const char* key : {"address", "backends", "subset"}) {
      if (value[key].IsDefined())
        return AtKey(path, value, key, "should be left out where services are found: they have their own");
    }
  } else if (service.addresses.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(service.name, " has no address: ADDRESS:PORT, or a list"));
  }
  if (service.backends.empty() && service.discover.none()) {
    return absl::InvalidArgumentError(
        absl::StrCat(service.name, " should have backends, or discover: with file, dns, etcd or kubernetes"));
  }
  if (absl::Status status = CheckAffinity(path, value, service); !status.ok()) return status;
  if (absl::Status status = CheckUdp(path, value, service); !status.ok()) return status;
  if (net::PicksByLiveCounts(service.policy) && service.network == net::ServiceNetwork::kContainer) {
    return AtKey(path, value, "policy",
                 "counts connections in the host's network: should be least-request, or another one, with "
                 "network: container and for UDP");
  }
  if (service.limits.enabled() && service.network == net::ServiceNetwork::kContainer) {
    return AtKey(path, value, "limits",
                 "counts connections in the host's network: should be left out with network: container and "
                 "for UDP");
  }
  for (size_t i = 0; i < service.backends.size(); ++i) {
    if (!LeadsToItself(service, service.backends[i].address)) continue;
    return At(file_, value["backends"][i].Mark(),
              absl::StrCat("\"", path, ".backends[", i, "]\": ", service.backends[i].address.ToString(),
                           " is an address of the service itself: what is connected to there would be "
                           "balanced again"));
  }
  return absl::OkStatus();
}

// A memory is of somebody, and of what could have been otherwise.
absl::Status ServiceReader::CheckAffinity(const std::string& path, const YAML::Node& value,
                                          const net::ServiceSpec& service) const {
  if (service.affinity_timeout.count() == 0) return absl::OkStatus();
  if (service.policy == net::PickPolicy::kMaglev || service.policy == net::PickPolicy::kRingHash) {
    return AtKey(path, value, "policy",
                 "keeps connections together by hash, for ever and without affinity.timeout: should be "
                 "least-request, or another one that does not, or the timeout be left out");
  }
  if (service.affinity == net::AffinityKey::kDefault || service.affinity == net::AffinityKey::kNone) {
    return AtKey(path, value, "affinity",
                 "has a timeout and says of nobody that he stays: should be {by: container, timeout: 3h}, or "
                 "by: user or process");
  }
  return absl::OkStatus();
}

// Connecting a UDP socket tells nothing about the peer, and such sockets stay where they are.
absl::Status ServiceReader::CheckUdp(const std::string& path, const YAML::Node& value,
                                     net::ServiceSpec& service) const {
  if (service.addresses.empty()) return absl::OkStatus();  // it finds services
  const bool only =
      std::all_of(service.addresses.begin(), service.addresses.end(),
                  [](const net::ServiceAddress& one) { return one.transport == net::Transport::kUdp; });
  if (!only) return absl::OkStatus();
  if (service.health.enabled)
    return AtKey(path, value, "health", "is for TCP: should be left out of a service of UDP");
  if (service.connect != net::ConnectSpec())
    return AtKey(path, value, "connect", "is for TCP: should be left out of a service of UDP");
  if (value["network"].IsDefined() && service.network == net::ServiceNetwork::kHost)
    return AtKey(path, value, "network", "should be container: UDP is balanced in there only");
  service.network = net::ServiceNetwork::kContainer;
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadServices(const std::string& file_name, const YAML::Node& value,
                          std::vector<net::ServiceSpec>& services) {
  if (!value.IsSequence()) return Should("a list of services");
  ServiceReader reader(file_name);
  return ReadList(file_name, "services", value, [&](const std::string& path, const YAML::Node& item) {
    if (services.size() == kMostServices)
      return absl::InvalidArgumentError(
          absl::StrCat("is one too many: at most ", kMostServices, " in a file"));
    return reader.Read(path, item, services.emplace_back());
  });
}

absl::StatusOr<std::vector<net::BackendSpec>> ParseBackendFile(const std::string& text,
                                                               const std::string& name) try {
  std::vector<net::BackendSpec> backends;
  size_t room = kMostBackends;
  const auto read = [&](const YAML::Node& list) {
    return ReadBackends(name, "backends", list, Twice::kFirstCounts, room, backends);
  };
  const YAML::Node root = YAML::Load(text);
  absl::Status status;
  if (root.IsMap()) {
    status = ReadMapping(name, "", root, {{"backends", read}});
    if (status.ok() && root.size() == 0) status = Should("a list of backends; none are []");
  } else if (root.IsSequence()) {
    status = read(root);
  } else {
    status = Should("a list of backends, or a mapping with backends: such a list; none are []");
  }
  if (status.ok()) return backends;
  return status.code() == kPlaced ? status : At(name, root.Mark(), status.message());
} catch (const YAML::Exception& error) {
  return At(name, error.mark, error.msg);
}

absl::StatusOr<net::BackendSpec> ParseBackend(const std::string& text, const std::string& name) try {
  net::BackendSpec backend;
  const YAML::Node root = YAML::Load(text);
  const absl::Status status = ReadBackend(name, "backend", root, backend);
  if (status.ok()) return backend;
  return status.code() == kPlaced ? status : At(name, root.Mark(), status.message());
} catch (const YAML::Exception& error) {
  return At(name, error.mark, error.msg);
}

bool LeadsToItself(const net::ServiceSpec& service, const net::SockAddr& backend) {
  return std::any_of(service.addresses.begin(), service.addresses.end(),
                     [&](const net::ServiceAddress& address) {
                       return (service.network == net::ServiceNetwork::kContainer || IsOneAddress(address)) &&
                              address.network.Contains(backend.ip()) &&
                              address.first_port <= backend.port() && backend.port() <= address.last_port;
                     });
}

}  // namespace shunt
