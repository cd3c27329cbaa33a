// SPDX-License-Identifier: Apache-2.0
// NetworkViews: makes what a container's calls are decided by, from the host's network, the container's own
// and its operator's wishes, with the locks that enforce it.
//
// Which kind of lock is in force is found once, by trying. Locks are shared by what they enforce. Control
// thread only; a lock may be fetched from the lock server, for which it waits.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"
#include "handlers/accelerator.h"
#include "handlers/container.h"
#include "handlers/container_memory.h"
#include "net/host_network.h"
#include "net/lock.h"
#include "net/twin_pool.h"

namespace shunt {

class NetworkViews {
 public:
  // `lock_socket`: as in AcceleratorOptions. Fails if the host's network cannot be read.
  static absl::StatusOr<std::unique_ptr<NetworkViews>> Create(std::string lock_socket);
  NetworkViews(const NetworkViews&) = delete;
  NetworkViews& operator=(const NetworkViews&) = delete;

  // Reads the host's network again, for the views to come.
  absl::Status ReadHost();
  net::SocketLock::Kind locks() const { return locks_; }
  // As Accelerator::LocksInForce().
  std::string LocksInForce() const;

  // Without a lock in it, nothing of the container is accelerated.
  absl::StatusOr<std::unique_ptr<const NetworkView>> Make(const ContainerSpec& spec,
                                                          const ContainerNetwork& network);

  // Locks that no view has any more: they are not given out again, and the caller has them retired.
  std::vector<std::shared_ptr<const net::NumberedLock>> TakeUnusedLocks();

 private:
  explicit NetworkViews(std::string lock_socket) : lock_socket_(std::move(lock_socket)) {}
  void ChooseLocks();
  absl::StatusOr<std::shared_ptr<const net::NumberedLock>> LockFor(const net::LockPolicy& policy);

  const std::string lock_socket_;
  Fd host_routes_;
  std::shared_ptr<const net::HostNetwork> host_;
  net::SocketLock::Kind locks_ = net::SocketLock::Kind::kNone;
  std::string why_no_program_;
  // By what they enforce.
  std::map<std::string, std::shared_ptr<const net::NumberedLock>> lock_by_policy_;
  uint64_t next_lock_ = 1;
};

// Reads a container's addresses and networks by a route socket of its namespace, `route_monitor`.
absl::Status ReadContainerNetwork(int route_monitor, ContainerNetwork& network);

// True if the task's user namespace owns the host's network (or is above its owner), so that its root may
// undo a device lock.
bool OwnsHostNetwork(pid_t pid);

}  // namespace shunt
