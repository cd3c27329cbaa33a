// SPDX-License-Identifier: Apache-2.0
#include "tools/libcurl.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace shunt {

absl::StatusOr<Libcurl> Libcurl::Load() {
  Libcurl loaded;
  // The one that speaks TLS by OpenSSL: the other's, by GnuTLS, takes certificates from files only.
  void* const library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
  bool complete = library != nullptr;
#define SHUNT_LIBCURL_LOAD(name)                                                                      \
  if (complete) loaded.name = reinterpret_cast<decltype(loaded.name)>(dlsym(library, "curl_" #name)); \
  complete = complete && loaded.name != nullptr;
  SHUNT_LIBCURL(SHUNT_LIBCURL_LOAD)
#undef SHUNT_LIBCURL_LOAD
  if (!complete) {
    return absl::NotFoundError(
        absl::StrCat("asking servers by HTTP needs libcurl (Debian's package libcurl4): ", dlerror()));
  }
  if (const CURLcode code = loaded.global_init(CURL_GLOBAL_DEFAULT); code != CURLE_OK)
    return absl::InternalError(absl::StrCat("libcurl does not start: ", loaded.easy_strerror(code)));
  return loaded;
}

}  // namespace shunt
