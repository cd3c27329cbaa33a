// SPDX-License-Identifier: Apache-2.0
#include "tools/http_origin.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  constexpr size_t kLongest = size_t{1} << 20;
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return ToStatus({errno}, absl::StrCat("open ", path));
  std::string text;
  std::array<char, 4096> chunk;
  for (;;) {
    const ssize_t got = read(file.get(), chunk.data(), chunk.size());
    if (got < 0) return ToStatus({errno}, absl::StrCat("read ", path));
    if (got == 0) return text;
    text.append(chunk.data(), static_cast<size_t>(got));
    if (text.size() > kLongest)
      return absl::InvalidArgumentError(absl::StrCat(path, ": more than a mebibyte"));
  }
}

absl::StatusOr<std::string> TextOrFile::Read() const {
  return text.empty() ? ReadSmallFile(file) : absl::StatusOr<std::string>(text);
}

absl::Status SetUrl(std::string url, PlainHttp plain, HttpOrigin& origin) {
  while (absl::EndsWith(url, "/")) url.pop_back();
  absl::string_view rest = url;
  std::string default_port = ":443";
  if (!absl::ConsumePrefix(&rest, "https://")) {
    if (plain == PlainHttp::kRefused) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", url, "\" should be https://HOST:PORT: a token is told to nobody without TLS"));
    }
    if (!absl::ConsumePrefix(&rest, "http://")) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", url, "\" should be https://HOST:PORT or http://HOST:PORT"));
    }
    default_port = ":80";
  }
  const absl::string_view place = rest.substr(0, rest.find('/'));
  const bool bracketed = absl::StartsWith(place, "[");
  const size_t host_end = bracketed ? place.find(']') : place.find(':');
  if (bracketed && host_end == absl::string_view::npos)
    return absl::InvalidArgumentError(absl::StrCat("\"", url, "\" should be https://HOST:PORT"));
  origin.host = std::string(bracketed ? place.substr(1, host_end - 1) : place.substr(0, host_end));
  absl::string_view port =
      host_end == absl::string_view::npos ? "" : place.substr(host_end + (bracketed ? 1 : 0));
  if (port.empty()) port = default_port;
  uint16_t number = 0;
  uint32_t wide = 0;
  if (absl::ConsumePrefix(&port, ":") && absl::SimpleAtoi(port, &wide) && wide <= UINT16_MAX)
    number = static_cast<uint16_t>(wide);
  constexpr char kOdd[] = " \t\r\n?#@\\";
  if (origin.host.empty() || number == 0 || url.find_first_of(kOdd) != std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat("\"", url, "\" should be https://HOST:PORT"));
  origin.port = std::to_string(number);
  origin.url = std::move(url);
  return absl::OkStatus();
}

}  // namespace shunt
