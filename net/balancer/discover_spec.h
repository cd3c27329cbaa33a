// SPDX-License-Identifier: Apache-2.0
// DiscoverSpec: where the backends of a service come from, besides those that are listed, as values.

#pragma once

#include <string>
#include <vector>

#include "net/subnet_set.h"

namespace shunt::net {

// Keys of etcd (v3) below `prefix`, each of which is a backend (tools/etcd_watcher.h).
struct EtcdSpec {
  std::vector<std::string> endpoints;  // "https://HOST:PORT"; one is asked, then another if that fails
  std::string prefix;
  // Files. Empty: the authorities of the machine; no certificate of ours.
  std::string authority, certificate, key;
  std::string user, password_file;  // empty: etcd asks nobody who he is

  friend bool operator==(const EtcdSpec&, const EtcdSpec&) = default;
};

// The EndpointSlices of a Service of Kubernetes (tools/kube_watcher.h), or Services and all of theirs
// (tools/cluster_watcher.h).
struct KubernetesSpec {
  std::string service;     // "NAMESPACE/NAME"; empty: not this
  std::string port;        // its name or number; empty: there is only one
  std::string kubeconfig;  // a file; empty: that of the environment, or of the pod that we run in
  // In the place of `service`: the namespace whose Services are found, or kAllSpaces.
  static constexpr char kAllSpaces[] = "all";
  std::string services;
  std::string node;  // this machine's name, for `services`; empty: not known

  bool none() const { return service.empty() && services.empty(); }

  friend bool operator==(const KubernetesSpec&, const KubernetesSpec&) = default;
};

// At most one of these.
struct DiscoverSpec {
  std::string file;  // a list of backends (docs/services.md), read again when it changes
  std::string dns;   // "_http._tcp.orders.svc" for SRV, or "orders.svc:8080" for A and AAAA
  EtcdSpec etcd;     // without endpoints: not this
  KubernetesSpec kubernetes;
  // Not empty: what is found are services, whose addresses lie in one of these networks
  // (BackendSpec::service).
  std::vector<Subnet> services_in;

  // What is found are no backends of this service, but services.
  bool finds_services() const { return !services_in.empty() || !kubernetes.services.empty(); }
  bool none() const { return file.empty() && dns.empty() && etcd.endpoints.empty() && kubernetes.none(); }
  // For people: the file, the name, the prefix, or the Service or Services.
  std::string Where() const {
    if (!etcd.endpoints.empty()) return "etcd " + etcd.prefix;
    if (!kubernetes.service.empty()) return "kubernetes " + kubernetes.service;
    if (!kubernetes.services.empty()) return "kubernetes services: " + kubernetes.services;
    return file.empty() ? dns : file;
  }
  friend bool operator==(const DiscoverSpec&, const DiscoverSpec&) = default;
};

}  // namespace shunt::net
