// SPDX-License-Identifier: Apache-2.0
// Announcements: what this machine is to have in etcd (docs/multinode.md): from the control thread, which
// knows the containers, to the thread that writes (tools/etcd_announcer.h). Any thread.

#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace shunt {

class Announcements {
 public:
  using Keys = std::map<std::string, std::string>;  // "10.88.0.5:80" -> "192.168.7.11:8080"

  // In the place of what was to be there before.
  void Want(Keys keys) {
    auto fresh = std::make_shared<const Keys>(std::move(keys));
    const std::lock_guard lock(mutex_);
    wish_.keys = std::move(fresh);
  }
  // Nothing any more, and at once.
  void End() {
    const std::lock_guard lock(mutex_);
    wish_.end = true;
  }

  struct Wish {
    std::shared_ptr<const Keys> keys = std::make_shared<const Keys>();  // another one: something has changed
    bool end = false;
  };
  Wish Now() const {
    const std::lock_guard lock(mutex_);
    return wish_;
  }

  // Nothing is there any more.
  void Ended() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    told_.notify_all();
  }
  // False: it was not said in time.
  bool AwaitEnd(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    return told_.wait_for(lock, patience, [this] { return ended_; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable told_;
  Wish wish_;
  bool ended_ = false;
};

}  // namespace shunt
