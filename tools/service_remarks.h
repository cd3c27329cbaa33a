// SPDX-License-Identifier: Apache-2.0
// What an operator should know of services that are right, each by itself, and may not do what was meant: for
// `shunt agent --check-config`.

#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "net/balancer/service.h"

namespace shunt {

struct ServiceRemark {
  int line = 0;
  std::string text;  // begins with the key
};

// For each service those that are about it: an address of which another service gets a part, or that names a
// network by one of its hosts; services whose backends are each other's addresses. `list` is what `services`
// were read from.
std::vector<std::vector<ServiceRemark>> RemarksOn(const YAML::Node& list,
                                                  const std::vector<net::ServiceSpec>& services);

}  // namespace shunt
