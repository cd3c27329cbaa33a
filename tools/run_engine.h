// SPDX-License-Identifier: Apache-2.0
// What `shunt run` was asked for, and the process that does it (run_terminal.h says why it is one of three).

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "handlers/accelerator.h"
#include "net/publish.h"
#include "net/subnet_set.h"
#include "tools/run_id_map.h"
#include "tools/run_terminal.h"

namespace shunt {

struct RunOptions {
  enum class Net { kBest, kSlirp4netns, kPasta, kNone };

  std::vector<std::string> command;
  std::string rootfs;           // an absolute path, or empty for the host's files
  std::optional<UserIds> user;  // none: uid 0 of the container
  Net net = Net::kBest;
  std::vector<net::Publish> publish;
  net::SubnetSet ignore;
  bool accelerate = true;
  std::string services;         // the file that says what is balanced; empty: nothing is
  std::string services_text;    // what stands in it
  bool names_services = false;  // getpeername(2) shows some of them
  AcceleratorOptions accelerator;
  bool verbose = false;
};

// Makes the container, runs the command in it and serves its calls until it ends. Returns an exit status,
// which counts only if the command never began. `link` leads to the front.
int RunEngine(const RunOptions& options, const Terminal& terminal, Fd link);

}  // namespace shunt
