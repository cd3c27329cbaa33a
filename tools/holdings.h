// SPDX-License-Identifier: Apache-2.0
// Holdings: the table of descriptors that outlive engines, and the only memory of the keeper that grows.
//
// Every holding has at least one descriptor, so a limit on descriptors bounds it all. What has been replaced
// or dropped counts as long as somebody still has it in a queue.

#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "tools/keeper_protocol.h"

namespace shunt {

// Descriptors under a name. They never change: a holding is replaced as a whole.
class Holding {
 public:
  Holding(HoldingName name, std::vector<Fd> fds, std::shared_ptr<size_t> count);
  ~Holding();
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;

  HoldingName name() const { return name_; }
  std::span<const int> fds() const { return std::span(numbers_).first(fds_.size()); }

 private:
  HoldingName name_;
  std::vector<Fd> fds_;
  std::array<int, kHoldingDescriptors> numbers_{};
  std::shared_ptr<size_t> count_;
};

class Holdings {
 public:
  using Map = std::map<HoldingName, std::shared_ptr<const Holding>>;

  // `limit` descriptors at most.
  explicit Holdings(size_t limit) : limit_(limit) {}

  // Replaces what is held under the name. Null if there is no room; then nothing has changed. `fds` are 1 to
  // kHoldingDescriptors.
  std::shared_ptr<const Holding> Put(HoldingName name, std::vector<Fd> fds);
  // The holding that was dropped; null if there was none.
  std::shared_ptr<const Holding> Drop(HoldingName name);

  const Map& all() const { return map_; }
  size_t descriptors() const { return *count_; }
  bool full() const { return *count_ >= limit_; }
  // How many there are of one kind.
  size_t Count(HoldingTag tag) const;

 private:
  size_t limit_;
  std::shared_ptr<size_t> count_ = std::make_shared<size_t>(0);
  Map map_;
};

}  // namespace shunt
