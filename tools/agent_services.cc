// SPDX-License-Identifier: Apache-2.0
#include "tools/agent_services.h"

#include <utility>
#include <variant>

#include "tools/log.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using Kind = net::BackendCommand::Kind;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void AgentServices::Begin(Accelerator& accelerator, const AgentConfig& config, const Json& orders) {
  accelerator_ = &accelerator;
  Configure(config, /*at_once=*/orders.empty());
  for (const Json& line : orders) {
    bool changed = false;
    if (line.is_string()) Answer(line.get<std::string>(), changed);
  }
  if (!orders.empty()) Configure(config, /*at_once=*/true);
}

void AgentServices::Reload(const AgentConfig& config) {
  Configure(config, /*at_once=*/false);
}

void AgentServices::Configure(const AgentConfig& config, bool at_once) {
  accelerator_->Balance(config.AllServices(), config.zone, at_once);
}

std::string AgentServices::Answer(const std::string& line, bool& changed) {
  const absl::StatusOr<std::optional<ServiceRequest>> request = ParseServiceRequest(line);
  if (!request.ok()) return Dump({{"error", log::Text(request.status())}});
  if (!request->has_value()) return "";
  if (const auto* const query = std::get_if<ServiceQuery>(&**request))
    return Dump(AnswerQuery(*query, accelerator_->DescribeServices()));
  const auto& order = std::get<BackendOrder>(**request);
  if (absl::Status status = accelerator_->TellBackend(order.service, order.backend, order.command);
      !status.ok()) {
    return Dump({{"error", log::Text(status)}});
  }
  Note(line, order);
  changed = true;
  return Dump({{"done", true}});
}

// A weight stands beside the rest; of drain, disable and enable the last one holds.
void AgentServices::Note(const std::string& line, const BackendOrder& order) {
  const bool weight = order.command.kind == Kind::kWeight;
  std::erase_if(orders_, [&](const Order& one) {
    return one.service == order.service && one.backend == order.backend && one.weight == weight;
  });
  if (order.command.kind == Kind::kEnable) return;
  orders_.push_back({.service = order.service, .backend = order.backend, .weight = weight, .line = line});
}

Json AgentServices::orders() const {
  Json lines = Json::array();
  for (const Order& order : orders_) lines.push_back(order.line);
  return lines;
}

}  // namespace shunt
