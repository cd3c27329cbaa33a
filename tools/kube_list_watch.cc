// SPDX-License-Identifier: Apache-2.0
// KubeListWatch: see kube_list_watch.h. The order here: what is asked, a list, a watch, failures.

#include "tools/kube_list_watch.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/harmless.h"
#include "tools/kube_server.h"
#include "tools/pod_record.h"

namespace shunt {
namespace {

constexpr long kGone = 410;
constexpr std::chrono::seconds kGrace{30};  // for the server to end a watch itself

// For a query: what the server has given may have any bytes.
std::string InQuery(absl::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const char byte : text) {
    const auto bits = static_cast<unsigned char>(byte);
    if (absl::ascii_isalnum(bits) || byte == '-' || byte == '_' || byte == '.' || byte == '~') {
      result += byte;
    } else {
      result += {'%', kDigits[bits >> 4], kDigits[bits & 15]};
    }
  }
  return result;
}

// Whether the same watch may be answered otherwise later.
bool MayPass(long code) {
  return code == 401 || code == 403 || code == 429 || code == 503;
}

}  // namespace

std::string KubeListWatch::HelpFor(long code) const {
  switch (code) {
    case 401:
      return "; give the agent a token that is valid there";
    case 403:
      return absl::StrCat("; give the agent's account the right to list and watch ", objects_.kind.plural,
                          " (deploy/kubernetes/rbac.yaml)");
    case 404:
      return objects_.since;
    case 429:
      return "; it has too much to do, and is asked again when it wishes";
    default:
      return "";
  }
}

// ---- what is asked

absl::StatusOr<Watcher::Ask> KubeListWatch::Next() {
  heard_ = refused_ = expired_ = false;
  absl::StatusOr<std::optional<HttpOrigin>> server = FindKubeServer(kubeconfig_);
  if (!server.ok()) return server.status();
  if (!server->has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("no API server is known: give kubeconfig: FILE beside ",
                                                      beside_,
                                                      ", or the agent KUBECONFIG, or run it in a pod"));
  }
  if (url_ != (*server)->url) ListAnew();  // it may have been another cluster
  url_ = (*server)->url;
  Ask ask{.origin = **std::move(server), .path = Path(), .post = {}, .authorization = {}};
  if (!version_.empty()) {
    ask.streams = true;
    ask.longest = kWatch + kGrace;
  }
  return ask;
}

std::string KubeListWatch::Path() const {
  const bool core = !absl::StrContains(objects_.kind.version, "/");
  std::string path = absl::StrCat(core ? "/api/" : "/apis/", objects_.kind.version);
  if (!objects_.space.empty()) absl::StrAppend(&path, "/namespaces/", objects_.space);
  absl::StrAppend(&path, "/", objects_.kind.plural, "?labelSelector=", objects_.selector);
  if (!version_.empty()) {
    absl::StrAppend(&path, "&watch=1&allowWatchBookmarks=true&resourceVersion=", InQuery(version_),
                    "&timeoutSeconds=", kWatch.count());
    return path;
  }
  if (in_pages_) absl::StrAppend(&path, "&limit=", page_ > 0 ? page_ : objects_.page);
  if (!next_page_.empty()) absl::StrAppend(&path, "&continue=", InQuery(next_page_));
  return path;
}

// ---- a list

absl::Status KubeListWatch::OnAnswer(const HttpAnswer& answer) {
  if (answer.code != 200) return OnRefusal(answer);
  if (version_.empty()) return OfServer(OnPage(answer.body));
  just_listed_ = false;  // the watch has lasted
  return absl::OkStatus();
}

