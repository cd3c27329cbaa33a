// SPDX-License-Identifier: Apache-2.0
#include "core/reactor.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/confinement.h"
#include "core/middleware.h"

namespace shunt {
namespace {

// What a completion is about: a pointer whose lowest bits say to what.
enum class Tag : uint64_t {
  kListener = 0,
  kOperation = 1,
  kMailbox = 2,
  kBench = 3,
  kIgnored = 4,
  kRested = 5,
};
constexpr uint64_t kTagMask = 7;

uint64_t Pack(const void* pointer, Tag tag) {
  return reinterpret_cast<uint64_t>(pointer) | static_cast<uint64_t>(tag);
}

template <typename T>
T& Unpack(uint64_t packed) {
  return *reinterpret_cast<T*>(packed & ~kTagMask);
}

// A helper that finds nothing this many times in a row has nothing to help with any more.
constexpr uint32_t kHelpEndsAfter = 8;

bool IsReadable(int listener_fd) {
  pollfd listener{.fd = listener_fd, .events = POLLIN};
  return poll(&listener, 1, 0) == 1 && (listener.revents & POLLIN) != 0;
}

__kernel_timespec ToTimespec(int64_t nanoseconds) {
  return {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
}

}  // namespace

Reactor::Reactor(Config config)
    : config_(std::move(config)),
      records_(config_.journal->records(static_cast<size_t>(config_.index))),
      counters_(config_.journal->counters(static_cast<size_t>(config_.index))) {
  config_.bench->Connect(mailbox_, *config_.control);
}

// The bench's threads may still be at work for tasks whose frames lie in our slots: it goes before them.
Reactor::~Reactor() {
  Stop();
  config_.bench.reset();
}

absl::Status Reactor::Start() {
  std::atomic<int> started{-1};
  absl::Status failure = absl::OkStatus();
  // The ring must be made on the thread that uses it (SINGLE_ISSUER); its error comes back through `failure`,
  // which is written before `started`.
  thread_ = std::thread([this, &started, &failure] {
    std::array<char, 16> name;
    std::snprintf(name.data(), name.size(), "shunt-%d", config_.index);
    pthread_setname_np(pthread_self(), name.data());
    KeepCapabilities(EngineThread::kReactor).IgnoreError();  // ConfineEngine() finds out and says so
    if (config_.cpu >= 0) {
      cpu_set_t cpus;
      CPU_ZERO(&cpus);
      CPU_SET(static_cast<size_t>(config_.cpu), &cpus);
      sched_setaffinity(0, sizeof(cpus), &cpus);  // best effort: a CPU may have been taken away meanwhile
    }
    absl::StatusOr<Ring> ring = Ring::Create(limits::kRingEntries, limits::kRingCompletions);
    if (!ring.ok()) {
      failure = ring.status();
      started.store(0);
      started.notify_one();
      return;
    }
    ring_ = std::make_unique<Ring>(std::move(*ring));
    defers_task_work_ = ring_->defers_task_work();
    patience_.Start();
    if (config_.on_thread_start) config_.on_thread_start();
    Run(&started);
    if (config_.on_thread_stop) config_.on_thread_stop();
    ring_.reset();
  });
  started.wait(-1);
  if (started.load() == 0) {
    thread_.join();
    return failure;
  }
  return absl::OkStatus();
}

void Reactor::AskToStop() {
  if (!thread_.joinable() || stop_.context != nullptr) return;
  stop_ = {.deliver = [](Message& self) { self.about<Reactor>().stopping_ = true; }, .context = this};
  mailbox_.Push(&stop_);
}

void Reactor::Stop() {
  if (!thread_.joinable()) return;
  AskToStop();
  thread_.join();
}

void Reactor::Add(ServedListener& served, Reactor* helper) {
  served.main.reactor = this;
  served.dispatch = served.guest->dispatch() != nullptr ? served.guest->dispatch() : config_.dispatch;
  served.middleware = served.guest->middleware();
  served.helper.reactor = helper;
  served.add = {.deliver =
                    [](Message& self) {
                      auto& added = self.about<ServedListener>();
                      added.main.reactor->Count(+1);
                      added.main.reactor->Resume(added);
                      added.main.reactor->Arm(added.main);
                    },
                .context = &served};
  mailbox_.Push(&served.add);
}

void Reactor::CloseInBackground(Fd fd) {
  ring_->Close(fd.release(), Pack(nullptr, Tag::kIgnored));
}

void Reactor::Run(std::atomic<int>* started) {
  std::array<Completion, limits::kCompletionsPerTurn> completions;
  ring_->PollOnce(mailbox_.event_fd(), POLLIN, Pack(nullptr, Tag::kMailbox));
  if (config_.bench->wake_fd() >= 0)
    ring_->PollOnce(config_.bench->wake_fd(), POLLIN, Pack(nullptr, Tag::kBench));
  started->store(1);
  started->notify_one();
  while (!stopping_) {
    const size_t count = ring_->Turn(/*wait=*/true, completions);
    // A seat with a completion that has not been acted upon is still there in the second pass.
    std::array<const Completion*, limits::kCompletionsPerTurn> last;
    size_t last_count = 0;
    for (const Completion& completion : std::span(completions).first(count)) {
      if (ComesLast(completion)) {
        last[last_count++] = &completion;
      } else {
        Complete(completion);
      }
    }
    for (const Completion* completion : std::span(last).first(last_count)) Complete(*completion);
    ++turn_;
  }
}

// Whoever was served in the turn before, and whom we only help.
bool Reactor::ComesLast(const Completion& completion) const {
  if (static_cast<Tag>(completion.tag & kTagMask) != Tag::kListener) return false;
  const Seat& seat = Unpack<Seat>(completion.tag);
  return seat.served_in + 1 == turn_ || &seat == &seat.served->helper;
}

void Reactor::Complete(const Completion& completion) {
  switch (static_cast<Tag>(completion.tag & kTagMask)) {
    case Tag::kListener:
      Serve(Unpack<Seat>(completion.tag), completion.result);
      break;
    case Tag::kOperation: {
      auto& operation = Unpack<Operation>(completion.tag);
      if (operation.link != nullptr) {
        *operation.link = operation.next;
        if (operation.next != nullptr) operation.next->link = operation.link;
      }
      operation.result = completion.result;
      operation.waiter.resume();
      break;
    }
    case Tag::kMailbox:
      mailbox_.Deliver();
      ring_->PollOnce(mailbox_.event_fd(), POLLIN, Pack(nullptr, Tag::kMailbox));
      break;
    case Tag::kBench:
      config_.bench->OnWake();
      ring_->PollOnce(config_.bench->wake_fd(), POLLIN, Pack(nullptr, Tag::kBench));
      break;
    case Tag::kRested: {
      Seat& seat = Unpack<Seat>(completion.tag);
      if (completion.result > 0) {
        Serve(seat, completion.result);
      } else {
        Arm(seat);
      }
      break;
    }
    case Tag::kIgnored:
      break;
  }
}

// One notification of one listener: the whole hot path but the handler.
void Reactor::Serve(Seat& seat, int32_t poll_result) {
  if (seat.ended) return;
  if (poll_result < 0 || (poll_result & (POLLIN | POLLHUP)) == 0) {
    Arm(seat);  // POLLERR was seen under contention on rings without DEFER_TASKRUN: look again
    return;
  }
  if ((poll_result & POLLIN) == 0) {
    End(seat);
    return;
  }
  ServedListener& served = *seat.served;
  JournalRecord& record = records_.Take();
  record.listener.store(served.owner, std::memory_order_relaxed);
  const bool is_main = &seat == &served.main;
  Result<Notification> notification = Fail(ENOENT);
  if (is_main && !served.shared) {
    notification = served.listener.Receive(record.received);
  } else if (!ReceiveShared(seat, record, notification)) {
    records_.Give(record);
    return;
  }
  if (!notification) {
    // ENOENT: killed between the poll and us. The next poll tells what is left.
    records_.Give(record);
    counters_.Add(Counter::gone);
    Arm(seat);
    return;
  }
  if (served.middleware != nullptr) [[unlikely]]
    record.received_at = MonotonicNow();
  counters_.Add(Counter::received);
  seat.served_in = turn_;
  seat.calls.store(seat.calls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (is_main) {
    if (notification->tid != served.last_tid && !served.shared && served.helper.reactor != nullptr &&
        IsReadable(served.listener.fd())) {
      AskForHelp(served);
    }
    served.last_tid = notification->tid;
  }
  Handle(seat, *notification, record);
  Arm(seat);
}

void Reactor::Handle(Seat& seat, const Notification& notification, JournalRecord& record) {
  ServedListener& served = *seat.served;
  const bool is_main = &seat == &served.main;
  Call call{
      .notification = notification,
      .reactor = *this,
      .seat = seat,
      .place = is_main ? size_t{0} : size_t{1},
      .alone = is_main && !served.shared && seat.slots_held == 0,
      .listener = served.listener,
      .guest = *served.guest,
      .bench = *config_.bench,
      .counters = counters_,
      .owner = served.owner,
      .targets = targets_,
      .record = record,
  };
  const Handler handler = served.dispatch->Find(notification.arch, notification.nr);
  Reply reply = handler != nullptr ? handler(call) : Reply::Continue();
  Settle(seat);
  if (reply.kind() == Reply::Kind::kAgain) reply = PutOff(call, reply);
  if (reply.kind() != Reply::Kind::kLater) Answer(served, record, reply);
}

// Finishes what an engine before this one has left. Before the first poll: a restarted call must find it
// done.
void Reactor::Resume(ServedListener& served) {
  for (JournalRecord* const left : served.left_behind) ResumeOne(served, *left);
  if (!served.left_behind.empty()) config_.control->Push(&served.resumed);
}

void Reactor::ResumeOne(ServedListener& served, JournalRecord& left) {
  if (!served.listener.StillValid(left.id())) {
    served.guest->LeftBehind(left);
    left.Clear();
    counters_.Add(Counter::gone);
    return;
  }
  JournalRecord& record = records_.Take();
  record.TakeOver(left);
  counters_.Add(Counter::resumed);
  if (record.stage.load(std::memory_order_relaxed) == Stage::kAnswering) {
    Answer(served, record, record.reply);
  } else if (record.resumed > limits::kResumptions) {
    // Every engine that touched it has died of it.
    Answer(served, record, Reply::Fail(EIO));
  } else {
    Handle(served.main, record.received.Read(), record);
  }
}

// Receives from a listener of which another reactor receives as well. False: there is nothing (any more), and
// the seat has been armed again or left.
bool Reactor::ReceiveShared(Seat& seat, JournalRecord& record, Result<Notification>& notification) {
  ServedListener& served = *seat.served;
  if (served.receiving.test_and_set(std::memory_order_acquire)) {
    Arm(seat);  // the other one is about to take it, or one of several
    return false;
  }
  const bool readable = IsReadable(served.listener.fd());
  if (readable) notification = served.listener.Receive(record.received);
  served.receiving.clear(std::memory_order_release);
  if (&seat == &served.helper) {
    served.found_nothing = readable ? 0 : served.found_nothing + 1;
    // Not while a task waits here: it needs the listener's end to be noticed.
    if (served.found_nothing >= kHelpEndsAfter && seat.slots_held == 0) {
      seat.ended = true;
      GiveBackIfUnused(seat);
      return false;
    }
  }
  if (!readable) Arm(seat);
  return readable;
}

void Reactor::AskForHelp(ServedListener& served) {
  served.shared = true;  // before the other one can receive
  served.ask = {.deliver =
                    [](Message& self) {
                      auto& asked = self.about<ServedListener>();
                      asked.helper.reactor->Help(asked);
                    },
                .context = &served};
  served.helper.reactor->Post(served.ask);
}

// On the helper's thread.
void Reactor::Help(ServedListener& served) {
  Count(+1);
  served.found_nothing = 0;
  served.helper.ended = false;
  Arm(served.helper);
}

// The one exit of every call.
void Reactor::Answer(const ServedListener& served, JournalRecord& record, Reply reply) {
  if (reply.kind() == Reply::Kind::kContinue) counters_.Add(Counter::continued);
  bool answered = reply.kind() != Reply::Kind::kGone;
  if (answered && reply.kind() != Reply::Kind::kSent) {
    const Stage reached = record.stage.load(std::memory_order_relaxed);
    record.NoteReply(reply);
    answered = served.listener.Send(record.id(), reply).has_value();
    if (!answered && reached != Stage::kReceived) {
      served.guest->Unanswered(record, reached, targets_.Find(served.owner, record.received.Read().tid),
                               reply);
    }
  }
  counters_.Add(answered ? Counter::answered : Counter::gone);
  if (served.middleware != nullptr && answered) [[unlikely]]
    Tell(served, record, reply);
  records_.Give(record);
}

// After the answer, so that the caller does not wait for it.
void Reactor::Tell(const ServedListener& served, const JournalRecord& record, Reply reply) const {
  if (record.received_at == 0) return;  // by an engine that did not look at the clock
  const Notification notification = record.received.Read();
  const AnsweredCall call{.notification = notification,
                          .error = reply.error(),
                          .nanoseconds = MonotonicNow() - record.received_at,
                          .reactor = static_cast<size_t>(config_.index)};
  for (Middleware* link = served.middleware; link != nullptr; link = link->next) link->Answered(call);
}

void Reactor::Count(int more) {
  listeners_ += static_cast<size_t>(more);
  patience_.Limit(listeners_ > 1);
}

// Charges a container with the waits for its targets that have just been given up, or were long.
void Reactor::Settle(Seat& seat) {
  const Patience::Stalls stalls = patience_.TakeStalls();
  if (stalls.count == 0) return;
  for (uint32_t i = 0; i < stalls.count; ++i) counters_.Add(Counter::stalled);
  seat.settled_at = std::max(seat.settled_at, MonotonicNow()) + stalls.nanoseconds * limits::kStallShare;
}

// How long nothing shall be begun for it, in nanoseconds.
int64_t Reactor::RestFrom(const Seat& seat) {
  if (seat.settled_at == 0) return 0;
  return std::max<int64_t>(0, seat.settled_at - MonotonicNow() - limits::kStallBurst * limits::kStallShare);
}

// Of all that wait for the same rest to be over, the first one may begin the next.
int64_t Reactor::RestOf(Seat& seat) {
  Settle(seat);
  return RestFrom(seat);
}

Reply Reactor::PutOff(Call& call, Reply again) {
  call.record.Enter(Stage::kReceived);
  return shunt::Start(TryAgain(call), /*if_no_slot=*/again.otherwise());
}

// A call whose target got no CPU: from the beginning, when it is its container's turn again.
Task Reactor::TryAgain(Call call) {
  Reply reply = Reply::Again();
  for (uint32_t i = 0; i < limits::kStallsPerCall && !call.seat.ended; ++i) {
    for (int64_t rest = kBreath; rest > 0 && !call.seat.ended; rest = call.reactor.RestOf(call.seat))
      co_await Pause(call, rest);
    call.alone = false;
    const Handler handler = call.seat.served->dispatch->Find(call.notification.arch, call.notification.nr);
    reply = handler(call);
    if (reply.kind() != Reply::Kind::kAgain) co_return reply;
    call.reactor.Settle(call.seat);
  }
  co_return reply.otherwise();
}

void Reactor::Arm(Seat& seat) {
  if (const int64_t rest = RestFrom(seat); rest > 0) {
    seat.rest = ToTimespec(rest);
    // A rest may last for minutes; the listener's end, which needs no asking for, is noticed all the same.
    ring_->PollWithTimeout(seat.served->listener.fd(), 0, &seat.rest, Pack(&seat, Tag::kRested),
                           Pack(nullptr, Tag::kIgnored));
    return;
  }
  ring_->PollOnce(seat.served->listener.fd(), POLLIN, Pack(&seat, Tag::kListener));
}

// The last task under the filter is gone. Tasks that wait on behalf of its calls are cancelled; the last of
// them gives the listener back.
void Reactor::End(Seat& seat) {
  seat.ended = true;
  targets_.Forget(seat.served->owner);
  config_.bench->Forget(*seat.served->guest);
  for (Operation* operation = seat.operations; operation != nullptr; operation = operation->next) {
    ring_->Cancel(Pack(operation, Tag::kOperation), Pack(nullptr, Tag::kIgnored));
  }
  GiveBackIfUnused(seat);
}

// The helper gives the listener back to its main reactor, that gives it back to the control thread: each when
// it has ended here and nothing holds it.
void Reactor::GiveBackIfUnused(Seat& seat) {
  if (!seat.ended || seat.slots_held != 0) return;
  ServedListener& served = *seat.served;
  targets_.Forget(served.owner);  // once more: tasks that were under way may have looked at their callers
  if (&seat == &served.main) {
    if (served.shared) return;
    Count(-1);
    config_.control->Push(&served.gone);
    return;
  }
  Count(-1);
  served.left = {.deliver =
                     [](Message& self) {
                       auto& left = self.about<ServedListener>();
                       left.shared = false;
                       left.main.reactor->GiveBackIfUnused(left.main);
                     },
                 .context = &served};
  served.main.reactor->Post(served.left);
}

namespace task_internal {

// The slot begins with its reactor and listener, so that a frame can be given back without being asked for
// its call.
struct SlotHead {
  Reactor* reactor;
  Seat* seat;
};
constexpr size_t kHeadBytes = 16;
static_assert(sizeof(SlotHead) <= kHeadBytes);

void* TakeSlot(Call& call, size_t bytes) {
  void* const slot = call.reactor.slots_.Take(bytes + kHeadBytes, call.seat.slots_held);
  if (slot == nullptr) {
    call.counters.Add(Counter::no_slot);
    return nullptr;
  }
  call.counters.Add(Counter::waits_begun);
  call.record.resumed = std::min(call.record.resumed, 1u);  // who gets as far as this is not dying of it
  new (slot) SlotHead{.reactor = &call.reactor, .seat = &call.seat};
  return static_cast<std::byte*>(slot) + kHeadBytes;
}

void GiveSlot(void* frame) {
  void* const slot = static_cast<std::byte*>(frame) - kHeadBytes;
  const SlotHead head = *static_cast<SlotHead*>(slot);
  head.reactor->slots_.Give(slot);
  head.reactor->counters_.Add(Counter::waits_ended);
  head.reactor->GiveBackIfUnused(*head.seat);
}

void Finish(Call& call, Reply reply) {
  if (reply.kind() == Reply::Kind::kLater) return;
  call.reactor.Settle(call.seat);
  if (reply.kind() == Reply::Kind::kAgain) reply = call.reactor.PutOff(call, reply);
  if (reply.kind() == Reply::Kind::kLater) return;
  call.reactor.Answer(*call.seat.served, call.record, reply);
}

}  // namespace task_internal

namespace {

// Among what is cancelled when the listener ends.
void Enlist(Call& call, Operation& operation) {
  operation.next = call.seat.operations;
  operation.link = &call.seat.operations;
  if (operation.next != nullptr) operation.next->link = &operation.next;
  call.seat.operations = &operation;
}

}  // namespace

void PollFd::await_suspend(std::coroutine_handle<> waiter) {
  operation_.waiter = waiter;
  Enlist(call_, operation_);
  const uint64_t tag = Pack(&operation_, Tag::kOperation);
  if (timeout_ns_ > 0) {
    timeout_ = ToTimespec(timeout_ns_);
    call_.reactor.ring_->PollWithTimeout(fd_, events_, &timeout_, tag, Pack(nullptr, Tag::kIgnored));
  } else {
    call_.reactor.ring_->PollOnce(fd_, events_, tag);
  }
  if (call_.seat.ended) call_.reactor.ring_->Cancel(tag, Pack(nullptr, Tag::kIgnored));
}

void PollFd::Stop() {
  call_.reactor.ring_->Cancel(Pack(&operation_, Tag::kOperation), Pack(nullptr, Tag::kIgnored));
}

void Pause::await_suspend(std::coroutine_handle<> waiter) {
  operation_.waiter = waiter;
  timeout_ = ToTimespec(nanoseconds_);
  Enlist(call_, operation_);
  call_.reactor.ring_->Timer(&timeout_, Pack(&operation_, Tag::kOperation));
}

void Pause::Stop() {
  call_.reactor.ring_->Cancel(Pack(&operation_, Tag::kOperation), Pack(nullptr, Tag::kIgnored));
}

void OnControl::await_suspend(std::coroutine_handle<> waiter) {
  job_.waiter = waiter;
  job_.reactor = &call_.reactor;
  job_.there = {.deliver =
                    [](Message& self) {
                      auto& job = self.about<ControlJob>();
                      job.Run();
                      job.reactor->Post(job.back);
                    },
                .context = &job_};
  job_.back = {.deliver = [](Message& self) { self.about<ControlJob>().waiter.resume(); }, .context = &job_};
  call_.reactor.config_.control->Push(&job_.there);
}

}  // namespace shunt
