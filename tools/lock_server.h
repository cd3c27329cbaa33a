// SPDX-License-Identifier: Apache-2.0
// `shunt lock-server`: the small privileged step. It loads the socket lock for users who may not load eBPF
// themselves.
//
// Why any user may be served:
//   - What comes back is a program that the server wrote from a handful of networks and ports
//     (net/lock_program.h); no instruction comes from the client. The kernel's verifier checks it
//     nevertheless.
//   - A socket filter can only drop packets that arrive at sockets of whoever attaches it. Dropping its own
//     packets is something that every process may do anyway. The program has no maps, reads nothing but TCP
//     and IP headers, writes nothing, and its descriptor grants nothing else.
//   - Requests are bounded, are judged before anything is done with them, and cannot make the server wait: a
//     silent client is dropped after two seconds, and of too many at once the oldest.
//   - Programs that users hold on to cost kernel memory. It is charged to the server's control group, whose
//     limit (deploy/systemd/shunt-lock.slice) bounds it. Beyond it nobody gets a new lock and sockets stay on
//     their ordinary path.
// And if all that were wrong: from before the first request on, the server holds no capability but CAP_BPF
// and may make no system calls but those of its loop.

#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"

namespace shunt {

// Listens at `path` (a stale socket there is replaced, a living one is not) and lets everybody connect.
absl::StatusOr<Fd> ListenForLockRequests(const std::string& path);

// Gives up every privilege but loading programs, for good and for the calling thread; the process should have
// no other. Fails if it has not got that privilege.
absl::Status ConfineLockServer();

// Answers requests, one for each connection, until nobody has asked for `idle_limit` (if there is one).
absl::Status ServeLockRequests(int listener_fd, std::optional<std::chrono::milliseconds> idle_limit);

// All three, as the subcommand does: on the socket that systemd has passed, if it has, else at `path`. Under
// systemd it returns when nobody has asked for a while; a new request starts it again.
absl::Status RunLockServer(const std::string& path);

// Adds the subcommand; running it sets `exit_status`.
void AddLockServerCommand(CLI::App& app, int& exit_status);

}  // namespace shunt
