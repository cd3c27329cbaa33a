// SPDX-License-Identifier: Apache-2.0
// The key `discover:` of a service's configuration (tools/service_config.h).

#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

#include "absl/status/status.h"
#include "net/balancer/discover_spec.h"

namespace shunt {

// Its mapping `etcd:`, which may leave out a prefix that is in `etcd` already.
absl::Status ReadEtcd(const std::string& file, const std::string& path, const YAML::Node& value,
                      net::EtcdSpec& etcd);

// `file` and `path` are for messages, as in ReadMapping() (tools/yaml_reading.h).
absl::Status ReadDiscover(const std::string& file, const std::string& path, const YAML::Node& value,
                          net::DiscoverSpec& discover);

}  // namespace shunt
