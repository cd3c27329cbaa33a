// SPDX-License-Identifier: Apache-2.0
// KubeServer: where the Kubernetes API server is, and how the two of us know each other: told to every pod by
// its environment and its service account, or by a kubeconfig.
//
// Of a kubeconfig its current context counts, with certificates, keys and tokens. Programs that it names are
// not run (the engine cannot), and a server that nobody can be sure of is not asked.

#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace shunt {

// Something that is written in the configuration itself, or in a file, which is read anew for each request:
// tokens and certificates of pods change while they run.
struct KubeText {
  std::string text;
  std::string file;  // counts if `text` is empty

  bool is_there() const { return !text.empty() || !file.empty(); }
  // The error names the file.
  absl::StatusOr<std::string> Read() const;
};

struct KubeServer {
  std::string url;       // "https://HOST:PORT", perhaps with a path; no "/" at its end
  std::string host;      // as in the url, without brackets
  std::string port;      //
  KubeText authority;    // whose certificates count; nothing: those that the machine trusts
  KubeText token;        // may be nothing
  KubeText certificate;  // ours, and its key; may be nothing
  KubeText key;
};

inline constexpr char kServiceAccount[] = "/var/run/secrets/kubernetes.io/serviceaccount";

// Of the pod that we run in: $KUBERNETES_SERVICE_HOST and _PORT, and the folder of its service account.
absl::StatusOr<KubeServer> ServerOfPod(const std::string& host, const std::string& port,
                                       const std::string& account = kServiceAccount);

// `name` is the file's: for messages, and for other files that it names relatively.
absl::StatusOr<KubeServer> ServerOfKubeconfig(const std::string& text, const std::string& name);

// By the given kubeconfig; that which $KUBECONFIG names; or as ServerOfPod(). Nothing if none of the three is
// there.
absl::StatusOr<std::optional<KubeServer>> FindKubeServer(const std::string& kubeconfig);

// $NODE_NAME; empty: it is not set.
absl::StatusOr<std::string> FindNodeName();

}  // namespace shunt
