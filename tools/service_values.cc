// SPDX-License-Identifier: Apache-2.0
#include "tools/service_values.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "tools/go_duration.h"

namespace shunt {
namespace {

// Longer than any label that Kubernetes lets through, key or value.
constexpr size_t kLongestWord = 320;
// An alias of YAML can say the same long list a hundred thousand times.
constexpr size_t kMostLabels = 64;

constexpr std::pair<const char*, net::PickPolicy> kPolicyWords[] = {
    {"round-robin", net::PickPolicy::kRoundRobin},
    {"random", net::PickPolicy::kRandom},
    {"least-request", net::PickPolicy::kLeastRequest},
    {"maglev", net::PickPolicy::kMaglev},
    {"ring-hash", net::PickPolicy::kRingHash},
    {"first", net::PickPolicy::kFirst},
    {"least-connections", net::PickPolicy::kLeastConnections},
    {"least-rtt", net::PickPolicy::kLeastRtt}};

constexpr std::pair<const char*, net::AffinityKey> kAffinityWords[] = {
    {"container", net::AffinityKey::kContainer},
    {"user", net::AffinityKey::kUser},
    {"process", net::AffinityKey::kProcess},
    {"none", net::AffinityKey::kNone}};

absl::Status WrongText(absl::string_view text, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" ", what));
}

absl::Status NoServiceAddress(absl::string_view text) {
  return WrongText(
      text,
      "should be ADDRESS:PORT, for example 10.96.0.10:80, [fd00:96::10]:80/udp, 10.96.0.0/16:80 or "
      "10.96.0.10:8000-8999");
}

// "80" or "8000-8999", from 1 on.
bool ParsePorts(absl::string_view text, net::ServiceAddress& address) {
  const size_t dash = text.find('-');
  const std::optional<uint16_t> first = net::ParsePortNumber(text.substr(0, dash));
  const std::optional<uint16_t> last =
      dash == absl::string_view::npos ? first : net::ParsePortNumber(text.substr(dash + 1));
  if (!first || !last || *first == 0 || *first > *last) return false;
  address.first_port = *first;
  address.last_port = *last;
  return true;
}

// A number alone, in decimal: no sign, no blank, no point.
std::optional<uint32_t> Whole(const YAML::Node& value) {
  uint32_t number = 0;
  if (!value.IsScalar() || value.Scalar().find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(value.Scalar(), &number))
    return std::nullopt;
  return number;
}

}  // namespace

absl::StatusOr<net::ServiceAddress> ParseServiceAddress(absl::string_view text) {
  net::ServiceAddress address;
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return NoServiceAddress(text);
  absl::string_view host = text.substr(0, colon);
  absl::string_view ports = text.substr(colon + 1);
  if (const size_t slash = ports.find('/'); slash != absl::string_view::npos) {
    const absl::string_view transport = ports.substr(slash + 1);
    if (transport != "tcp" && transport != "udp")
      return WrongText(text, "should end in /tcp, /udp or a port");
    if (transport == "udp") address.transport = net::Transport::kUdp;
    ports = ports.substr(0, slash);
  }
  // Without brackets nobody knows where an IPv6 address ends.
  const bool brackets = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  if (host.empty() || brackets != absl::StrContains(host, ':')) return NoServiceAddress(text);
  const absl::StatusOr<net::Subnet> network = net::ParseSubnet(host);
  if (!network.ok()) return network.status();
  address.network = *network;
  if (!ParsePorts(ports, address))
    return WrongText(text, "should have a port from 1 to 65535, or a range of them such as 8000-8999");
  if (IsOneAddress(address) && address.network.prefix().IsUnspecified()) {
    return WrongText(text, absl::StrCat("should be an address that programs connect to; any address is ",
                                        address.network.IsV4() ? "0.0.0.0/0:" : "[::/0]:", ports));
  }
  return address;
}

bool IsOneAddress(const net::ServiceAddress& address) {
  return address.network.prefix_len() == (address.network.IsV4() ? 32 : 128);
}

