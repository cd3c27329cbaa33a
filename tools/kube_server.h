// SPDX-License-Identifier: Apache-2.0
// Where the Kubernetes API server is, and how the two of us know each other: told to every pod by
// its environment and its service account, or by a kubeconfig.
//
// Of a kubeconfig its current context counts, with certificates, keys and tokens. Programs that it names are
// not run (the engine cannot), and a server that nobody can be sure of is not asked.

#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "tools/http_origin.h"

namespace shunt {

inline constexpr char kServiceAccount[] = "/var/run/secrets/kubernetes.io/serviceaccount";

// Of the pod that we run in: $KUBERNETES_SERVICE_HOST and _PORT, and the folder of its service account.
absl::StatusOr<HttpOrigin> ServerOfPod(const std::string& host, const std::string& port,
                                       const std::string& account = kServiceAccount);

// `name` is the file's: for messages, and for other files that it names relatively.
absl::StatusOr<HttpOrigin> ServerOfKubeconfig(const std::string& text, const std::string& name);

// By the given kubeconfig; that which $KUBECONFIG names; or as ServerOfPod(). Nothing if none of the three is
// there.
absl::StatusOr<std::optional<HttpOrigin>> FindKubeServer(const std::string& kubeconfig);

// $NODE_NAME; empty: it is not set.
absl::StatusOr<std::string> FindNodeName();

}  // namespace shunt
