// SPDX-License-Identifier: Apache-2.0
#include "handlers/lock_retirement.h"

#include <utility>

namespace shunt {

void LockRetirements::Retire(Engine& engine, const std::vector<SocketBench*>& benches,
                             std::shared_ptr<const net::NumberedLock> lock) {
  std::unique_ptr<Retirement> made(
      new Retirement{.all = this, .lock = std::move(lock), .control = &engine.control()});
  Retirement* const retirement = made.get();
  under_way_[retirement] = std::move(made);
  retirement->outstanding = benches.size();
  retirement->notices.resize(benches.size());
  for (size_t i = 0; i < benches.size(); ++i) {
    Retirement::Notice& notice = retirement->notices[i];
    notice = {.retirement = retirement, .bench = benches[i], .message = {}};
    notice.message = {.deliver = OnReactor, .context = &notice};
    engine.reactors()[i]->Post(notice.message);
  }
}

void LockRetirements::OnReactor(Message& message) {
  const auto& notice = message.about<Retirement::Notice>();
  notice.bench->twins.Retire(notice.retirement->lock->number);
  message.deliver = OnReturned;
  notice.retirement->control->Push(&message);
}

void LockRetirements::OnReturned(Message& message) {
  Retirement* const retirement = message.about<Retirement::Notice>().retirement;
  if (--retirement->outstanding == 0) retirement->all->under_way_.erase(retirement);
}

}  // namespace shunt
