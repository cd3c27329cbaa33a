// SPDX-License-Identifier: Apache-2.0
#include "tools/service_source.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/discovery/dns_source.h"
#include "net/discovery/file_source.h"
#include "tools/cluster_watcher.h"
#include "tools/etcd_watcher.h"
#include "tools/kube_watcher.h"
#include "tools/log.h"
#include "tools/multinode.h"
#include "tools/service_config.h"

namespace shunt {

namespace {

using Found = absl::StatusOr<std::vector<net::BackendSpec>>;

// Of each reason for which there is nothing the log has one line, until the source is right again: one whose
// endpoints fail in turn tells the same ones for ever.
class Failures {
 public:
  explicit Failures(std::string service) : service_(std::move(service)) {}

  void Log(const absl::Status& why) {
    std::string text(why.message());
    if (said_.size() < kMostFailures && said_.insert(text).second)
      log::Warning("service {}: {}", service_, text);
  }
  // It is right; true: again.
  bool Clear() { return !std::exchange(said_, {}).empty(); }
  const std::string& service() const { return service_; }

 private:
  static constexpr size_t kMostFailures = 16;
  std::string service_;
  std::set<std::string> said_;  // since it was right last
};

// What is found is held to the rule for what is configured.
class Checked {
 public:
  Checked(const net::ServiceSpec& service, net::Source::Tell tell)
      : tell_(std::move(tell)), failures_(service.name) {
    self_.name = service.name;
    self_.addresses = service.addresses;
    self_.network = service.network;
  }

  void operator()(Found found) {
    if (found.ok()) {
      const auto own = std::ranges::find_if(
          *found, [this](const net::BackendSpec& backend) { return LeadsToItself(self_, backend.address); });
      if (own != found->end()) {
        found = absl::InvalidArgumentError(absl::StrCat(
            "the backend ", own->address.ToString(),
            " is an address of the service itself: take it out; what was found before stays in force"));
      }
    }
    if (!found.ok()) {
      failures_.Log(found.status());
    } else if (failures_.Clear()) {
      log::Info("service {}: its source is right again: {} backends", self_.name, found->size());
    }
    tell_(std::move(found));
  }

 private:
  net::ServiceSpec self_;  // without backends
  net::Source::Tell tell_;
  Failures failures_;
};

// Of one that finds services. What is wrong with one of these is told with it.
net::Source::TellServices Logged(const std::string& name, net::Source::TellServices tell) {
  return [tell = std::move(tell), failures = Failures(name)](net::FoundChanges changes,
                                                             const absl::Status& wrong) mutable {
    if (!wrong.ok()) {
      failures.Log(wrong);
    } else if (failures.Clear()) {
      log::Info("service {}: its source is right again", failures.service());
    }
    if (changes.whole)
      log::Info("service {}: {} services are found", failures.service(), changes.services.size());
    for (std::string& remark : changes.remarks)
      remark = absl::StrCat("service ", failures.service(), ": ", remark);
    tell(std::move(changes), wrong);
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<net::Source>> ServiceSources::Make(const net::ServiceSpec& service,
                                                                  net::Source::Tell tell,
                                                                  net::Source::TellServices tell_services) {
  if (const net::KubernetesSpec& kubernetes = service.discover.kubernetes; !kubernetes.services.empty()) {
    tell_services = Logged(service.name, std::move(tell_services));
    const std::string title = service.discover.Where();
    absl::StatusOr<WatchThread*> watches = Watches(title);
    absl::StatusOr<std::unique_ptr<net::Source>> source =
        watches.ok() ? (*watches)->Watch(title, ClusterWatcher::Both(kubernetes), tell_services)
                     : absl::StatusOr<std::unique_ptr<net::Source>>(watches.status());
    if (!source.ok()) tell_services({}, source.status());
    return source;
  }
  tell = Checked(service, std::move(tell));
  absl::StatusOr<std::unique_ptr<net::Source>> source = Create(service.discover, tell);
  if (!source.ok()) tell(source.status());
  return source;
}

absl::StatusOr<std::unique_ptr<net::Source>> ServiceSources::Create(const net::DiscoverSpec& wanted,
                                                                    net::Source::Tell tell) {
  if (!wanted.file.empty())
    return std::make_unique<net::FileSource>(wanted.file, ParseBackendFile, std::move(tell));
  if (!wanted.dns.empty()) return net::DnsSource::Create(wanted.dns, std::move(tell));
  if (wanted.finds_services())
    return Watch(std::make_unique<EtcdWatcher>(wanted.etcd, ReadMultinodeKey, kMostMultinodeKeys),
                 std::move(tell));
  if (!wanted.etcd.endpoints.empty())
    return Watch(std::make_unique<EtcdWatcher>(wanted.etcd), std::move(tell));
  return Watch(std::make_unique<KubeWatcher>(wanted.kubernetes), std::move(tell));
}

absl::StatusOr<WatchThread*> ServiceSources::Watches(const std::string& title) {
  const std::lock_guard lock(mutex_);
  if (watches_ == nullptr) {
    if (!may_start_) {
      return absl::FailedPreconditionError(absl::StrCat(
          title,
          " is asked by engines that have begun with such a service; the next one does: shunt ctl upgrade"));
    }
    absl::StatusOr<std::unique_ptr<WatchThread>> started = WatchThread::Start();
    if (!started.ok()) return started.status();
    watches_ = *std::move(started);
  }
  return watches_.get();
}

absl::StatusOr<std::unique_ptr<net::Source>> ServiceSources::Watch(std::unique_ptr<Watcher> watcher,
                                                                   net::Source::Tell tell) {
  const absl::StatusOr<WatchThread*> watches = Watches(watcher->Title());
  if (!watches.ok()) return watches.status();
  return (*watches)->Watch(std::move(watcher), std::move(tell));
}

void ServiceSources::StartNoThread() {
  const std::lock_guard lock(mutex_);
  may_start_ = false;
}

}  // namespace shunt
