// SPDX-License-Identifier: Apache-2.0
// libcurl, loaded by who asks servers (tools/http_request.h): it comes with OpenSSL and twenty libraries
// more, which every engine would wait for when it takes over from one that has died (tools/microhttpd.h).

#pragma once

#include <curl/curl.h>

#include "absl/status/statusor.h"

namespace shunt {

// X(what comes behind curl_)
#define SHUNT_LIBCURL(X) \
  X(global_init)         \
  X(easy_init)           \
  X(easy_setopt)         \
  X(easy_getinfo)        \
  X(easy_strerror)       \
  X(easy_cleanup)        \
  X(multi_init)          \
  X(multi_setopt)        \
  X(multi_add_handle)    \
  X(multi_remove_handle) \
  X(multi_perform)       \
  X(multi_poll)          \
  X(multi_wakeup)        \
  X(multi_info_read)     \
  X(multi_cleanup)       \
  X(slist_append)        \
  X(slist_free_all)

struct Libcurl {
#define SHUNT_LIBCURL_POINTER(name) decltype(&curl_##name) name = nullptr;  // NOLINT
  SHUNT_LIBCURL(SHUNT_LIBCURL_POINTER)
#undef SHUNT_LIBCURL_POINTER

  // Before the process is confined. Stays loaded, and ready for use. The error names the package that is
  // missing.
  static absl::StatusOr<Libcurl> Load();
};

}  // namespace shunt
