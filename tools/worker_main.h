// SPDX-License-Identifier: Apache-2.0
// `shunt worker`: the process that acts inside a container (core/worker.h). Started by the starter, for an
// engine; not in the help.

#pragma once

#include <CLI/CLI.hpp>

namespace shunt {

void AddWorkerCommand(CLI::App& app);

}  // namespace shunt
