// SPDX-License-Identifier: Apache-2.0
// KeeperStage: a keeper in this process, engines that do what the test tells them, and one loop that lets all
// of them go on until something has happened.
//
// Nothing here waits for time to pass: Until() turns the loop until its condition holds, or fails after a
// patience that no healthy run needs.

#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "core/fd.h"
#include "tools/keeper.h"
#include "tools/systemd.h"

namespace shunt {

// Holdings.
inline constexpr HoldingName kOne{HoldingTag::kContainer, 1};
inline constexpr HoldingName kJournal{HoldingTag::kJournal, 0};

// An engine that has come up, as the test sees it.
struct RemoteEngine {
  pid_t pid = 0;
  std::string program;      // the identity of what it was executed from
  std::string descriptors;  // that it started with
  Fd socket;
  std::vector<std::string> heard;  // from the keeper

  bool Heard(const std::string& line) const;
  size_t Count(const std::string& first_word) const;
  void Do(const std::string& command, const std::vector<int>& fds = {}) const;
};

class KeeperStage {
 public:
  KeeperStage();
  ~KeeperStage();

  KeeperOptions options;  // to change before Start()
  bool obliging = true;   // engines that come up from now on
  std::string program;    // a copy of scripted_engine, which a test may replace
  ServiceManager* manager = nullptr;

  void Start();  // Create() and Begin()
  void Create();

  // True when `done` holds; false if that takes too long.
  bool Until(const std::function<bool()>& done);
  // The next engine that comes up; null if none does.
  RemoteEngine* NextEngine();
  // Waits until there have been `count` kReady.
  bool Ready(size_t count);
  // What its /proc/PID/stat has behind the name: the state, the parent and so on. Nothing if it has gone.
  static std::istringstream FieldsOf(pid_t pid);
  // Whether the process runs, or will, instructions of its own: who has begun to end does not, however long
  // the kernel takes over it, and the machine's first process to take a zombie away.
  static bool MayAct(pid_t pid);
  // True if it comes to act no more.
  bool Ends(pid_t pid);

  // Puts a program that is not the same into the place of `program`.
  void ReplaceProgram(const std::string& by);
  static std::string ScriptedEngine();

  std::unique_ptr<Keeper> keeper;
  std::vector<std::unique_ptr<RemoteEngine>> engines;
  size_t ready = 0;
  std::string ready_text;
  std::vector<std::string> said;
  std::vector<std::string> serving;
  std::vector<absl::Status> upgrades;
  std::optional<absl::Status> ended;
  std::string folder;

 private:
  void Turn(int timeout_ms);
  void Accept();
  void Hear(RemoteEngine& engine);

  Fd listener_;
  size_t taken_ = 0;  // engines that NextEngine() has returned
};

// A memfd and its identity.
struct Thing {
  Thing();
  Fd fd;
  std::string identity;
  Fd Copy() const;
};

// What GIVE a holding of these things makes an engine hear.
std::string GiveLine(HoldingName name, const std::vector<const Thing*>& things);
std::vector<Fd> Copies(const std::vector<const Thing*>& things);

}  // namespace shunt
