// SPDX-License-Identifier: Apache-2.0
#include "tools/service_source.h"

#include <utility>

#include "net/discovery/dns_source.h"
#include "net/discovery/file_source.h"
#include "tools/service_config.h"

namespace shunt {

absl::StatusOr<std::unique_ptr<net::Source>> MakeServiceSource(const net::ServiceSpec& service,
                                                               net::Source::Tell tell) {
  const net::DiscoverSpec& wanted = service.discover;
  if (!wanted.file.empty())
    return std::make_unique<net::FileSource>(wanted.file, ParseBackendFile, std::move(tell));
  return net::DnsSource::Create(wanted.dns, std::move(tell));
}

}  // namespace shunt
