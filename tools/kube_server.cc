// SPDX-License-Identifier: Apache-2.0
#include "tools/kube_server.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tools/pod_record.h"

namespace shunt {
namespace {

// ---- kubeconfig

// What is wrong with it; gets no further than ServerOfKubeconfig().
struct WrongKubeconfig {
  std::string what;
};

YAML::Node MemberOf(const YAML::Node& mapping, const char* key) {
  if (!mapping.IsMap()) throw WrongKubeconfig{"should be a mapping"};
  return mapping[key];
}

std::string TextOf(const YAML::Node& mapping, const char* key) {
  const YAML::Node value = MemberOf(mapping, key);
  if (!value || value.IsNull()) return "";
  if (!value.IsScalar()) throw WrongKubeconfig{absl::StrCat(key, " should be a text")};
  return value.Scalar();
}

// `list`: [{name: NAME, `kind`: {...}}]
YAML::Node NamedIn(const YAML::Node& root, const char* list, const char* kind, const std::string& name) {
  const YAML::Node items = MemberOf(root, list);
  if (items && items.IsSequence()) {
    for (const auto& item : items) {
      if (TextOf(item, "name") != name) continue;
      if (const YAML::Node found = MemberOf(item, kind); found && found.IsMap()) return found;
    }
  }
  throw WrongKubeconfig{absl::StrCat(list, " has no \"", name, "\"")};
}

// KEY-data, in base64, or KEY, a file.
TextOrFile DataOrFile(const YAML::Node& mapping, const char* key, const std::string& folder) {
  const std::string in_base64 = absl::StrCat(key, "-data");
  TextOrFile result;
  if (const std::string data = TextOf(mapping, in_base64.c_str()); !data.empty()) {
    if (!absl::Base64Unescape(data, &result.text) || result.text.empty())
      throw WrongKubeconfig{absl::StrCat(in_base64, " should be base64")};
  } else if (const std::string file = TextOf(mapping, key); !file.empty()) {
    result.file = file[0] == '/' ? file : folder + file;
  }
  return result;
}

void Refuse(const YAML::Node& mapping, const char* key, const char* why) {
  const YAML::Node value = MemberOf(mapping, key);
  if (value && !value.IsNull() && !(value.IsScalar() && value.Scalar() == "false"))
    throw WrongKubeconfig{absl::StrCat(key, ": ", why)};
}

void ReadCluster(const YAML::Node& cluster, const std::string& folder, HttpOrigin& server) {
  constexpr char kNotThere[] = "is not supported: name the server by a name that its certificate has";
  Refuse(cluster, "insecure-skip-tls-verify",
         "a server that nobody can be sure of is not asked; give certificate-authority instead");
  Refuse(cluster, "tls-server-name", kNotThere);
  Refuse(cluster, "proxy-url", "proxies are not supported");
  if (const absl::Status status = SetUrl(TextOf(cluster, "server"), PlainHttp::kRefused, server);
      !status.ok())
    throw WrongKubeconfig{absl::StrCat("server: ", status.message())};
  server.authority = DataOrFile(cluster, "certificate-authority", folder);
}

void ReadUser(const YAML::Node& user, const std::string& folder, HttpOrigin& server) {
  constexpr char kRemedy[] =
      "programs are not run for this; give a token, tokenFile, or client-certificate and client-key, of a "
      "service account for example";
  Refuse(user, "exec", kRemedy);
  Refuse(user, "auth-provider", kRemedy);
  Refuse(user, "username", "passwords are not supported; give a token or a client certificate");
  Refuse(user, "as", "to impersonate somebody is not supported");
  server.token.text = TextOf(user, "token");
  if (const std::string file = TextOf(user, "tokenFile"); !file.empty()) {
    server.token.text.clear();  // the file counts, as for kubectl
    server.token.file = file[0] == '/' ? file : folder + file;
  }
  server.certificate = DataOrFile(user, "client-certificate", folder);
  server.key = DataOrFile(user, "client-key", folder);
  if (server.certificate.is_there() != server.key.is_there())
    throw WrongKubeconfig{"client-certificate and client-key should both be there"};
}

}  // namespace

absl::StatusOr<HttpOrigin> ServerOfPod(const std::string& host, const std::string& port,
                                       const std::string& account) {
  HttpOrigin server;
  const bool v6 = host.find(':') != std::string::npos;
  if (absl::Status status = SetUrl(absl::StrCat("https://", v6 ? "[" : "", host, v6 ? "]:" : ":", port),
                                   PlainHttp::kRefused, server);
      !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: ", status.message()));
  }
  server.authority.file = account + "/ca.crt";
  server.token.file = account + "/token";
  return server;
}

absl::StatusOr<HttpOrigin> ServerOfKubeconfig(const std::string& text, const std::string& name) try {
  const size_t slash = name.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash + 1);
  const YAML::Node root = YAML::Load(text);
  const std::string current = TextOf(root, "current-context");
  if (current.empty()) throw WrongKubeconfig{"current-context is not set"};
  const YAML::Node context = NamedIn(root, "contexts", "context", current);
  HttpOrigin server;
  ReadCluster(NamedIn(root, "clusters", "cluster", TextOf(context, "cluster")), folder, server);
  ReadUser(NamedIn(root, "users", "user", TextOf(context, "user")), folder, server);
  return server;
} catch (const WrongKubeconfig& wrong) {
  return absl::InvalidArgumentError(absl::StrCat("kubeconfig ", name, ": ", wrong.what));
} catch (const YAML::Exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("kubeconfig ", name, ": ", error.what()));
}

namespace {

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<HttpOrigin> ServerOfFile(const std::string& path) {
  if (path.find(':') != std::string::npos)
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\" should be one kubeconfig, whose path has no \":\""));
  const absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.status().message(), "; should be a kubeconfig that the agent may read"));
  }
  return ServerOfKubeconfig(*text, path);
}

}  // namespace

absl::StatusOr<std::optional<HttpOrigin>> FindKubeServer(const std::string& kubeconfig) {
  const std::string path = kubeconfig.empty() ? Variable("KUBECONFIG") : kubeconfig;
  if (!path.empty()) {
    absl::StatusOr<HttpOrigin> server = ServerOfFile(path);
    if (server.ok()) return *std::move(server);
    if (!kubeconfig.empty()) return server.status();
    return absl::InvalidArgumentError(absl::StrCat("KUBECONFIG: ", server.status().message()));
  }
  const std::string host = Variable("KUBERNETES_SERVICE_HOST");
  if (host.empty()) return std::nullopt;
  absl::StatusOr<HttpOrigin> server = ServerOfPod(host, Variable("KUBERNETES_SERVICE_PORT"));
  if (!server.ok()) return server.status();
  return *std::move(server);
}

absl::StatusOr<std::string> FindNodeName() {
  std::string name = Variable("NODE_NAME");
  if (name.empty() || IsPodName(name)) return name;
  return absl::InvalidArgumentError(absl::StrCat("NODE_NAME: no node can be called \"", name,
                                                 "\"; should be as `kubectl get nodes` has it, or not set"));
}

}  // namespace shunt
