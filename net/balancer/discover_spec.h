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

// The EndpointSlices of a Service of Kubernetes (tools/kube_watcher.h).
struct KubernetesSpec {
  std::string service;     // "NAMESPACE/NAME"; empty: not this
  std::string port;        // its name or number; empty: there is only one
  std::string kubeconfig;  // a file; empty: that of the environment, or of the pod that we run in

  friend bool operator==(const KubernetesSpec&, const KubernetesSpec&) = default;
};

// At most one of these.
struct DiscoverSpec {
  std::string file;  // a list of backends (docs/services.md), read again when it changes
  std::string dns;   // "_http._tcp.orders.svc" for SRV, or "orders.svc:8080" for A and AAAA
  EtcdSpec etcd;     // without endpoints: not this
  KubernetesSpec kubernetes;
  // Not empty: what is found are no backends of this service, but services, whose addresses lie in one of
  // these networks (BackendSpec::service).
  std::vector<Subnet> services_in;

  bool finds_services() const { return !services_in.empty(); }
  bool none() const {
    return file.empty() && dns.empty() && etcd.endpoints.empty() && kubernetes.service.empty();
  }
  // For people: the file, the name, the prefix, or the Service.
  std::string Where() const {
    if (!etcd.endpoints.empty()) return "etcd " + etcd.prefix;
    if (!kubernetes.service.empty()) return "kubernetes " + kubernetes.service;
    return file.empty() ? dns : file;
  }
  friend bool operator==(const DiscoverSpec&, const DiscoverSpec&) = default;
};

}  // namespace shunt::net
