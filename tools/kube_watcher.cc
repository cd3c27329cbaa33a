// SPDX-License-Identifier: Apache-2.0
// KubeWatcher: see kube_watcher.h. The order here: what is asked, a list, a watch, failures, what is told.

#include "tools/kube_watcher.h"

#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
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

const char* HelpFor(long code) {
  switch (code) {
    case 401:
      return "; give the agent a token that is valid there";
    case 403:
      return "; give the agent's account the right to list and watch endpointslices "
             "(deploy/kubernetes/rbac.yaml)";
    case 404:
      return "; discovery.k8s.io/v1 takes Kubernetes 1.21 or later";
    case 429:
      return "; it has too much to do, and is asked again when it wishes";
    default:
      return "";
  }
}

// Whether the same watch may be answered otherwise later.
bool MayPass(long code) {
  return code == 401 || code == 403 || code == 429 || code == 503;
}

}  // namespace

std::string KubeWatcher::Title() const {
  return absl::StrCat("kubernetes ", spec_.service);
}

// ---- what is asked

absl::StatusOr<Watcher::Ask> KubeWatcher::Next() {
  heard_ = refused_ = expired_ = false;
  absl::StatusOr<std::optional<HttpOrigin>> server = FindKubeServer(spec_.kubeconfig);
  if (!server.ok()) return server.status();
  if (!server->has_value()) {
    return absl::FailedPreconditionError(
        "no API server is known: give kubeconfig: FILE beside service:, or the agent KUBECONFIG, or run it "
        "in "
        "a pod");
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

std::string KubeWatcher::Path() const {
  const size_t slash = spec_.service.find('/');
  std::string path = absl::StrCat("/apis/discovery.k8s.io/v1/namespaces/", spec_.service.substr(0, slash),
                                  "/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D",
                                  spec_.service.substr(slash + 1));
  if (!version_.empty()) {
    absl::StrAppend(&path, "&watch=1&allowWatchBookmarks=true&resourceVersion=", InQuery(version_),
                    "&timeoutSeconds=", kWatch.count());
    return path;
  }
  if (in_pages_) absl::StrAppend(&path, "&limit=", kPage);
  if (!next_page_.empty()) absl::StrAppend(&path, "&continue=", InQuery(next_page_));
  return path;
}

// ---- a list

absl::Status KubeWatcher::OnAnswer(const HttpAnswer& answer) {
  if (answer.code != 200) return OnRefusal(answer);
  if (version_.empty()) return OfServer(OnPage(answer.body));
  just_listed_ = false;  // the watch has lasted
  return absl::OkStatus();
}

absl::Status KubeWatcher::OnPage(const std::string& body) {
  absl::StatusOr<SlicePage> page = ReadSlicePage(body);
  if (!page.ok()) {
    ListAnew();
    return page.status();
  }
  if (next_page_.empty()) {
    listed_ = {};
    listed_version_ = page->version;
  }
  const size_t before = listed_.size();
  for (EndpointSlice& slice : page->slices) {
    if (!IsOurs(slice)) continue;
    if (absl::Status status = listed_.Put(std::move(slice)); !status.ok()) {
      ListAnew();
      return status;
    }
  }
  next_page_ = std::move(page->next);
  if (!next_page_.empty()) {
    if (listed_.size() > before) return absl::OkStatus();
    ListAnew();
    return absl::InvalidArgumentError("a page of the list has nothing new, and there should be more of them");
  }
  slices_ = std::exchange(listed_, {});
  version_ = listed_version_;
  just_listed_ = in_pages_ = true;
  return Tell();
}

void KubeWatcher::ListAnew() {
  version_.clear();
  next_page_.clear();
  listed_ = {};
}

// ---- a watch

void KubeWatcher::OnStream() {
  // If there was a failure, it has passed. What is wrong with the slices has been told.
  Tell().IgnoreError();
}

absl::Status KubeWatcher::OnLine(absl::string_view line) {
  absl::StatusOr<SliceEvent> event = ReadSliceEvent(line);
  if (!event.ok()) ListAnew();  // what it was about is not known
  absl::Status status = event.ok() ? OnEvent(*std::move(event)) : event.status();
  refused_ = !status.ok();
  heard_ = heard_ || !refused_;
  return status;
}

absl::Status KubeWatcher::OnEvent(SliceEvent event) {
  if (event.kind == SliceEvent::Kind::kError) {
    expired_ = event.code == kGone;
    if (!expired_) ListAnew();
    return absl::FailedPreconditionError(
        absl::StrCat("it ends the watch: ", event.code, " ", event.message, HelpFor(event.code)));
  }
  just_listed_ = false;
  version_ = std::move(event.version);
  if (event.kind == SliceEvent::Kind::kBookmark) return absl::OkStatus();
  if (event.kind == SliceEvent::Kind::kDeleted || !IsOurs(event.slice)) {
    slices_.Remove(event.slice.name);
  } else if (absl::Status status = slices_.Put(std::move(event.slice)); !status.ok()) {
    ListAnew();
    return status;
  }
  return Tell();
}

bool KubeWatcher::IsOurs(const EndpointSlice& slice) const {
  return absl::string_view(spec_.service).substr(spec_.service.find('/') + 1) == slice.service;
}

// ---- failures

absl::Status KubeWatcher::OnRefusal(const HttpAnswer& answer) {
  const std::string message = Shortened(RefusalIn(answer.body), kLongestText);
  if (answer.code == kGone) return OnExpired(message);
  if (!version_.empty() && !MayPass(answer.code)) ListAnew();
  return OfServer(absl::FailedPreconditionError(
      absl::StrCat("it answers ", answer.code, message.empty() ? "" : ": ", message, HelpFor(answer.code))));
}

absl::Status KubeWatcher::OnFailure(absl::Status why) {
  if (expired_) return OnExpired(std::string(why.message()));
  // Servers and what lies before them end connections that have lasted; if there is more to it, the next
  // watch fails at once.
  if (heard_ && !refused_) return absl::OkStatus();
  return OfServer(why);
}

absl::Status KubeWatcher::OnExpired(const std::string& message) {
  // A server that has forgotten what it has only just told is not asked without a pause.
  const bool at_once = version_.empty() ? std::exchange(in_pages_, false) : !just_listed_;
  ListAnew();
  if (at_once) return absl::OkStatus();
  return OfServer(absl::FailedPreconditionError(
      absl::StrCat("it has forgotten already what it has just told: ", message)));
}

absl::Status KubeWatcher::OfServer(const absl::Status& why) const {
  if (why.ok()) return why;
  return absl::Status(why.code(), absl::StrCat(url_, ": ", why.message()));
}

// ---- what is told

absl::Status KubeWatcher::Tell() {
  absl::StatusOr<EndpointSlices::Backends> backends = slices_.BackendsAt(spec_.port);
  if (backends.ok()) {
    told_ = backends->list;
    Found(std::move(backends->list), std::move(backends->missing));
    return absl::OkStatus();
  }
  // The watch goes on: whoever mends this does it there.
  if (!told_) return backends.status();
  Found(*told_, backends.status());
  return absl::OkStatus();
}

}  // namespace shunt
