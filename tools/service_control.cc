// SPDX-License-Identifier: Apache-2.0
#include "tools/service_control.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using Kind = net::BackendCommand::Kind;

// Of services that an error names.
constexpr size_t kMostNames = 20;

Json BackendToJson(const net::BackendReport& backend) {
  Json one = {{"address", backend.address},      {"zone", backend.zone},
              {"weight", backend.weight},        {"effective_weight", backend.effective_weight},
              {"backup", backend.backup},        {"state", backend.state},
              {"picks", backend.picks},          {"connected", backend.connected},
              {"failed", backend.failed},        {"ejections", backend.ejections},
              {"in_flight", backend.in_flight},  {"mean_connect_us", backend.mean_connect_us},
              {"last_error", backend.last_error}};
  if (backend.open) {
    one["open"] = *backend.open;
    one["rtt_us"] = backend.rtt_us;
  }
  if (backend.limit != 0) one["limit"] = backend.limit;
  return one;
}

Json ServiceToJson(const net::ServiceReport& service) {
  Json backends = Json::array();
  for (const net::BackendReport& backend : service.backends) backends.push_back(BackendToJson(backend));
  Json one = {{"name", service.name},
              {"addresses", service.addresses},
              {"policy", service.policy},
              {"affinity", service.affinity},
              {"panic", service.panic},
              {"source", service.source},
              {"source_error", service.source_error},
              {"source_age_s", service.source_age_s},
              {"backends", std::move(backends)}};
  if (service.limited) {
    one["queue"] = {{"waiting", service.queued},
                    {"refused", service.refused},
                    {"waited", service.waited},
                    {"waited_s", service.waited_s}};
  }
  return one;
}

}  // namespace

absl::StatusOr<std::optional<ServiceRequest>> ParseServiceRequest(absl::string_view line) {
  static const auto* const kKinds = new std::map<absl::string_view, Kind>{{"drain", Kind::kDrain},
                                                                          {"disable", Kind::kDisable},
                                                                          {"enable", Kind::kEnable},
                                                                          {"weight", Kind::kWeight}};
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  if (words.empty()) return std::nullopt;
  if (words[0] == "services") {
    if (words.size() > 2) return absl::InvalidArgumentError("should be: services [SERVICE]");
    return ServiceQuery{.service = words.size() == 2 ? std::string(words[1]) : ""};
  }
  const auto kind = kKinds->find(words[0]);
  if (kind == kKinds->end()) return std::nullopt;
  const bool weight = kind->second == Kind::kWeight;
  if (words.size() != (weight ? 4 : 3)) {
    return absl::InvalidArgumentError(
        absl::StrCat("should be: ", words[0], " SERVICE BACKEND", weight ? " N" : ""));
  }
  BackendOrder order{.service = std::string(words[1]), .backend = std::string(words[2])};
  order.command.kind = kind->second;
  if (weight &&
      (!absl::SimpleAtoi(words[3], &order.command.weight) || order.command.weight > net::kMostWeight)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the weight \"", words[3], "\" should be a whole number from 0 to ", net::kMostWeight));
  }
  return order;
}

Json ServicesToJson(const std::vector<net::ServiceReport>& reports) {
  Json services = Json::array();
  for (const net::ServiceReport& report : reports) services.push_back(ServiceToJson(report));
  return {{"services", std::move(services)}};
}

Json AnswerQuery(const ServiceQuery& query, const std::vector<net::ServiceReport>& reports) {
  if (query.service.empty()) return ServicesToJson(reports);
  const auto found = std::find_if(reports.begin(), reports.end(), [&query](const net::ServiceReport& report) {
    return report.name == query.service;
  });
  if (found != reports.end()) return ServicesToJson({*found});
  std::string names;
  for (size_t i = 0; i < std::min(reports.size(), kMostNames); ++i)
    absl::StrAppend(&names, i == 0 ? "" : ", ", reports[i].name);
  if (reports.size() > kMostNames) absl::StrAppend(&names, " and ", reports.size() - kMostNames, " more");
  return {{"error", absl::StrCat("there is no service \"", query.service, "\"; ",
                                 reports.empty() ? "none is configured" : "there are ", names)}};
}

}  // namespace shunt
