// SPDX-License-Identifier: Apache-2.0
// Services on the control socket (tools/control_server.h): the lines that are about them, and the answers.
//
//   services [SERVICE]                 {"services": [...]}, or {"error": "..."}
//   drain|disable|enable SERVICE BACKEND
//   weight SERVICE BACKEND N           {"done": true}, or {"error": "..."}
//
// The client's side is tools/ctl_services.h.

#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/balancer/balancer.h"

namespace shunt {

struct ServiceQuery {
  std::string service;  // empty: all
};

// For Balancer::Command().
struct BackendOrder {
  std::string service;
  std::string backend;
  net::BackendCommand command;
};

using ServiceRequest = std::variant<ServiceQuery, BackendOrder>;

// Nothing: the line is about something else. The error says how the command is written.
absl::StatusOr<std::optional<ServiceRequest>> ParseServiceRequest(absl::string_view line);

// {"services": [...]}. The members are those of net::ServiceReport and net::BackendReport, by the same names.
nlohmann::json ServicesToJson(const std::vector<net::ServiceReport>& reports);

// The answer to a query about what is reported; an unknown service is an error that names those there are.
nlohmann::json AnswerQuery(const ServiceQuery& query, const std::vector<net::ServiceReport>& reports);

}  // namespace shunt
