// SPDX-License-Identifier: Apache-2.0
// What the keeper does about what has come in (keeper.cc): starts, losses, upgrades, giving up, deadlines.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/keeper.h"
#include "tools/stored_holdings.h"

namespace shunt {
namespace {

// Packets that an engine may leave unread, beside one for each holding.
constexpr size_t kMostUnread = 256;

}  // namespace

// ---- starts

void Keeper::Request(bool upgrade) {
  request_ = StartRequest{
      .sequence = ++requests_, .upgrade = upgrade, .deadline = Clock::now() + options_.patience.start};
  // What cannot be sent is not answered, and that is noticed.
  (void)starter_.Send({.kind = upgrade ? StarterRequest::Kind::kStartNew : StarterRequest::Kind::kStart,
                       .sequence = request_->sequence});
}

void Keeper::OnStartFailed(const std::string& why) {
  const bool upgrade = request_->upgrade;
  request_.reset();
  if (upgrade) return UpgradeFailed(why);
  last_end_ = why;
  last_pid_ = 0;
  Restart(/*served=*/false);
}

void Keeper::Introduce(EngineProcess& engine) {
  for (const auto& [name, holding] : holdings_.all()) {
    engine.Send(MakePacket(KeeperMessage::kGive, name), holding);
  }
  engine.Send(KeeperMessage::kGiven);
}

void Keeper::StartServing(EngineProcess& engine, Clock::time_point now) {
  if (answering_) stranded_.End();
  answering_ = false;
  engine.Send(KeeperMessage::kStart);
  engine.phase = Phase::kStarted;
  engine.deadline = now + options_.patience.recover;
}

void Keeper::OnReady(EngineProcess& engine, const KeeperPacket& packet) {
  const Clock::time_point now = Clock::now();
  engine.phase = Phase::kReady;
  engine.next_ping = now + options_.patience.ping;
  failures_ = 0;
  early_kills_ = 0;
  gave_up_ = false;
  std::string upgraded;
  if (&engine == next_.get()) {
    (void)starter_.Send({.kind = StarterRequest::Kind::kKeepNew});
    upgrading_ = false;
    Engine old = std::exchange(engine_, std::move(next_));
    upgraded = absl::StrCat("engine ", engine.pid, " has taken over",
                            old == nullptr ? std::string() : absl::StrCat(" from ", old->pid));
    if (old != nullptr) {
      old->Send(KeeperMessage::kUpgradeDone);
      CloseLink(*old);
      Depart(std::move(old), now + options_.patience.dismiss);
    }
  } else if (down_since_) {
    const auto down = std::chrono::duration_cast<std::chrono::milliseconds>(now - *down_since_);
    Say(absl::StrCat(last_end_, "; engine ", engine.pid, " serves, ", down.count(), " ms later"));
  }
  down_since_.reset();
  if (events_.ready) events_.ready(packet.value, packet.text_view());
  if (!upgraded.empty() && events_.upgraded) events_.upgraded(upgraded);
}

// ---- losses

// It has ended, or it has to.
void Keeper::Lost(EngineProcess& engine, std::string why) {
  const bool successor = &engine == next_.get();
  if (&engine != engine_.get() && !successor) return;  // expected; it has a deadline
  const Clock::time_point now = Clock::now();
  engine.Kill(now);
  if (why.empty()) why = engine.failure;
  last_pid_ = why.empty() ? engine.pid : 0;  // then its status will say more
  last_end_ = absl::StrCat("engine ", engine.pid, why.empty() ? " ended" : ": ", why);
  const bool served = engine.phase >= Phase::kReady;
  Depart(std::move(successor ? next_ : engine_), Clock::time_point::max());
  if (successor) {
    UpgradeFailed(std::string(last_end_));
  } else if (upgrading_) {
    down_since_ = now;  // its successor is on the way
  } else {
    Restart(served);
  }
}

// There is no successor. If the old engine has stopped already, it is of no use any more.
void Keeper::UpgradeFailed(const std::string& why) {
  upgrading_ = false;
  Say(absl::StrCat("the upgrade failed: ", why));
  if (engine_ != nullptr && engine_->phase == Phase::kReady) {
    engine_->Send(MakePacket(KeeperMessage::kUpgradeFailed, {}, 0, why));
  } else {
    if (engine_ != nullptr) Abandon(engine_);
    Restart(/*served=*/true);
  }
  if (events_.upgraded) events_.upgraded(absl::UnavailableError(why));
}

void Keeper::Restart(bool served) {
  const Clock::time_point now = Clock::now();
  if (!down_since_) down_since_ = now;
  last_counted_ = !served;
  if (!served) ++failures_;
  deaths_.push_back(now);
  while (now - deaths_.front() > options_.patience.death_window) deaths_.pop_front();
  if (failures_ > options_.patience.pauses.size() || deaths_.size() > kMostDeaths) return GiveUp();
  restart_at_ = now;
  if (failures_ > 0) *restart_at_ += options_.patience.pauses[failures_ - 1];
}

void Keeper::GiveUp() {
  if (!gave_up_) {
    Say(absl::StrCat("no engine stays alive (the last: ", last_end_,
                     "); until one does, the containers' trapped calls fail with EIO. Next attempt in ",
                     std::chrono::duration_cast<std::chrono::seconds>(options_.patience.give_up).count(),
                     " s"));
  }
  gave_up_ = true;
  failures_ = options_.patience.pauses.size();  // the next one that fails is one too many again
  deaths_.clear();
  restart_at_ = Clock::now() + options_.patience.give_up;
}

void Keeper::BeginAnswering() {
  answering_ = true;
  const FindListener find = [this](uint64_t container) {
    const auto found = holdings_.all().find({HoldingTag::kContainer, container});
    return found == holdings_.all().end() ? -1 : found->second->fds().front();
  };
  for (const auto& [name, holding] : holdings_.all()) {
    if (name.tag == HoldingTag::kContainer) stranded_.Add(*holding);
    if (name.tag == HoldingTag::kJournal && options_.fail_in_flight) {
      options_.fail_in_flight(holding->fds().front(), find);
    }
  }
}

void Keeper::Depart(Engine engine, Clock::time_point deadline) {
  engine->deadline = deadline;
  departing_.push_back(std::move(engine));
}

// Ends the old engine of an upgrade that failed too late.
void Keeper::Abandon(Engine& engine) {
  const Clock::time_point now = Clock::now();
  if (engine->phase == Phase::kStopped) {
    CloseLink(*engine);
  } else {
    engine->Kill(now);
  }
  Depart(std::move(engine), now + options_.patience.dismiss);
}

void Keeper::End(const absl::Status& status) {
  const Clock::time_point now = Clock::now();
  for (Engine* engine : {&engine_, &next_}) {
    if (*engine == nullptr) continue;
    (*engine)->Kill(now);
    Depart(std::move(*engine), now);
  }
  restart_at_.reset();
  request_.reset();
  upgrading_ = false;
  if (std::exchange(ended_, true)) return;
  if (events_.ended) events_.ended(status);
}

// ---- deadlines, and what waited for somebody else

void Keeper::Advance() {
  const Clock::time_point now = Clock::now();
  for (const Engine& engine : departing_) {
    if (now >= engine->deadline) engine->Kill(now);
    if (engine->queue.descriptors_stuck() && engine->link.valid()) engine->queue.Flush(engine->link.get());
  }
  if (ended_) return;
  TellAlive(now);
  if (leaving_) {
    if (departing_.empty()) End(absl::OkStatus());
    return;
  }
  if (request_ && now >= request_->deadline) {
    starter_silent_ = true;
    OnStartFailed("the process that starts engines does not answer");
  }
  AdvanceEngine(now);
  AdvanceUpgrade(now);
  if (gave_up_ && !answering_ && engine_ == nullptr && NobodyElseActs(nullptr, now)) BeginAnswering();
  if (restart_at_ && now >= *restart_at_ && !request_) {
    restart_at_.reset();
    Request(/*upgrade=*/false);
  }
}

// True: the engine is lost.
bool Keeper::OutOfPatience(EngineProcess& engine, Clock::time_point now) {
  if (engine.queue.descriptors_stuck()) engine.queue.Flush(engine.link.get());
  if (engine.queue.size() > holdings_.all().size() + kMostUnread) {
    Lost(engine, "does not read what it is told");
    return true;
  }
  if (!engine.HasDeadline() || now < engine.deadline) return false;
  Lost(engine,
       engine.phase == Phase::kStopping ? "did not stop for its successor" : "did not get ready in time");
  return true;
}

void Keeper::AdvanceEngine(Clock::time_point now) {
  if (engine_ == nullptr || OutOfPatience(*engine_, now)) return;
  if (engine_->phase == Phase::kPrepared && NobodyElseActs(engine_.get(), now)) StartServing(*engine_, now);
  if (engine_->phase == Phase::kReady && now >= engine_->next_ping) Ping(*engine_, now);
}

void Keeper::AdvanceUpgrade(Clock::time_point now) {
  if (next_ == nullptr || OutOfPatience(*next_, now) || next_->phase != Phase::kPrepared) return;
  if (engine_ != nullptr && engine_->phase == Phase::kReady) {
    engine_->Send(KeeperMessage::kStop);
    engine_->phase = Phase::kStopping;
    engine_->deadline = now + options_.patience.stop;
  }
  if (NobodyElseActs(next_.get(), now)) StartServing(*next_, now);
}

// Counts pings and not time: if everything here was frozen for a while, nobody is to blame.
void Keeper::Ping(EngineProcess& engine, Clock::time_point now) {
  const auto most_unanswered = static_cast<uint64_t>(options_.patience.pong / options_.patience.ping);
  if (engine.pings - engine.answered >= most_unanswered) return Lost(engine, "does not answer");
  engine.Send(MakePacket(KeeperMessage::kPing, {}, ++engine.pings));
  engine.next_ping = now + options_.patience.ping;
}

// Who was killed runs no instruction of his own any more, even if the kernel cannot end him yet, for example
// because he waits for memory that somebody serves and does not.
bool Keeper::NobodyElseActs(const EngineProcess* engine, Clock::time_point now) const {
  const auto acts = [&](const Engine& other) {
    if (other == nullptr || other.get() == engine || !other->MayAct()) return false;
    return !other->killed || now - other->killed_at < options_.patience.unkillable;
  };
  return !acts(engine_) && !acts(next_) && std::none_of(departing_.begin(), departing_.end(), acts);
}

// As long as this loop turns. A silent starter is the one thing that only a new start of everything mends.
void Keeper::TellAlive(Clock::time_point now) {
  if (!next_alive_ || now < *next_alive_) return;
  if (!starter_silent_) manager_->Alive();
  next_alive_ = now + *manager_->watchdog() / 2;
}

void Keeper::Say(absl::string_view text) const {
  if (options_.say) options_.say(text);
}

}  // namespace shunt
