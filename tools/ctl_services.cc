// SPDX-License-Identifier: Apache-2.0
#include "tools/ctl_services.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "net/balancer/service.h"
#include "tools/ctl_link.h"
#include "tools/harmless.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Of a service's name and a backend's address: longer ones there are not.
// A service that was found may have a name of three labels of DNS.
constexpr size_t kLongestArgument = 200;

struct Column {
  const char* head;
  bool right;            // numbers
  bool if_used = false;  // not shown where no line has anything in it
};
constexpr Column kServiceColumns[] = {{"SERVICE", false}, {"ADDRESS", false}, {"POLICY", false}};
constexpr Column kBackendColumns[] = {
    {"BACKEND", false}, {"WEIGHT", true},    {"STATE", false},    {"PICKS", true},       {"FAILED", true},
    {"CONNECT", true},  {"EJECTIONS", true}, {"IN-FLIGHT", true}, {"LIMIT", true, true}, {"ZONE", false}};

using Row = std::vector<std::string>;

// Lines of cells whose widths follow from all of them.
class Table {
 public:
  template <size_t N>
  Table(const char* indent, const Column (&columns)[N]) : indent_(indent), columns_(columns, columns + N) {
    for (const Column& column : columns_)
      widths_.push_back(column.if_used ? 0 : std::string_view(column.head).size());
  }

