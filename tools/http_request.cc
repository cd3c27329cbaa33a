// SPDX-License-Identifier: Apache-2.0
#include "tools/http_request.h"

#include <netdb.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

// Failures that another try would only repeat.
bool IsFinal(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
      return true;
    default:
      return false;
  }
}

absl::Status ReadInto(const TextOrFile& from, std::string& into) {
  absl::StatusOr<std::string> text = from.Read();
  if (!text.ok()) return text.status();
  into = *std::move(text);
  return absl::OkStatus();
}

// libcurl's texts say how long it took, and what is told only once is not to be another text each time.
std::string WithoutTimes(std::string text) {
  const std::string kAfter = " after ";
  for (size_t at = text.find(kAfter); at != std::string::npos; at = text.find(kAfter, at + 1)) {
    const size_t number = at + kAfter.size();
    const size_t end = text.find_first_not_of("0123456789", number);
    if (end == number || end == std::string::npos) continue;
    const absl::string_view rest = absl::string_view(text).substr(end);
    for (const absl::string_view unit : {" milliseconds", " ms"}) {
      if (!absl::StartsWith(rest, unit)) continue;
      text.erase(at, end + unit.size() - at);
      break;
    }
  }
  return text;
}

// Of a server that is not there any more without having said so, this hears in a minute.
constexpr long kKeepAliveIdle = 30, kKeepAliveApart = 5;  // seconds

}  // namespace

absl::Status HttpRequest::Begin(const HttpOrigin& origin, Wanted wanted) {
  wanted_ = std::move(wanted);
  body_.clear();
  refused_ = absl::OkStatus();
  error_[0] = '\0';
  easy_ = curl_.easy_init();
  if (easy_ == nullptr) return absl::ResourceExhaustedError("libcurl has no memory");
  absl::Status status = Present(origin);
  if (status.ok()) status = AddAddress(origin);
  if (!status.ok()) {
    End();
    return status;
  }
  const auto set = [&](CURLoption option, auto value) { curl_.easy_setopt(easy_, option, value); };
  set(CURLOPT_URL, absl::StrCat(origin.url, wanted_.path).c_str());  // copied
  set(CURLOPT_PROTOCOLS_STR, absl::StartsWith(origin.url, "https:") ? "https" : "http");
  set(CURLOPT_PROXY, "");  // whatever the environment says
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_NOSIGNAL, 1L);
  if (const long time = static_cast<long>(wanted_.longest.count()); time > 0) {
    set(CURLOPT_TIMEOUT_MS, time);
    set(CURLOPT_CONNECTTIMEOUT_MS, time);
  } else {
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_TCP_KEEPIDLE, kKeepAliveIdle);
    set(CURLOPT_TCP_KEEPINTVL, kKeepAliveApart);
  }
  set(CURLOPT_USERAGENT, "shunt/" SHUNT_VERSION);
  if (wanted_.post) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(wanted_.post->size()));
    set(CURLOPT_POSTFIELDS, wanted_.post->c_str());  // lent
  }
  set(CURLOPT_HTTPHEADER, headers_);
  if (wanted_.begins != nullptr) {
    set(CURLOPT_HEADERFUNCTION, &HttpRequest::OnHeader);
    set(CURLOPT_HEADERDATA, this);
  }
  set(CURLOPT_WRITEFUNCTION, &HttpRequest::OnBytes);
  set(CURLOPT_WRITEDATA, this);
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(error_));
  curl_.multi_add_handle(multi_, easy_);
  return absl::OkStatus();
}

// Who we are, and whom we take the server's certificates from: read anew each time.
absl::Status HttpRequest::Present(const HttpOrigin& origin) {
  const auto lend = [&](CURLoption option, std::string& text) {
    curl_blob blob = {.data = text.data(), .len = text.size(), .flags = CURL_BLOB_NOCOPY};
    return curl_.easy_setopt(easy_, option, &blob) == CURLE_OK;
  };
  bool taken = true;
  if (origin.authority.is_there()) {
    if (absl::Status status = ReadInto(origin.authority, authority_); !status.ok()) return status;
    taken = lend(CURLOPT_CAINFO_BLOB, authority_);
    // Else everybody whom the machine trusts would be trusted as well.
    curl_.easy_setopt(easy_, CURLOPT_CAPATH, nullptr);
  }
  if (origin.certificate.is_there()) {
    if (absl::Status status = ReadInto(origin.certificate, certificate_); !status.ok()) return status;
    if (absl::Status status = ReadInto(origin.key, key_); !status.ok()) return status;
    taken = taken && lend(CURLOPT_SSLCERT_BLOB, certificate_) && lend(CURLOPT_SSLKEY_BLOB, key_);
  }
  if (!taken) return absl::InternalError("libcurl does not take certificates");
  headers_ = curl_.slist_append(nullptr, "Accept: application/json");
  if (wanted_.post) headers_ = curl_.slist_append(headers_, "Content-Type: application/json");
  std::string authorization = wanted_.authorization;
  if (authorization.empty() && origin.token.is_there()) {
    std::string token;
    if (absl::Status status = ReadInto(origin.token, token); !status.ok()) return status;
    absl::StripAsciiWhitespace(&token);
    if (token.empty() || !std::all_of(token.begin(), token.end(), absl::ascii_isgraph))
      return absl::InvalidArgumentError(absl::StrCat("the token in ", origin.token.file, " is none"));
    authorization = absl::StrCat("Bearer ", token);
  }
  if (!authorization.empty())
    headers_ = curl_.slist_append(headers_, absl::StrCat("Authorization: ", authorization).c_str());
  return absl::OkStatus();
}