std::string ServiceAddressText(const net::ServiceAddress& address) {
  const std::string network =
      IsOneAddress(address) ? address.network.prefix().ToString() : address.network.ToString();
  const bool v4 = address.network.IsV4();
  std::string text = absl::StrCat(v4 ? "" : "[", network, v4 ? ":" : "]:", address.first_port);
  if (address.last_port != address.first_port) absl::StrAppend(&text, "-", address.last_port);
  return text + (address.transport == net::Transport::kUdp ? "/udp" : "/tcp");
}

absl::StatusOr<net::SockAddr> ParseBackendAddress(absl::string_view text) {
  const absl::StatusOr<net::SockAddr> address = net::SockAddr::FromText(text);
  if (!address.ok()) {
    return WrongText(
        text,
        "should be ADDRESS:PORT, for example 192.168.7.11:8080 or [fd00::11]:8080 (names are for "
        "discover: {dns: NAME:PORT})");
  }
  if (address->port() == 0) return WrongText(text, "should have a port from 1 to 65535");
  const net::IpAddress ip = address->ip();
  if (ip.IsUnspecified() || ip.IsMulticast() || ip.IsBroadcast())
    return WrongText(text, "should be the address of one machine");
  return ip.IsV4() ? net::SockAddr(ip, address->port()) : *address;
}

absl::Status ReadWord(const YAML::Node& value, std::string& word) {
  if (!value.IsScalar() || value.Scalar().empty() || value.Scalar().size() > kLongestWord)
    return Should(absl::StrCat("a text of 1 to ", kLongestWord, " bytes"));
  word = value.Scalar();
  return absl::OkStatus();
}

absl::Status ReadLabels(const YAML::Node& value, std::map<std::string, std::string>& labels) {
  if (!value.IsMap()) return Should("a mapping of labels to values, {version: v2}");
  for (const auto& entry : value) {
    if (labels.size() == kMostLabels) return Should(absl::StrCat("at most ", kMostLabels, " labels"));
    std::string label;
    if (absl::Status status = ReadWord(entry.first, label); !status.ok())
      return absl::InvalidArgumentError(absl::StrCat("each label ", status.message()));
    if (labels.count(label) != 0) return WrongText(label, "is there twice");
    if (!entry.second.IsScalar() || entry.second.Scalar().size() > kLongestWord)
      return WrongText(label, absl::StrCat("should have a text of at most ", kLongestWord, " bytes"));
    labels[label] = entry.second.Scalar();
  }
  return absl::OkStatus();
}

absl::Status ReadCount(const YAML::Node& value, uint32_t least, uint32_t most, uint32_t& count) {
  const std::optional<uint32_t> number = Whole(value);
  if (!number || *number < least || *number > most)
    return Should(absl::StrCat("a whole number from ", least, " to ", most));
  count = *number;
  return absl::OkStatus();
}

absl::Status ReadShare(const YAML::Node& value, double& share) {
  absl::string_view text = value.IsScalar() ? absl::string_view(value.Scalar()) : "";
  double percent = -1;
  if (!absl::ConsumeSuffix(&text, "%") || !absl::SimpleAtod(text, &percent) || !(percent >= 0) ||
      percent > 100)
    return Should("a percentage from 0% to 100%, for example 10%");
  share = percent / 100;
  return absl::OkStatus();
}

absl::Status ReadDuration(const YAML::Node& value, absl::string_view least, absl::string_view most,
                          std::chrono::nanoseconds& duration) {
  if (!value.IsScalar()) return Should(absl::StrCat("a duration from ", least, " to ", most));
  const auto parsed = ParseGoDuration(value.Scalar());
  if (!parsed.ok()) return parsed.status();
  if (*parsed < *ParseGoDuration(least) || *parsed > *ParseGoDuration(most))
    return WrongText(value.Scalar(), absl::StrCat("should be a duration from ", least, " to ", most));
  duration = *parsed;
  return absl::OkStatus();
}

Words<net::PickPolicy> PolicyWords() {
  return kPolicyWords;
}

Words<net::AffinityKey> AffinityWords() {
  return kAffinityWords;
}

}  // namespace shunt
