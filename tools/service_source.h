// SPDX-License-Identifier: Apache-2.0
// Which source finds the backends of a service that wants one (ServiceSpec::discover).

#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "net/balancer/service.h"
#include "net/discovery/source.h"

namespace shunt {

absl::StatusOr<std::unique_ptr<net::Source>> MakeServiceSource(const net::ServiceSpec& service,
                                                               net::Source::Tell tell);

}  // namespace shunt
