// SPDX-License-Identifier: Apache-2.0
// A policy as JSON, for the engines to come.

#pragma once

#include <nlohmann/json.hpp>

#include "handlers/policy.h"

namespace shunt {

nlohmann::json PolicyToJson(const Policy& policy);
// Throws nlohmann::json::exception where something is missing or has another type.
Policy PolicyFromJson(const nlohmann::json& json);

}  // namespace shunt
