// SPDX-License-Identifier: Apache-2.0
// HttpRequest: one HTTP request after the other by libcurl, under the hands of a thread that runs libcurl's
// multi interface. For engines: confined, without a thread for names, and whatever the environment says.
//
// All is bounded: the bytes of an answer, or of each of its lines, and the time unless that is left out.
// Redirections are not followed.

#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tools/http_origin.h"
#include "tools/libcurl.h"

namespace shunt {

// What has become of a request.
struct HttpAnswer {
  long code = 0;     // of HTTP; 0: there is no answer
  std::string body;  // empty where lines were taken
  // The way to the server has failed, or what was taken was not to be taken. OK: look at the code.
  absl::Status failure;
  bool is_final = false;                // the failure would only repeat itself
  std::chrono::seconds retry_after{0};  // what the server wishes; 0: nothing
};

class HttpRequest {
 public:
  struct Wanted {
    std::string path;                      // behind the origin's url
    std::optional<std::string> post;       // a JSON text; nothing: GET
    std::string authorization;             // the value of that header, in the place of the origin's token
    std::chrono::milliseconds longest{0};  // with the way there; 0: as long as it likes
    size_t most_bytes = 0;                 // of the body, or of a line
    // Hears that an answer with code 200 has begun, and takes its lines, without their ends; the first one
    // may be long in coming. An error ends the request.
    std::function<void()> begins;
    std::function<absl::Status(absl::string_view line)> take_line;
  };

  // Both outlive it.
  HttpRequest(const Libcurl& curl, CURLM* multi) : curl_(curl), multi_(multi) {}
  ~HttpRequest() { End(); }
  HttpRequest(const HttpRequest&) = delete;
  HttpRequest& operator=(const HttpRequest&) = delete;

  // Waits while a name is looked up, for nothing else. None may be under way. The error says what is missing.
  absl::Status Begin(const HttpOrigin& origin, Wanted wanted);
  bool under_way() const { return easy_ != nullptr; }
  // libcurl's handle, by which it says that the request has ended.
  const CURL* handle() const { return easy_; }
  // libcurl has said so.
  HttpAnswer Finish(CURLcode code);
  // Takes it away, whatever has become of it.
  void End();

 private:
  absl::Status Present(const HttpOrigin& origin);
  absl::Status AddAddress(const HttpOrigin& origin);
  absl::Status Take(absl::string_view bytes);
  static size_t OnHeader(char* bytes, size_t size, size_t count, void* request);
  static size_t OnBytes(char* bytes, size_t size, size_t count, void* request);

  const Libcurl& curl_;
  CURLM* const multi_;
  CURL* easy_ = nullptr;
  curl_slist* headers_ = nullptr;
  curl_slist* addresses_ = nullptr;
  Wanted wanted_;
  std::string authority_, certificate_, key_;  // libcurl is lent them
  std::string body_;                           // or the line that is not complete
  absl::Status refused_;                       // why the answer is not taken
  char error_[CURL_ERROR_SIZE] = {};
};

}  // namespace shunt
