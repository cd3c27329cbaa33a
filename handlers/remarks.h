// SPDX-License-Identifier: Apache-2.0
// The words for what a worker has remarked on a deed (core/desk.h), for the log.

#pragma once

#include <string>
#include <string_view>

#include "core/desk.h"

namespace shunt {

// With the remedy. `about` is the result's. Control path: allocates.
std::string TextOf(Remark remark, std::string_view about);

}  // namespace shunt
