// SPDX-License-Identifier: Apache-2.0
// BalancerModel: what a Balancer has to say, worked out in the plainest way: no agenda, no index, everything
// looked through each time. It knows nothing of tables and numbers, nor what becomes of checks if `fall` or
// `rise` of a service are changed.

#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "net/balancer/balancer.h"

namespace shunt::net {

class BalancerModel {
 public:
  struct Backend {
    int tenure = 0;  // another one each time that an address comes
    BackendSpec spec;
    std::string text;
    BackendCommand::Kind order = BackendCommand::Kind::kEnable;
    std::optional<uint32_t> told_weight;
    int64_t drained = 0;
    std::vector<bool> checks;  // since they are counted
    int failures = 0;
    int64_t ejected_at = 0, ejected_until = 0;  // equal: it is not
    int64_t quiet_since = 0;
    int64_t number = 0;  // of its ejection, as of quiet_since
    uint64_t ejections = 0;
    std::optional<int64_t> slow_since;

    bool ejected() const { return ejected_at != ejected_until; }
    uint32_t weight() const { return told_weight.value_or(spec.weight); }
    bool wanted() const { return order == BackendCommand::Kind::kEnable && weight() > 0; }
    // By all checks from the beginning.
    bool Up(const HealthSpec& health) const {
      bool up = true;
      uint32_t against = 0;
      for (const bool check : checks) {
        against = check == up ? 0 : against + 1;
        if (against > 0 && against >= (up ? health.fall : health.rise)) {
          up = check;
          against = 0;
        }
      }
      return up;
    }
  };

  struct Service {
    ServiceSpec spec;
    std::vector<BackendSpec> discovered;
    std::vector<Backend> backends;

    bool Fit(const Backend& backend) const { return backend.Up(spec.health) && !backend.ejected(); }
    bool Serves(const Backend& backend) const { return backend.wanted() && Fit(backend); }
    int Ejected() const {
      return static_cast<int>(
          std::count_if(backends.begin(), backends.end(), [](const Backend& one) { return one.ejected(); }));
    }
    int MostEjected() const {
      const double share = spec.outlier.max_ejected * static_cast<double>(backends.size());
      return std::max(1, static_cast<int>(std::floor(share + 1e-9)));
    }
    bool Slow(const Backend& backend, int64_t now) const {
      return backend.slow_since && now < *backend.slow_since + spec.slow_start.window.count();
    }
    double EffectiveWeight(const Backend& backend, int64_t now) const {
      if (!Slow(backend, now)) return backend.weight();
      const double part = static_cast<double>(now - *backend.slow_since) /
                          static_cast<double>(spec.slow_start.window.count());
      return backend.weight() *
             std::max(spec.slow_start.min_weight, std::pow(part, 1 / spec.slow_start.aggression));
    }
    std::string State(const Backend& backend, int64_t now) const {
      if (backend.order == BackendCommand::Kind::kDisable) return "disabled";
      if (backend.order == BackendCommand::Kind::kDrain) return "draining";
      if (backend.weight() == 0) return "off";
      if (!backend.Up(spec.health)) return "down";
      if (backend.ejected()) return "ejected";
      return Slow(backend, now) ? "slow-start" : "up";
    }
  };

  using Closings = std::map<std::pair<std::string, std::string>, int64_t>;

  Service* Find(const std::string& name) {
    for (Service& service : services) {
      if (service.spec.name == name) return &service;
    }
    return nullptr;
  }
  Backend* Find(const std::string& name, const std::string& text) {
    Service* service = Find(name);
    if (service == nullptr) return nullptr;
    for (Backend& backend : service->backends) {
      if (backend.text == text) return &backend;
    }
    return nullptr;
  }
  // Its service and itself, as long as that tenure lasts.
  std::pair<Service*, Backend*> Find(int tenure) {
    for (Service& service : services) {
      for (Backend& backend : service.backends) {
        if (backend.tenure == tenure) return {&service, &backend};
      }
    }
    return {nullptr, nullptr};
  }

  void Advance(int64_t time) {
    now = time;
    for (Service& service : services) {
      for (Backend& backend : service.backends) {
        if (backend.ejected() && backend.ejected_until <= now) {
          EndEjection(service, backend, backend.ejected_until);
        }
      }
    }
  }

  void Configure(const std::vector<ServiceSpec>& specs) {
    std::vector<Service> before = std::exchange(services, {});
    for (const ServiceSpec& spec : specs) {
      Service service;
      const auto old = std::find_if(before.begin(), before.end(),
                                    [&](const Service& one) { return one.spec.name == spec.name; });
      if (old != before.end()) {
        service = std::move(*old);
        before.erase(old);
        Change(service, spec);
      } else {
        service.spec = spec;
        Reconcile(service);
      }
      services.push_back(std::move(service));
    }
    for (Service& service : before) {
      for (const Backend& backend : service.backends) Close(service, backend);
    }
  }

  void Discover(const std::string& name, const std::vector<BackendSpec>& backends) {
    Service* service = Find(name);
    if (service == nullptr || service->spec.discover.none()) return;
    service->discovered = backends;
    Reconcile(*service);
  }

  void Checked(Service& service, Backend& backend, bool up) {
    Watch(service, backend, now, [&] { backend.checks.push_back(up); });
  }

