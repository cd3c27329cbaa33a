// SPDX-License-Identifier: Apache-2.0
// The ordinary network of a container that `shunt run` makes: slirp4netns or pasta, as Debian packages them.
//
// Both give the container 10.0.2.100/24 and fd00:: addresses behind a gateway 10.0.2.2, with a resolver
// at 10.0.2.3. Never an address or a network of the host's: what is on the container's own network stays on
// the ordinary path, and that must not be the host's LAN. The host's loopback cannot be reached through
// either.

#pragma once

#include <sys/types.h>

#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/publish.h"
#include "tools/leashed_program.h"

namespace shunt {

enum class NetworkKind { kSlirp4netns, kPasta };

const char* NetworkName(NetworkKind kind);
bool NetworkInstalled(NetworkKind kind);

struct Network {
  LeashedProgram program;   // the network lives as long as this
  std::string resolv_conf;  // what /etc/resolv.conf of the container must read
};

// Starts the network program for the network and user namespaces of `pid` and waits until the network is
// there. `forward` are the ports that the program is to make reachable on the host. The error names the
// remedy. Safe while other threads run.
absl::StatusOr<Network> StartNetwork(NetworkKind kind, pid_t pid, std::span<const net::Publish> forward);

}  // namespace shunt