  void Measure(const Row& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i].empty()) continue;
      widths_[i] = std::max({widths_[i], row[i].size(), std::string_view(columns_[i].head).size()});
    }
  }

  std::string Head() const {
    Row row;
    for (const Column& column : columns_) row.emplace_back(column.head);
    return Line(row);
  }

  std::string Line(const Row& row) const {
    std::string line = indent_;
    for (size_t i = 0; i < row.size(); ++i) {
      if (columns_[i].if_used && widths_[i] == 0) continue;
      const std::string blanks(widths_[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", columns_[i].right ? blanks : "", row[i],
                      columns_[i].right ? "" : blanks);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  }

 private:
  const char* indent_;
  std::vector<Column> columns_;
  std::vector<size_t> widths_;
};

const Json& ListIn(const Json& object, const char* key) {
  static const auto* const kNone = new Json(Json::array());
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : *kNone;
}

std::string MeanText(double microseconds) {
  if (microseconds <= 0) return "-";
  if (microseconds < 1000) return absl::StrFormat("%.0fus", microseconds);
  if (microseconds < 1e6) return absl::StrFormat("%.1fms", microseconds / 1e3);
  return absl::StrFormat("%.1fs", microseconds / 1e6);
}

std::string AgeText(double seconds) {
  const auto whole = static_cast<int64_t>(std::clamp(seconds, 0.0, 1e12));
  if (whole < 60) return absl::StrCat(whole, "s");
  if (whole < 3600) return absl::StrCat(whole / 60, "m", whole % 60, "s");
  return absl::StrCat(whole / 3600, "h", whole / 60 % 60, "m");
}

// What it counts for now, of what the operator wants, where these differ (slow start).
std::string WeightText(const Json& backend) {
  const uint64_t weight = NumberIn(backend, "weight");
  const double effective = backend.value("effective_weight", static_cast<double>(weight));
  if (effective == static_cast<double>(weight)) return absl::StrCat(weight);
  return absl::StrFormat("%.2g/%d", effective, weight);
}

Row BackendRow(const Json& backend) {
  return {TextIn(backend, "address"),
          WeightText(backend),
          absl::StrCat(TextIn(backend, "state"), backend.value("backup", false) ? " (backup)" : ""),
          absl::StrCat(NumberIn(backend, "picks")),
          absl::StrCat(NumberIn(backend, "failed")),
          MeanText(backend.value("mean_connect_us", 0.0)),
          absl::StrCat(NumberIn(backend, "ejections")),
          backend.contains("open") ? absl::StrCat(NumberIn(backend, "open"), " open")
                                   : absl::StrCat(NumberIn(backend, "in_flight")),
          backend.contains("limit") ? absl::StrCat(NumberIn(backend, "limit")) : "",
          TextIn(backend, "zone")};
}

// One for each address; name and policy stand in the first.
std::vector<Row> ServiceRows(const Json& service) {
  const std::string affinity = TextIn(service, "affinity");
  std::vector<Row> rows;
  for (const Json& address : ListIn(service, "addresses"))
    rows.push_back({"", Harmless(address.is_string() ? address.get<std::string>() : ""), ""});
  if (rows.empty()) rows.push_back({"", "", ""});
  rows[0][0] = TextIn(service, "name");
  rows[0][2] = absl::StrCat(TextIn(service, "policy"),
                            affinity.empty() || affinity == "none" ? "" : absl::StrCat(", by ", affinity));
  return rows;
}

// What has to be known of a service beside its numbers.
std::string ServiceNotes(const Json& service) {
  std::string notes;
  if (service.value("panic", false))
    notes += "  ! panic: too few backends are available, so all of them are used\n";
  if (const auto queue = service.find("queue"); queue != service.end() && queue->is_object()) {
    const uint64_t waited = NumberIn(*queue, "waited");
    const double mean_us =
        waited == 0 ? 0 : queue->value("waited_s", 0.0) * 1e6 / static_cast<double>(waited);
    absl::StrAppend(&notes, "  at the limit: ", NumberIn(*queue, "waiting"), " wait, ", waited,
                    " have waited (", MeanText(mean_us), "), ", NumberIn(*queue, "refused"),
                    " were refused\n");
  }
  const std::string source = TextIn(service, "source");
  if (source.empty()) return notes;
  const std::string error = TextIn(service, "source_error");
  const std::string age = AgeText(service.value("source_age_s", 0.0));
  if (error.empty()) {
    absl::StrAppend(&notes, "  from ", source, ", ", age, " ago\n");
  } else {
    absl::StrAppend(&notes, "  ! from ", source, ", ", age, " ago, and since then: ", error, "\n");
  }
  return notes;
}

std::string OneWord(const std::string& text) {
  const bool right = !text.empty() && text.size() <= kLongestArgument &&
                     std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
  return right ? "" : absl::StrCat("should be one word of at most ", kLongestArgument, " letters");
}

int ShowServices(const std::string& socket, const std::string& service, bool json) {
  const absl::StatusOr<Json> answer =
      AskAgent(socket, absl::StrCat("services", service.empty() ? "" : " ", service));
  if (!answer.ok()) return FailCtl(kCtlNoAgent, answer.status());
  if (answer->contains("error")) return FailCtl(kCtlFailed, absl::UnavailableError(TextIn(*answer, "error")));
  const std::string text = json ? answer->dump(2) + "\n" : ServicesText(*answer);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

std::string ServicesText(const Json& answer) {
  const Json& services = ListIn(answer, "services");
  if (services.empty()) return "no services are configured\n";
  Table service_table("", kServiceColumns);
  Table backend_table("  ", kBackendColumns);
  for (const Json& service : services) {
    for (const Row& row : ServiceRows(service)) service_table.Measure(row);
    for (const Json& backend : ListIn(service, "backends")) backend_table.Measure(BackendRow(backend));
  }
  std::string text = service_table.Head() + backend_table.Head();
  for (const Json& service : services) {
    text += "\n";
    for (const Row& row : ServiceRows(service)) text += service_table.Line(row);
    text += ServiceNotes(service);
    const Json& backends = ListIn(service, "backends");
    if (backends.empty()) text += "  (no backends)\n";
    for (const Json& backend : backends) {
      text += backend_table.Line(BackendRow(backend));
      if (const std::string error = TextIn(backend, "last_error"); !error.empty())
        absl::StrAppend(&text, "    check: ", error, "\n");
    }
  }
  return text;
}

void AddServiceCommands(CLI::App& ctl,
                        std::function<void(const std::function<int(const std::string& socket)>& act)> run) {
  struct Arguments {
    std::string service, backend;
    uint32_t weight = 1;
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  const auto add_service = [arguments](CLI::App* command) {
    return command->add_option("SERVICE", arguments->service, "As in the configuration")->check(OneWord);
  };

  CLI::App* const services =
      ctl.add_subcommand("services", "Shows services, their backends, and how these do");
  add_service(services);
  services->add_flag("--json", arguments->json, "As JSON");
  services->callback([=] {
    run([&](const std::string& socket) { return ShowServices(socket, arguments->service, arguments->json); });
  });

  const auto add_order = [&](const std::string& name, const char* description) {
    CLI::App* const command = ctl.add_subcommand(name, description);
    add_service(command)->required();
    command->add_option("BACKEND", arguments->backend, "Its address, as `shunt ctl services` shows it")
        ->required()
        ->check(OneWord);
    const bool weight = name == "weight";
    if (weight) {
      command->add_option("N", arguments->weight, "Its weight; 0: no new connections")
          ->required()
          ->check(CLI::Range(uint32_t{0}, net::kMostWeight));
    }
    command->callback([=] {
      run([&](const std::string& socket) {
        const std::string order = absl::StrCat(name, " ", arguments->service, " ", arguments->backend);
        return CommandAgent(socket, weight ? absl::StrCat(order, " ", arguments->weight) : order);
      });
    });
  };
  add_order("drain", "Gives a backend no new connections; those that it has end when `drain:` says so");
  add_order("disable", "Gives a backend no new connections; those that it has stay");
  add_order("enable", "Takes drain and disable back");
  add_order("weight", "Gives a backend another weight");
}

}  // namespace shunt
