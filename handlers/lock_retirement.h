// SPDX-License-Identifier: Apache-2.0
// LockRetirements: has every reactor throw away the twins that it made in store for a lock that nobody needs
// any more. Control thread, but for the step that each reactor takes.

#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/engine.h"
#include "handlers/container.h"
#include "net/twin_pool.h"

namespace shunt {

class LockRetirements {
 public:
  // `benches` are the reactors', in their order. Both outlive what is under way.
  void Retire(Engine& engine, const std::vector<SocketBench*>& benches,
              std::shared_ptr<const net::NumberedLock> lock);

 private:
  struct Retirement {
    LockRetirements* all;  // for the control thread only
    std::shared_ptr<const net::NumberedLock> lock;
    Mailbox* control;
    struct Notice {
      Retirement* retirement;
      SocketBench* bench;
      Message message;
    };
    std::vector<Notice> notices;
    size_t outstanding = 0;  // control thread
  };
  static void OnReactor(Message& message);
  static void OnReturned(Message& message);

  std::map<const Retirement*, std::unique_ptr<Retirement>> under_way_;
};

}  // namespace shunt
