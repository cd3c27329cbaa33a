// SPDX-License-Identifier: Apache-2.0
// WatchedPath: what is at a path now, and word when that may have changed.
//
// A path is followed as the kernel does it, name by name, and the directories of all names that can lead
// elsewhere later are watched (inotify): of each symlink on the way, and of the last name. In a ConfigMap
// volume those are two: orders.yaml -> ..data/orders.yaml, ..data -> ..2026_01_30, of which the second one is
// exchanged by a rename. So replacing the file, writing into it, and turning any of the links is noticed.
//
// What is not: that a directory further up is exchanged for another one, that a file system is mounted over
// one, and what other machines write to a network file system. So look at Follow() now and then.
//
// One thread. Nothing waits, save for file systems that do so in open(2) itself.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace shunt::net {

class WatchedPath {
 public:
  enum class Change : uint8_t {
    kNone,
    kTouched,   // something has happened to a name, or has begun to
    kReplaced,  // a file or link has been put in place as a whole, or whoever wrote into it has closed it
  };

  explicit WatchedPath(std::string path);

  const std::string& path() const { return path_; }

  // Readable when Take() has something. -1 if there is no inotify to be had.
  int event_fd() const { return inotify_.get(); }
  // The greatest of the changes since the last time.
  Change Take();

  // What is there, opened with O_PATH: whatever it is, nothing has happened to it. Changes from now on are
  // noticed.
  Result<Fd> Follow();

  // Of the last Follow(): some changes go unnoticed, for want of inotify or of a directory.
  bool blind() const { return blind_; }
  // What inotify, or a part of it, was not to be had for; 0: it was.
  int inotify_error() const { return inotify_error_; }

 private:
  // By watch descriptor: a directory, and the names in it that matter.
  using Watches = std::map<int, std::set<std::string>>;

  Result<Fd> Walk(Watches& watches);
  void Watch(int directory_fd, const std::string& name, Watches& watches);

  const std::string path_;
  const Fd inotify_;
  const int no_inotify_;
  Watches watches_;
  bool blind_ = true;
  int inotify_error_ = 0;
};

}  // namespace shunt::net