absl::Status KubeListWatch::OnPage(const std::string& body) {
  absl::StatusOr<KubePage> page = ReadKubePage(body, objects_.kind);
  if (!page.ok()) {
    ListAnew();
    return page.status();
  }
  if (next_page_.empty()) {
    listed_.clear();
    listed_version_ = page->version;
    OnListBegins();
  }
  const size_t before = listed_.size();
  for (const nlohmann::json& object : page->objects) {
    listed_.insert(KubeNameOf(object));
    if (absl::Status status = OnListed(object); !status.ok()) {
      ListAnew();
      return status;
    }
  }
  if (listed_.size() > objects_.most) {
    ListAnew();
    return absl::ResourceExhaustedError(absl::StrCat("its list does not end: there are more than ",
                                                     objects_.most, " ", objects_.kind.kind,
                                                     "s; what was there before stays in force"));
  }
  next_page_ = std::move(page->next);
  if (!next_page_.empty()) {
    if (listed_.size() > before) return absl::OkStatus();
    ListAnew();
    return absl::InvalidArgumentError("a page of the list has nothing new, and there should be more of them");
  }
  version_ = listed_version_;
  just_listed_ = in_pages_ = true;
  const Names names = std::exchange(listed_, {});
  absl::Status status = OnListEnds(names);
  if (absl::IsOutOfRange(status)) ListAnew();
  return status;
}

void KubeListWatch::ListAnew() {
  version_.clear();
  next_page_.clear();
  listed_.clear();
}

// ---- a watch

absl::Status KubeListWatch::OnLine(absl::string_view line) {
  absl::StatusOr<KubeEvent> event = ReadKubeEvent(line, objects_.kind);
  if (!event.ok()) ListAnew();  // what it was about is not known
  absl::Status status = event.ok() ? OnEvent(*std::move(event)) : event.status();
  refused_ = !status.ok();
  heard_ = heard_ || !refused_;
  return status;
}

absl::Status KubeListWatch::OnEvent(KubeEvent event) {
  if (event.what == KubeEvent::What::kError) {
    expired_ = event.code == kGone;
    if (!expired_) ListAnew();
    return absl::FailedPreconditionError(
        absl::StrCat("it ends the watch: ", event.code, " ", event.message, HelpFor(event.code)));
  }
  just_listed_ = false;
  version_ = std::move(event.version);
  absl::Status status;
  if (event.what == KubeEvent::What::kChanged) status = OnChanged(event.object);
  if (event.what == KubeEvent::What::kDeleted) status = OnDeleted(event.object);
  if (!status.ok()) ListAnew();
  return status;
}

// ---- failures

absl::Status KubeListWatch::OnRefusal(const HttpAnswer& answer) {
  const std::string message = Shortened(RefusalIn(answer.body), kLongestText);
  if (answer.code == kGone) return OnExpired(message);
  if (!version_.empty() && !MayPass(answer.code)) ListAnew();
  return OfServer(absl::FailedPreconditionError(
      absl::StrCat("it answers ", answer.code, message.empty() ? "" : ": ", message, HelpFor(answer.code))));
}

absl::Status KubeListWatch::OnFailure(absl::Status why) {
  if (expired_) return OnExpired(std::string(why.message()));
  if (version_.empty() && absl::IsOutOfRange(why)) {
    // The objects are larger than usual: fewer of them then, and in pages in any case.
    const int page = page_ > 0 ? page_ : objects_.page;
    const bool smaller = in_pages_ && page > 1;
    if (smaller) page_ = std::max(1, page / 4);
    in_pages_ = true;
    ListAnew();
    if (smaller) return absl::OkStatus();
  }
  // Servers and what lies before them end connections that have lasted; if there is more to it, the next
  // watch fails at once.
  if (heard_ && !refused_) return absl::OkStatus();
  return OfServer(why);
}

absl::Status KubeListWatch::OnExpired(const std::string& message) {
  // A server that has forgotten what it has only just told is not asked without a pause.
  const bool at_once = version_.empty() ? std::exchange(in_pages_, false) : !just_listed_;
  ListAnew();
  if (at_once) return absl::OkStatus();
  return OfServer(absl::FailedPreconditionError(
      absl::StrCat("it has forgotten already what it has just told: ", message)));
}

absl::Status KubeListWatch::OfServer(const absl::Status& why) const {
  if (why.ok()) return why;
  return absl::Status(why.code(), absl::StrCat(url_, ": ", why.message()));
}

}  // namespace shunt
