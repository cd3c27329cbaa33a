// SPDX-License-Identifier: Apache-2.0
#include "tools/microhttpd.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace shunt {

absl::StatusOr<Microhttpd> Microhttpd::Load() {
  Microhttpd loaded;
  void* const library = dlopen("libmicrohttpd.so.12", RTLD_NOW | RTLD_LOCAL);
  bool complete = library != nullptr;
#define SHUNT_MICROHTTPD_LOAD(name)                                                                  \
  if (complete) loaded.name = reinterpret_cast<decltype(loaded.name)>(dlsym(library, "MHD_" #name)); \
  complete = complete && loaded.name != nullptr;
  SHUNT_MICROHTTPD(SHUNT_MICROHTTPD_LOAD)
#undef SHUNT_MICROHTTPD_LOAD
  if (complete) return loaded;
  return absl::NotFoundError(
      absl::StrCat("metrics need libmicrohttpd (Debian's package libmicrohttpd12): ", dlerror()));
}

}  // namespace shunt
