// SPDX-License-Identifier: Apache-2.0
// What a balancer could say of two services, for those who show it to people and programs.

#pragma once

#include <vector>

#include "net/balancer/balancer.h"

namespace shunt {

inline std::vector<net::ServiceReport> TwoServices() {
  return {{.name = "orders",
           .addresses = {"10.96.0.10:80/tcp", "[fd00:96::10]:80/tcp"},
           .policy = "least-request",
           .affinity = "none",
           .backends = {{.address = "192.168.7.11:8080",
                         .zone = "a",
                         .weight = 3,
                         .effective_weight = 3,
                         .state = "up",
                         .picks = 1200,
                         .connected = 1000,
                         .failed = 7,
                         .ejections = 2,
                         .in_flight = 4,
                         .mean_connect_us = 250.5},
                        {.address = "192.168.7.12:8080",
                         .weight = 10,
                         .effective_weight = 2.5,
                         .backup = true,
                         .state = "slow-start",
                         .mean_connect_us = 1234},
                        {.address = "192.168.7.13:8080", .state = "down", .last_error = "refused"}}},
          {.name = "a\"b\\c\n\033[2J",
           .addresses = {"10.96.0.11:1-65535/udp"},
           .policy = "maglev",
           .affinity = "container",
           .panic = true,
           .source = "/etc/shunt/orders.yaml",
           .source_error = "gone",
           .source_age_s = 312.5}};
}

}  // namespace shunt