  void Connected(Service& service, Backend& backend, bool well) {
    if (backend.ejected()) return;
    if (well || !service.spec.outlier.enabled) {
      backend.failures = 0;
      return;
    }
    if (++backend.failures < static_cast<int>(service.spec.outlier.consecutive)) return;
    backend.failures = 0;
    if (service.Ejected() >= service.MostEjected()) return;
    const OutlierSpec& outlier = service.spec.outlier;
    const int64_t quiet = (now - backend.quiet_since) / outlier.interval.count();
    backend.number = std::max<int64_t>(0, backend.number - quiet) + 1;
    const int64_t base = outlier.base_ejection.count(), most = outlier.max_ejection.count();
    while (backend.number > 1 && (backend.number - 1) * base >= most) --backend.number;
    ++backend.ejections;
    Watch(service, backend, now, [&] {
      backend.ejected_at = now;
      backend.ejected_until = now + std::min(most, backend.number * base);
    });
  }

  void Command(Service& service, Backend& backend, const BackendCommand& command) {
    const auto key = std::pair(service.spec.name, backend.text);
    Watch(service, backend, now, [&] {
      const bool was_disabled = backend.order == BackendCommand::Kind::kDisable;
      if (command.kind == BackendCommand::Kind::kWeight) {
        backend.told_weight = command.weight;
        return;
      }
      if (command.kind == BackendCommand::Kind::kDrain && backend.order != command.kind) {
        backend.drained = now;
        if (service.spec.close_after) closings[key] = now + service.spec.close_after->count();
      }
      if (command.kind == BackendCommand::Kind::kEnable) closings.erase(key);
      backend.order = command.kind;
      if (was_disabled && backend.order != BackendCommand::Kind::kDisable) backend.checks.clear();
    });
  }

  std::vector<std::pair<std::string, std::string>> TakeClosings() {
    std::vector<std::pair<std::string, std::string>> due;
    for (auto i = closings.begin(); i != closings.end();) {
      if (i->second > now) {
        ++i;
        continue;
      }
      due.push_back(i->first);
      i = closings.erase(i);
    }
    return due;
  }

  std::vector<Service> services;
  Closings closings;
  int64_t now = 0;

 private:
  // Changes a backend; one that begins to serve thereby starts slowly.
  template <typename Act>
  void Watch(Service& service, Backend& backend, int64_t at, Act act) {
    const bool served = service.Serves(backend);
    act();
    Follow(service, backend, served, at);
  }
  static void Follow(const Service& service, Backend& backend, bool served, int64_t at) {
    if (!service.Serves(backend)) {
      backend.slow_since.reset();
    } else if (!served && service.spec.slow_start.window.count() > 0) {
      backend.slow_since = at;
    }
  }

  void EndEjection(Service& service, Backend& backend, int64_t at) {
    Watch(service, backend, at, [&] { backend.ejected_at = backend.ejected_until = 0; });
    backend.quiet_since = at;
    backend.failures = 0;
  }

  void Close(const Service& service, const Backend& backend) {
    if (!service.spec.close_after) return;
    closings.emplace(std::pair(service.spec.name, backend.text), now + service.spec.close_after->count());
  }

  void Change(Service& service, const ServiceSpec& spec) {
    std::map<int, bool> served;
    const ServiceSpec old = service.spec;
    for (Backend& backend : service.backends) {
      served[backend.tenure] = service.Serves(backend);
      if (!service.Slow(backend, now)) backend.slow_since.reset();
    }
    service.spec = spec;
    for (Backend& backend : service.backends) {
      if (!spec.health.enabled) backend.checks.clear();
      if (!spec.outlier.enabled && backend.ejected()) {
        backend.ejected_at = backend.ejected_until = 0;
        backend.quiet_since = now;
        backend.failures = 0;
      }
      Follow(service, backend, served[backend.tenure], now);
      if (spec.close_after != old.close_after && backend.order == BackendCommand::Kind::kDrain) {
        const auto key = std::pair(spec.name, backend.text);
        if (!spec.close_after) {
          closings.erase(key);
        } else if (!old.close_after || closings.contains(key)) {
          closings[key] = backend.drained + spec.close_after->count();
        }
      }
    }
    if (spec.discover.none()) service.discovered.clear();
    Reconcile(service);
    for (Backend& backend : service.backends) {
      if (!service.Slow(backend, now)) backend.slow_since.reset();
    }
  }

  void Reconcile(Service& service) {
    std::vector<Backend> before = std::exchange(service.backends, {});
    const bool had_some = !before.empty();
    std::vector<BackendSpec> wanted = service.spec.backends;
    wanted.insert(wanted.end(), service.discovered.begin(), service.discovered.end());
    for (const BackendSpec& spec : wanted) {
      bool passes = true;
      for (const auto& label : service.spec.subset) {
        passes = passes && spec.labels.contains(label.first) && spec.labels.at(label.first) == label.second;
      }
      const std::string text = spec.address.ToString();
      const auto has_text = [&](const Backend& one) { return one.text == text; };
      if (!passes || std::any_of(service.backends.begin(), service.backends.end(), has_text)) continue;
      const auto old = std::find_if(before.begin(), before.end(), has_text);
      if (old == before.end()) {
        Backend fresh;
        fresh.tenure = ++last_tenure_;
        fresh.spec = spec;
        fresh.text = text;
        Follow(service, fresh, !had_some, now);
        closings.erase(std::pair(service.spec.name, text));
        service.backends.push_back(std::move(fresh));
      } else {
        Backend kept = std::move(*old);
        before.erase(old);
        Watch(service, kept, now, [&] { kept.spec = spec; });
        service.backends.push_back(std::move(kept));
      }
    }
    for (const Backend& backend : before) Close(service, backend);
    while (service.Ejected() > service.MostEjected()) {
      Backend* first = nullptr;
      for (Backend& backend : service.backends) {
        if (backend.ejected() && (first == nullptr || backend.ejected_until < first->ejected_until))
          first = &backend;
      }
      EndEjection(service, *first, now);
    }
  }

  int last_tenure_ = 0;
};

}  // namespace shunt::net
