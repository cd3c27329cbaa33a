// SPDX-License-Identifier: Apache-2.0
// Served: what the control thread keeps of a container that its accelerator serves.

#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "core/reactor.h"
#include "handlers/accelerator.h"
#include "handlers/container.h"
#include "handlers/container_memory.h"
#include "handlers/service_errands.h"

namespace shunt {

// One container, on the control thread.
struct Served {
  // A task in its network; 0: none is known.
  pid_t task() const { return spec.pid != 0 ? spec.pid : spec.first_process; }
  ErrandPlace errand_place() const {
    return {.key = container->key,
            .task = task(),
            .netns = memory->network().netns,
            .owner = container->affinity_key,
            .flows = &memory->facts().aimed};
  }

  ContainerSpec spec;
  ServedListener* listener = nullptr;
  Container* container = nullptr;           // belongs to its reactor
  const ContainerMemory* memory = nullptr;  // the container's
  int listener_fd = -1;                     // its reactor's
  Fd route_monitor;                         // of its network namespace
  std::unique_ptr<const NetworkView> view;
  bool update_in_flight = false;
  bool update_again = false;
  std::unique_ptr<Guest> corpse;  // after the end, until nothing is in flight
  std::function<void()> ended;
};

// A container that is served from Begin() on.
struct AdoptedContainer {
  std::optional<Listener> listener;
  std::unique_ptr<Container> container;
};

}  // namespace shunt
