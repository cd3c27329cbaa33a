// SPDX-License-Identifier: Apache-2.0
// Multinode: containers of several machines reach each other by their own addresses (docs/multinode.md), as
// with bypass4netns: each machine says in etcd where published ports of its containers are.
//
//   multinode:
//     etcd: {endpoints: [https://192.168.7.2:2379], ca: /etc/shunt/etcd.crt}
//     networks: [10.88.0.0/16]
//     register: true                  # announce this machine's, too (tools/registrar.h)
//     host-address: 192.168.7.11
//
//   bypass4netns/multinode/10.88.0.5:80       192.168.7.11:8080
//   bypass4netns/multinode/[fd88::5]:80       192.168.7.11:8080

#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/balancer/service.h"
#include "net/ip_address.h"
#include "net/subnet_set.h"

namespace shunt {

// The service whose source finds these keys. It has no address itself.
inline constexpr char kMultinodeName[] = "multinode";
inline constexpr size_t kMostMultinodeKeys = 20'000;

struct MultinodeConfig {
  net::EtcdSpec etcd;                          // without endpoints: nothing of all this
  std::vector<net::Subnet> networks;           // of containers
  bool registers = false;                      // this machine's containers are announced
  std::optional<net::IpAddress> host_address;  // where others reach this machine

  bool enabled() const { return !etcd.endpoints.empty(); }
  friend bool operator==(const MultinodeConfig&, const MultinodeConfig&) = default;
};

// Reads the value of `multinode:`. As ReadServices() (tools/service_config.h).
absl::Status ReadMultinode(const std::string& file_name, const YAML::Node& value, MultinodeConfig& config);

// Whether what `config` says is enough to announce something. The error says what is missing.
absl::Status CheckRegisters(const MultinodeConfig& config);

// With `config` enabled.
net::ServiceSpec MultinodeService(const MultinodeConfig& config);

// What a key says, of which `key` is what stands behind the prefix; `full_key` is for the error.
absl::StatusOr<net::BackendSpec> ReadMultinodeKey(absl::string_view key, const std::string& value,
                                                  const std::string& full_key);

}  // namespace shunt
