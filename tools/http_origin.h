// SPDX-License-Identifier: Apache-2.0
// HttpOrigin: a server that is asked by HTTP, and how the two of us know each other.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shunt {

// Something that is written in a configuration itself, or in a file, which is read anew for each request:
// tokens and certificates of pods change while they run.
struct TextOrFile {
  std::string text;
  std::string file;  // counts if `text` is empty

  bool is_there() const { return !text.empty() || !file.empty(); }
  // The error names the file.
  absl::StatusOr<std::string> Read() const;

  friend bool operator==(const TextOrFile&, const TextOrFile&) = default;
};

struct HttpOrigin {
  std::string url;         // "https://HOST:PORT", perhaps with a path; no "/" at its end
  std::string host;        // as in the url, without brackets
  std::string port;        //
  TextOrFile authority;    // whose certificates count; nothing: those that the machine trusts
  TextOrFile token;        // may be nothing
  TextOrFile certificate;  // ours, and its key; may be nothing
  TextOrFile key;

  friend bool operator==(const HttpOrigin&, const HttpOrigin&) = default;
};

// Whether "http://" will do.
enum class PlainHttp { kRefused, kAllowed };

// Takes the url apart, and refuses what is none. The error says what would be right.
absl::Status SetUrl(std::string url, PlainHttp plain, HttpOrigin& origin);

// A file of at most a mebibyte, which need not be a regular one. The error names it.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace shunt
