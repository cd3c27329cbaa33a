// SPDX-License-Identifier: Apache-2.0
// SockAddr: reading a hostile program's bytes by the kernel's own rules, and text.

#include "net/sock_addr.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "core/check.h"

namespace shunt::net {
namespace {

static_assert(std::is_trivially_copyable_v<SockAddr>);
static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));

// The kernel's SIN6_LEN_RFC2133: sockaddr_in6 as it was before it had a scope id.
constexpr size_t kShortSockaddrIn6 = offsetof(sockaddr_in6, sin6_scope_id);
static_assert(kShortSockaddrIn6 == 24);

template <typename Number>
std::optional<Number> ParseDecimal(absl::string_view text) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || stop != end || error != std::errc{}) return std::nullopt;
  return number;
}

absl::Status NotASocketAddress(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\" is not an address with a port; write one like 192.0.2.1:80 or [2001:db8::1]:80"));
}

}  // namespace

std::optional<uint16_t> ParsePortNumber(absl::string_view text) {
  return ParseDecimal<uint16_t>(text);
}

SockAddr::SockAddr(const IpAddress& ip, uint16_t port) : SockAddr(ip, port, ip.IsV4() ? AF_INET : AF_INET6) {}

SockAddr::SockAddr(const IpAddress& ip, uint16_t port, sa_family_t family) : SockAddr() {
  SHUNT_CHECK(family == AF_INET6 || (family == AF_INET && ip.IsV4()));
  any_.sa_family = family;
  set_port(port);
  if (family == AF_INET) {
    v4_.sin_addr = ip.ToV4();
    size_ = sizeof v4_;
  } else {
    v6_.sin6_addr = ip.ToV6();
    size_ = sizeof v6_;
  }
}

Result<SockAddr> SockAddr::Parse(std::span<const std::byte> raw) {
  sa_family_t family;
  if (raw.size() < sizeof family || raw.size() > sizeof(sockaddr_storage)) return Fail(EINVAL);
  std::memcpy(&family, raw.data(), sizeof family);

  SockAddr address;
  if (family == AF_INET) {
    if (raw.size() < sizeof(sockaddr_in)) return Fail(EINVAL);
    address.size_ = sizeof(sockaddr_in);
    std::memcpy(&address.v4_, raw.data(), offsetof(sockaddr_in, sin_zero));
    return address;
  }
  if (family == AF_INET6) {
    if (raw.size() < kShortSockaddrIn6) return Fail(EINVAL);
    // The kernel reads the scope id only if all of it is there.
    address.size_ = raw.size() < sizeof(sockaddr_in6) ? kShortSockaddrIn6 : sizeof(sockaddr_in6);
    std::memcpy(&address.v6_, raw.data(), address.size_);
    return address;
  }
  return Fail(EAFNOSUPPORT);
}

absl::StatusOr<SockAddr> SockAddr::FromText(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return NotASocketAddress(text);
  const std::optional<uint16_t> port = ParsePortNumber(text.substr(colon + 1));
  absl::string_view host = text.substr(0, colon);
  if (!port || host.empty()) return NotASocketAddress(text);

  if (host.front() != '[') {
    absl::StatusOr<IpAddress> ip = IpAddress::Parse(host);
    // An IPv6 address without brackets could have been meant without a port.
    if (!ip.ok() || host.find(':') != absl::string_view::npos) return NotASocketAddress(text);
    return SockAddr(*ip, *port);
  }

  if (host.back() != ']') return NotASocketAddress(text);
  host = host.substr(1, host.size() - 2);
  uint32_t scope = 0;
  if (const size_t percent = host.find('%'); percent != absl::string_view::npos) {
    const std::optional<uint32_t> index = ParseDecimal<uint32_t>(host.substr(percent + 1));
    if (!index) return NotASocketAddress(text);
    scope = *index;
    host = host.substr(0, percent);
  }
  absl::StatusOr<IpAddress> ip = IpAddress::Parse(host);
  if (!ip.ok() || host.find(':') == absl::string_view::npos) return NotASocketAddress(text);
  SockAddr address(*ip, *port, AF_INET6);
  address.v6_.sin6_scope_id = scope;
  return address;
}

IpAddress SockAddr::ip() const {
  if (family() == AF_INET) return IpAddress::FromV4(v4_.sin_addr);
  return IpAddress::FromV6(v6_.sin6_addr);
}

std::string SockAddr::ToString() const {
  if (!valid()) return "(no address)";
  if (family() == AF_INET) return absl::StrCat(ip().ToString(), ":", port());
  char text[INET6_ADDRSTRLEN];
  inet_ntop(AF_INET6, &v6_.sin6_addr, text, sizeof text);
  if (scope_id() == 0) return absl::StrCat("[", text, "]:", port());
  return absl::StrCat("[", text, "%", scope_id(), "]:", port());
}

}  // namespace shunt::net
