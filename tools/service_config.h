// SPDX-License-Identifier: Apache-2.0
// Services in the agent's configuration, and files of backends: what docs/services.md explains becomes
// net::ServiceSpec. Whatever is left out has the default that net/balancer/service.h says.
//
//   services:
//     - name: orders
//       address: [10.96.0.10:80/tcp, "[fd00:96::10]:80/tcp"]
//       policy: least-request
//       backends:
//         - {address: 192.168.7.11:8080, weight: 3, zone: a, labels: {version: v2}}
//         - 192.168.7.13:8080
//       discover: {file: /etc/shunt/orders.yaml}
//
// What gets through is consistent: names and addresses are there once, every service has somewhere to get
// backends from, and none leads to itself.

#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/balancer/service.h"

namespace shunt {

// Of one file. The backends of all its services together.
inline constexpr size_t kMostServices = 20'000;
inline constexpr size_t kMostBackends = 200'000;

// Reads the value of `services:`. `file_name` is the file's, for messages. The error names file, line and
// key, and says what would be right. May throw what yaml-cpp throws; call it from ReadYaml().
absl::Status ReadServices(const std::string& file_name, const YAML::Node& value,
                          std::vector<net::ServiceSpec>& services);

// Reads the text of a file that `discover.file` names: a list of backends, or a mapping with `backends:`, as
// YAML or JSON. Of a backend that is there twice the first counts. An empty text is an error, since it is
// what a file looks like that is being written; no backends are []. No exception gets out.
absl::StatusOr<std::vector<net::BackendSpec>> ParseBackendFile(const std::string& text,
                                                               const std::string& name);

// Reads one item of such a list: "192.168.7.11:8080", or a mapping with an address. No exception gets out.
absl::StatusOr<net::BackendSpec> ParseBackend(const std::string& text, const std::string& name);

// True if connections to `backend` would be connections to the service itself: those of `network: container`,
// which programs could have made themselves, to any address of the service; others to one that it names alone
// (a network may have its backends inside). What a source finds has to be asked about.
bool LeadsToItself(const net::ServiceSpec& service, const net::SockAddr& backend);

}  // namespace shunt