// libcurl would look a name up on a thread that it makes, which a confined engine must not have. One family
// at a time: for both, the C library sends by a system call of its own.
absl::Status HttpRequest::AddAddress(const HttpOrigin& origin) {
  int failure = 0;
  for (const int family : {AF_INET, AF_INET6}) {
    const addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_family = family, .ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    failure = getaddrinfo(origin.host.c_str(), origin.port.c_str(), &hints, &found);
    if (failure != 0) continue;
    char address[NI_MAXHOST] = {};
    failure =
        getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof(address), nullptr, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (failure != 0) continue;
    if (origin.host == address) return absl::OkStatus();
    const bool v6 = family == AF_INET6;
    addresses_ = curl_.slist_append(
        nullptr,
        absl::StrCat(origin.host, ":", origin.port, ":", v6 ? "[" : "", address, v6 ? "]" : "").c_str());
    curl_.easy_setopt(easy_, CURLOPT_RESOLVE, addresses_);
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("look up ", origin.host, ": ", gai_strerror(failure)));
}

// Called with each line of a header, of which the last one is empty.
size_t HttpRequest::OnHeader(char* bytes, size_t size, size_t count, void* context) {
  auto& self = *static_cast<HttpRequest*>(context);
  const absl::string_view line(bytes, size * count);
  long code = 0;
  self.curl_.easy_getinfo(self.easy_, CURLINFO_RESPONSE_CODE, &code);
  if (code == 200 && (line == "\r\n" || line == "\n")) self.wanted_.begins();
  return line.size();
}

size_t HttpRequest::OnBytes(char* bytes, size_t size, size_t count, void* context) {
  auto& self = *static_cast<HttpRequest*>(context);
  self.refused_ = self.Take({bytes, size * count});
  return self.refused_.ok() ? size * count : 0;
}

absl::Status HttpRequest::Take(absl::string_view bytes) {
  long code = 0;
  curl_.easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &code);
  const bool in_lines = wanted_.take_line != nullptr && code == 200;
  while (in_lines && !bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (end == absl::string_view::npos) break;
    if (body_.size() + end > wanted_.most_bytes) break;  // refused below
    absl::string_view line = bytes.substr(0, end);
    if (!body_.empty()) {
      absl::StrAppend(&body_, line);
      line = body_;
    }
    if (absl::Status status = wanted_.take_line(line); !status.ok()) return status;
    body_.clear();
    bytes.remove_prefix(end + 1);
  }
  if (body_.size() + bytes.size() > wanted_.most_bytes) {
    return absl::OutOfRangeError(absl::StrCat(in_lines ? "a line of the answer" : "the answer",
                                              " has more than ", wanted_.most_bytes, " bytes"));
  }
  absl::StrAppend(&body_, bytes);
  return absl::OkStatus();
}

HttpAnswer HttpRequest::Finish(CURLcode code) {
  HttpAnswer answer;
  curl_off_t retry_after = 0;
  curl_.easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &answer.code);
  curl_.easy_getinfo(easy_, CURLINFO_RETRY_AFTER, &retry_after);
  // It may be a date of a clock that is ahead, and nobody but the next answer takes it back.
  constexpr curl_off_t kLongestWish = 300;
  answer.retry_after = std::chrono::seconds(std::clamp<curl_off_t>(retry_after, 0, kLongestWish));
  answer.body = std::exchange(body_, {});
  End();
  if (!refused_.ok()) {
    answer.failure = refused_;
    answer.is_final = absl::IsOutOfRange(refused_);
  } else if (code != CURLE_OK) {
    const char* const remedy =
        code == CURLE_PEER_FAILED_VERIFICATION ? "; is the certificate-authority that of this server?" : "";
    answer.failure = absl::UnavailableError(
        absl::StrCat(WithoutTimes(error_[0] != '\0' ? error_ : curl_.easy_strerror(code)), remedy));
    answer.is_final = IsFinal(code);
  }
  return answer;
}

void HttpRequest::End() {
  if (easy_ != nullptr) {
    curl_.multi_remove_handle(multi_, easy_);
    curl_.easy_cleanup(easy_);
  }
  curl_.slist_free_all(headers_);
  curl_.slist_free_all(addresses_);
  easy_ = nullptr;
  headers_ = addresses_ = nullptr;
}

}  // namespace shunt
