// SPDX-License-Identifier: Apache-2.0
// Keeper: holds a duplicate of every descriptor that must outlive the engine; starts, watches and restarts
// the engine, so that containers do not notice when it dies.
//
// It lives in the process that the user started and is driven by that process' poll loop. It parses nothing
// but fixed structs (keeper_protocol.h), has no network, starts processes only through a Starter that was
// forked earlier, and never waits: it can put itself under a strict filter after Create(). From then on it
// calls
//   epoll_wait epoll_ctl epoll_create1 timerfd_settime recvmsg sendmsg pidfd_send_signal
//   fcntl(F_DUPFD_CLOEXEC) ioctl (the listener's: RECV, SEND, ID_VALID, SET_FLAGS) close clock_gettime
//   getrlimit, and what malloc needs;
// its destructor also kill and wait4; and who shares its process, accept4 (runtime_door.h).
//
// What always holds:
//   - An engine hears kStart only when no other that heard it can act any more: it is dead, has said
//   kStopped,
//     or was killed so long ago that it cannot have an instruction of its own left to run.
//   - What an engine that dies had sent is read before its link is closed, so nothing that it held is lost.
//   - An engine that says anything that the protocol does not have is killed like one that hangs.
//   - If engines fail again and again, calls are answered by a stated verdict (stranded_calls.h) meanwhile.

#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/fd.h"
#include "tools/engine_process.h"
#include "tools/holdings.h"
#include "tools/keeper_protocol.h"
#include "tools/starter.h"
#include "tools/stranded_calls.h"
#include "tools/systemd.h"

