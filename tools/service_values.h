// SPDX-License-Identifier: Apache-2.0
// Single values of a service's configuration (tools/service_config.h): each function reads one of them. The
// error says what would be right, without naming the key.

#pragma once

#include <yaml-cpp/yaml.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "net/balancer/service.h"
#include "net/sock_addr.h"
#include "tools/yaml_reading.h"

namespace shunt {

// "10.96.0.10:80/tcp", "10.96.0.0/16:8000-8999/udp", "[fd00:96::/64]:80". Without a transport: TCP.
absl::StatusOr<net::ServiceAddress> ParseServiceAddress(absl::string_view text);
// As ParseServiceAddress() reads it; the transport always stands there.
std::string ServiceAddressText(const net::ServiceAddress& address);

// Not a network of several.
bool IsOneAddress(const net::ServiceAddress& address);

// "192.168.7.11:8080", "[fd00::11]:8080". An IPv4 address in either spelling becomes AF_INET.
absl::StatusOr<net::SockAddr> ParseBackendAddress(absl::string_view text);

// Text that is not empty, for names of zones and the like.
absl::Status ReadWord(const YAML::Node& value, std::string& word);
absl::Status ReadLabels(const YAML::Node& value, std::map<std::string, std::string>& labels);
absl::Status ReadCount(const YAML::Node& value, uint32_t least, uint32_t most, uint32_t& count);
// "10%" becomes 0.1.
absl::Status ReadShare(const YAML::Node& value, double& share);
// The limits are durations, too: "10ms".
absl::Status ReadDuration(const YAML::Node& value, absl::string_view least, absl::string_view most,
                          std::chrono::nanoseconds& duration);

// Words and what they mean, as an operator writes them.
template <typename T>
using Words = std::span<const std::pair<const char*, T>>;

Words<net::PickPolicy> PolicyWords();
Words<net::AffinityKey> AffinityWords();

template <typename T>
absl::Status ReadOneOf(const YAML::Node& value, Words<T> words, T& meaning) {
  std::string all;
  for (const auto& [word, its_meaning] : words) {
    if (value.IsScalar() && value.Scalar() == word) {
      meaning = its_meaning;
      return absl::OkStatus();
    }
    absl::StrAppend(&all, all.empty() ? "" : ", ", word);
  }
  if (!value.IsScalar()) return Should(absl::StrCat("one of ", all));
  return absl::InvalidArgumentError(absl::StrCat("\"", value.Scalar(), "\" should be one of ", all));
}

// The word for a meaning that has one; else "".
template <typename T>
const char* WordFor(Words<T> words, T meaning) {
  for (const auto& [word, its_meaning] : words) {
    if (its_meaning == meaning) return word;
  }
  return "";
}

}  // namespace shunt
