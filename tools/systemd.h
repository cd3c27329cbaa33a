// SPDX-License-Identifier: Apache-2.0
// ServiceManager: systemd, or whoever speaks its protocol: datagrams to $NOTIFY_SOCKET, descriptors that it
// keeps for us over a restart, descriptors that it passes in. All of it is a few lines of text, not worth a
// dependency on libsystemd.
//
// Never blocks: what the manager does not take yet waits here. Without a manager everything is a no-op. One
// thread.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"

namespace shunt {

class ServiceManager {
 public:
  // Whether the manager keeps descriptors. It never answers, and so long as nobody told us we must not
  // believe it.
  enum class FdStore {
    kAsTold,  // if it says so: $FDSTORE, systemd 254
    kAlways,  // the unit has FileDescriptorStoreMax=
  };

  // Reads what concerns us from the environment and takes it out of there: programs that we start are not
  // meant.
  static ServiceManager FromEnvironment(FdStore store = FdStore::kAsTold);

  ServiceManager(ServiceManager&&) = default;
  ServiceManager& operator=(ServiceManager&&) = default;

  void Ready() { Tell("READY=1"); }
  void Stopping() { Tell("STOPPING=1"); }
  void Reloading();  // Ready() follows when the configuration has been read
  void Alive() { Tell("WATCHDOG=1"); }
  void MainPid(pid_t pid);
  void Status(std::string_view text);  // one line

  // How often Alive() has to be said at least; nothing if nobody asks for it.
  std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

  bool stores() const { return stores_; }
  // `name`: no colon, no control characters, at most 255 bytes. The manager keeps one copy of a file only:
  // the same file under a second name is not kept. It stays there until it is removed, whatever happens to
  // it.
  void Store(const std::string& name, int fd);
  void Remove(const std::string& name);  // all with this name

  // What the manager passed at our start, ours now.
  struct Passed {
    std::string name;
    Fd fd;
  };
  std::vector<Passed> TakePassed() { return std::move(passed_); }

  // For a poll loop: POLLOUT of fd() while waiting().
  int fd() const { return socket_.get(); }
  bool waiting() const { return !waiting_.empty(); }
  void Flush();

  // Why something could not be told, once; empty if all is well.
  std::string TakeComplaint() { return std::exchange(complaint_, {}); }

 private:
  struct Datagram {
    std::string text;
    Fd fd;
  };

  ServiceManager() = default;
  void Connect(std::string_view path);
  void Tell(std::string_view text, int fd = -1);
  void Complain(std::string text);

  Fd socket_;
  bool stores_ = false;
  std::optional<std::chrono::microseconds> watchdog_;
  std::vector<Passed> passed_;
  std::deque<Datagram> waiting_;
  std::string complaint_;
  bool complained_ = false;
};

}  // namespace shunt
