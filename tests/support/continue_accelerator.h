// SPDX-License-Identifier: Apache-2.0
// ContinueAccelerator: an Accelerator that lets every call through as if nobody had trapped it.
//
// With it the agent is tested on real runtimes for what is the agent's own: that listeners arrive, are served
// at once, and are forgotten. One thread, one poll set.

#pragma once

#include <memory>

#include "handlers/accelerator.h"

namespace shunt {

absl::StatusOr<std::unique_ptr<Accelerator>> StartContinueAccelerator(const AcceleratorOptions& options);

}  // namespace shunt
