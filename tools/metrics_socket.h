// SPDX-License-Identifier: Apache-2.0
// The socket on which metrics are asked for. Made by the process that the user started, held by the keeper,
// served by engines (tools/metrics_server.h): so its port outlives each of them.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "net/sock_addr.h"

namespace shunt {

// "[HOST]:PORT": "127.0.0.1:9464", "[::1]:9464", or ":9464" for all addresses. A host is an address: a name
// would be looked up once and for all.
absl::StatusOr<net::SockAddr> ParseMetricsAddress(const std::string& text);

// A socket that listens there. The error names the address.
absl::StatusOr<Fd> ListenForMetrics(const std::string& address);

// Where that socket is reached: "127.0.0.1:9464".
std::string MetricsAddressOf(int socket);

}  // namespace shunt
