// SPDX-License-Identifier: Apache-2.0
#include "tools/holdings.h"

#include <cstdint>
#include <iterator>

#include "core/check.h"

namespace shunt {

Holding::Holding(HoldingName name, std::vector<Fd> fds, std::shared_ptr<size_t> count)
    : name_(name), fds_(std::move(fds)), count_(std::move(count)) {
  SHUNT_CHECK(!fds_.empty() && fds_.size() <= kHoldingDescriptors);
  for (size_t i = 0; i < fds_.size(); ++i) numbers_[i] = fds_[i].get();
  *count_ += fds_.size();
}

Holding::~Holding() {
  *count_ -= fds_.size();
}

std::shared_ptr<const Holding> Holdings::Put(HoldingName name, std::vector<Fd> fds) {
  if (*count_ + fds.size() > limit_) return nullptr;
  auto holding = std::make_shared<const Holding>(name, std::move(fds), count_);
  map_[name] = holding;
  return holding;
}

size_t Holdings::Count(HoldingTag tag) const {
  return static_cast<size_t>(std::distance(map_.lower_bound({tag, 0}), map_.upper_bound({tag, UINT64_MAX})));
}

std::shared_ptr<const Holding> Holdings::Drop(HoldingName name) {
  const auto found = map_.find(name);
  if (found == map_.end()) return nullptr;
  std::shared_ptr<const Holding> holding = std::move(found->second);
  map_.erase(found);
  return holding;
}

}  // namespace shunt
