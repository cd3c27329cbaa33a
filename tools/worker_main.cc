// SPDX-License-Identifier: Apache-2.0
#include "tools/worker_main.h"

#include <sys/prctl.h>

#include <memory>

#include "core/worker.h"
#include "handlers/deeds.h"
#include "handlers/mount_builder.h"

namespace shunt {

void AddWorkerCommand(CLI::App& app) {
  auto link = std::make_shared<int>(-1);
  CLI::App* const command =
      app.add_subcommand("worker", "Acts inside a container; started by the starter alone");
  command->group("");  // not in the help
  command->add_option("--link", *link)->required();
  command->callback([link] {
    prctl(PR_SET_NAME, "shunt-worker");
    RunWorker(Fd(*link), kDeeds, StartMountBuilder);
  });
}

}  // namespace shunt
