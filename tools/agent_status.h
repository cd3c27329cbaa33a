// SPDX-License-Identifier: Apache-2.0
// What `shunt ctl status` is told of an engine.

#pragma once

#include <nlohmann/json_fwd.hpp>

#include "handlers/accelerator.h"

namespace shunt {

nlohmann::json StatusOf(const Accelerator& accelerator);

}  // namespace shunt