namespace shunt {

// How long the keeper waits for what. Only tests have a reason to change it.
struct KeeperPatience {
  using Ms = std::chrono::milliseconds;
  Ms start{10'000};      // until the starter has made a process
  Ms prepare{10'000};    // until kPrepared
  Ms recover{60'000};    // from kStart to kReady
  Ms ping{2'000};        // between pings
  Ms pong{10'000};       // without an answer
  Ms stop{2'000};        // from kStop to kStopped
  Ms dismiss{2'000};     // from the closed link to the end of the process
  Ms leave{3'000};       // from kLeave to the end of the process
  Ms unkillable{2'000};  // from SIGKILL until its work counts as done though the process is still there
  Ms give_up{30'000};    // until the next attempt
  Ms death_window{10'000};
  // Before the next attempt, after that many failures in a row; one more and the keeper gives up.
  std::array<Ms, 4> pauses{Ms(0), Ms(10), Ms(50), Ms(200)};
};
inline constexpr size_t kMostDeaths =
    100;  // within death_window, or the keeper gives up; SIGKILLs do not count
inline constexpr size_t kMostEarlyKills =
    50;  // in a row of engines that have not served yet; more of them do

// Finds the listener that is held for a container; -1: none.
using FindListener = std::function<int(uint64_t container)>;

struct KeeperOptions {
  StarterOptions starter;
  KeeperPatience patience;
  // One line for whoever reads the log. Texts of an engine's are in it as they are: make them harmless.
  std::function<void(absl::string_view)> say;
  // Fails the calls that a journal names as in flight (FailCall), when there is no engine to finish them. May
  // be empty.
  std::function<void(int journal_fd, const FindListener&)> fail_in_flight;
};

// What the owner wants to hear. All may be empty. Called from HandleEvents(); they may call Hold(),
// Upgrade(), Reload(), Leave(), but not destroy the keeper.
struct KeeperEvents {
  std::function<void(uint64_t flags, std::string_view text)> ready;  // each time that an engine serves
  std::function<void(HoldingName, std::string_view text)> serving;
  // How an upgrade went: which engine has taken over from which, or why none has.
  std::function<void(const absl::StatusOr<std::string>&)> upgraded;
  // There will be no engine any more: OK after Leave(); otherwise the starter is gone, and the process should
  // end with an error, for somebody to start it again.
  std::function<void(const absl::Status&)> ended;
};

class Keeper {
 public:
  // Forks the starter: call it while the process has one thread, and before it confines itself. `manager` may
  // be null; else it outlives the keeper.
  static absl::StatusOr<std::unique_ptr<Keeper>> Create(KeeperOptions options, KeeperEvents events,
                                                        ServiceManager* manager);
  // Every engine is killed, the starter ends.
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Keeps `fds` (1 to kHoldingDescriptors) under a name, for all engines; gives them to one that runs.
  // ResourceExhausted: our descriptors are used up.
  absl::Status Hold(HoldingName name, std::vector<Fd> fds);
  // The same for what the service manager has kept already (stored_holdings.h).
  absl::Status HoldAdopted(HoldingName name, std::vector<Fd> fds);

  // Starts the first engine.
  void Begin();

  // Readable when HandleEvents() has something to do.
  int event_fd() const { return epoll_.get(); }
  void HandleEvents();

  // Lets the program that is installed now take over. Unavailable: not at this moment.
  absl::Status Upgrade();
  // Has the engine read its configuration again. An engine that is only starting reads it anyway.
  void Reload();
  // The orderly end, which the service manager is told of. events.ended follows.
  void Leave();

  const Holdings& holdings() const { return holdings_; }
  bool gave_up() const { return gave_up_; }
  bool upgrading() const { return upgrading_; }
  // The engine that serves, or is about to; 0: none.
  pid_t engine_pid() const { return engine_ == nullptr ? 0 : engine_->pid; }

 private:
  using Clock = EngineProcess::Clock;
  using Phase = EngineProcess::Phase;
  using Engine = std::unique_ptr<EngineProcess>;

  struct StartRequest {
    uint32_t sequence = 0;
    bool upgrade = false;
    Clock::time_point deadline;
  };

  Keeper(KeeperOptions options, KeeperEvents events, ServiceManager* manager, Starter starter);

  // keeper.cc: what comes in.
  void Dispatch(uint64_t source);
  void ReadStarter();
  void OnStarted(const StarterReport& report, std::vector<Fd> fds);
  void OnEnded(const StarterReport& report);
  EngineProcess* Find(uint64_t serial);
  void ReadLink(EngineProcess& engine);
  void ReadLastWords(EngineProcess& engine);
  void OnPacket(EngineProcess& engine, const KeeperPacket& packet, std::vector<Fd> fds, bool lost_fds);
  void OnHold(EngineProcess& engine, HoldingName name, std::vector<Fd> fds, bool lost_fds);
  void OnUpgradeWanted(EngineProcess& engine);
  void OnProcessEnd(EngineProcess& engine);
  std::shared_ptr<const Holding> Put(HoldingName name, std::vector<Fd> fds, bool stored);
  void Pass(const std::shared_ptr<const Holding>& holding, const EngineProcess* from);
  void Drop(HoldingName name);

  // keeper_course.cc: what follows from it.
  void Request(bool upgrade);
  void OnStartFailed(const std::string& why);
  void Introduce(EngineProcess& engine);
  void OnReady(EngineProcess& engine, const KeeperPacket& packet);
  void Lost(EngineProcess& engine, std::string why);
  void UpgradeFailed(const std::string& why);
  void Restart(bool served);
  void GiveUp();
  void BeginAnswering();
  void Advance();
  void AdvanceEngine(Clock::time_point now);
  void AdvanceUpgrade(Clock::time_point now);
  void Ping(EngineProcess& engine, Clock::time_point now);
  void StartServing(EngineProcess& engine, Clock::time_point now);
  bool NobodyElseActs(const EngineProcess* engine, Clock::time_point now) const;
  void Depart(Engine engine, Clock::time_point deadline);
  void Abandon(Engine& engine);
  void End(const absl::Status& status);
  void TellAlive(Clock::time_point now);
  bool OutOfPatience(EngineProcess& engine, Clock::time_point now);
  void Arm(Clock::time_point now);
  void Wake();
  void WatchManager();
  void Watch(EngineProcess& engine);
  void Unwatch(EngineProcess& engine);
  void CloseLink(EngineProcess& engine);
  void Say(absl::string_view text) const;

  KeeperOptions options_;
  KeeperEvents events_;
  ServiceManager* manager_;
  Starter starter_;
  Fd epoll_;
  Fd timer_;
  Holdings holdings_;

  Engine engine_;  // serves, or is to serve
  Engine next_;    // is to take over from engine_, which may meanwhile have died
  std::vector<Engine> departing_;
  uint64_t serials_ = 0;

  std::optional<StartRequest> request_;
  uint32_t requests_ = 0;
  std::optional<Clock::time_point> restart_at_;
  bool upgrading_ = false;  // from the request to success or failure
  size_t failures_ = 0;     // in a row, without one that served
  size_t early_kills_ = 0;  // the same, of those that somebody killed
  std::deque<Clock::time_point> deaths_;
  std::string last_end_;                         // how the last engine ended, for the log
  pid_t last_pid_ = 0;                           // which one, as long as only its status can tell why
  bool last_counted_ = false;                    // as one of failures_
  std::optional<Clock::time_point> down_since_;  // no engine serves

  bool gave_up_ = false;
  bool answering_ = false;
  StrandedCalls stranded_;

  bool leaving_ = false;
  bool ended_ = false;
  bool starter_silent_ = false;
  bool manager_watched_ = false;                 // for room in its socket
  std::optional<Clock::time_point> next_alive_;  // WATCHDOG=1
};

}  // namespace shunt
