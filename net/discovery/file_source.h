// SPDX-License-Identifier: Apache-2.0
// FileSource: backends out of a file that somebody writes while we run.
//
// A file, or a link to one, that is renamed into its place is read at once, and so is one that whoever wrote
// into it has closed. Everything else may be the middle of something (a file that was just made is empty, one
// that is about to be replaced is gone): it counts when it has looked the same for kSettle. So what has been
// renamed into its place, as a ConfigMap volume does it, is read as a whole or not at all; whoever
// writes in place and closes in between is taken at his word.
//
// A file that changes all the time is read ten times a second: nothing could hear of more (a table comes no
// oftener, net/balancer/balancer.h), and reading takes CPU time that programs and reactors want.
//
// A file that is gone, cannot be read or is not right is told once, and what was read before stays in force.
// Only what other backends are in is told: not comments, and not the same file again.
//
// Besides, a look is taken every kPeriod, for what inotify does not notice (net/discovery/watched_path.h).
// Without inotify, or as long as the directory is not there, every kBlindPeriod. Each source has an inotify
// instance of its own, of which a user has 128 by default (fs.inotify.max_user_instances); Title() says when
// there was none left.

#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "net/discovery/source.h"
#include "net/discovery/teller.h"
#include "net/discovery/watched_path.h"

namespace shunt::net {

class FileSource : public Source {
 public:
  // Makes backends of the text of the file `name`. The error names the file, the line and the remedy.
  using Parse = std::function<absl::StatusOr<std::vector<BackendSpec>>(const std::string& text,
                                                                       const std::string& name)>;

  // ns
  static constexpr int64_t kSettle = 200'000'000;
  static constexpr int64_t kPeriod = 10'000'000'000;
  static constexpr int64_t kBlindPeriod = 2'000'000'000;
  // So far apart are lists read in the long run, and so much of it may be ahead of its time.
  static constexpr int64_t kApart = 100'000'000;
  static constexpr int64_t kAhead = 1'000'000'000;

  // Does nothing yet.
  FileSource(std::string path, Parse parse, Tell tell);

  std::string Title() const override;
  // -1 without inotify.
  int event_fd() const override { return path_.event_fd(); }
  int64_t NextDue() const override { return due_; }
  void Advance(int64_t now) override;

 private:
  // What is at the path, as far as it can be told without reading.
  struct Sight {
    int error = 0;  // there is nothing, or nothing that may be looked at
    mode_t mode = 0;
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    int64_t modified = 0, changed = 0;  // ns

    bool is_file() const { return error == 0 && S_ISREG(mode); }
    friend bool operator==(const Sight&, const Sight&) = default;
  };
  static Sight SightOf(int fd);

  // `whole`: if there is a file, it is complete.
  void Look(int64_t now, bool whole);
  absl::StatusOr<std::string> Read(const Result<Fd>& found, const Sight& sight) const;
  void Take(const absl::StatusOr<std::string>& text, int64_t now);

  WatchedPath path_;
  const Parse parse_;
  Teller teller_;
  bool first_ = true;
  int64_t due_ = 0;
  bool replaced_ = false;      // since the last look
  int64_t paid_until_ = 0;     // what has been read is worth kApart each; kAhead before that, more is
  std::optional<Sight> told_;  // all that looks like this has been told
  // What there is has looked like this for less than kSettle, and if it was told nevertheless, it is looked
  // at once more: two changes within one tick of the file system's clock look the same.
  struct Unsettled {
    Sight sight;
    int64_t until = 0;
  };
  std::optional<Unsettled> unsettled_;
  std::optional<size_t> text_hash_;  // of the file whose backends were told
};

}  // namespace shunt::net
