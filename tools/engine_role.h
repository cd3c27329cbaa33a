// SPDX-License-Identifier: Apache-2.0
// EngineRole: what one kind of engine does beside serving the containers that it is given: an agent's takes
// new ones in and can be asked how it does; that of `shunt run` nothing.
//
// All calls are on the engine's control thread.

#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "core/fd.h"
#include "handlers/accelerator.h"
#include "tools/keeper_protocol.h"

namespace shunt {

class EngineRole {
 public:
  virtual ~EngineRole() = default;

  using Given = std::map<HoldingName, std::vector<Fd>>;
  // Takes what it needs out of `given`. Nothing is served yet, and others may still be at it.
  virtual absl::Status Prepare(Accelerator& accelerator, Given& given) = 0;
  // A container that is held. Returns as Accelerator::Adopt().
  virtual absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd> held) = 0;

  // A container that publishes ports is introduced (AcceleratorOptions::introduced).
  virtual void Introduced(uint64_t /*key*/, uint64_t /*netns*/, const std::vector<net::Publish>& /*publish*/,
                          std::vector<net::IpAddress> /*addresses*/) {}
  // From here on this engine serves, and no other.
  virtual void Begin() {}

  // A connection to the socket that is held as the kIntake. Nothing is read from it before we serve. Not
  // valid: there was no descriptor for it.
  virtual void AdoptConnection(uint64_t /*name*/, Fd /*connection*/) {}

  // Becomes readable when HandleEvents() has something to do; -1: never. Only while we serve.
  virtual int event_fd() const { return -1; }
  virtual void HandleEvents() {}

  virtual void Reload() {}
  // How the upgrade went that it asked for.
  virtual void Upgraded(const absl::Status& /*status*/) {}
  // An orderly end: what is in the file system goes.
  virtual void Leave() {}
};

}  // namespace shunt
