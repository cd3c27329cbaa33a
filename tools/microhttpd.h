// SPDX-License-Identifier: Apache-2.0
// libmicrohttpd, loaded by who serves metrics: it comes with GnuTLS and eight libraries more, which every
// engine would wait for when it takes over from one that has died (cmake/static_libraries.cmake has the
// command that shows it).

#pragma once

#include <microhttpd.h>

#include "absl/status/statusor.h"

namespace shunt {

// X(what comes behind MHD_)
#define SHUNT_MICROHTTPD(X)      \
  X(start_daemon)                \
  X(stop_daemon)                 \
  X(quiesce_daemon)              \
  X(run)                         \
  X(get_timeout)                 \
  X(get_daemon_info)             \
  X(get_connection_info)         \
  X(create_response_from_buffer) \
  X(add_response_header)         \
  X(queue_response)              \
  X(destroy_response)

struct Microhttpd {
#define SHUNT_MICROHTTPD_POINTER(name) decltype(&MHD_##name) name = nullptr;  // NOLINT: no parentheses fit
  SHUNT_MICROHTTPD(SHUNT_MICROHTTPD_POINTER)
#undef SHUNT_MICROHTTPD_POINTER

  // Before the process is confined. Stays loaded. The error names the package that is missing.
  static absl::StatusOr<Microhttpd> Load();
};

}  // namespace shunt
