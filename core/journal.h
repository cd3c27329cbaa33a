// SPDX-License-Identifier: Apache-2.0
// Journal: which calls an engine has received and not yet answered, and what it has done for each of them, in
// memory that outlives it.
//
// A notification that was received is answered by nobody else: if its engine dies, its caller hangs. So the
// kernel writes each one straight into a record in shared memory, there is no moment in which it is nowhere
// else, and a record is free again when the answer is out. A new engine reads what its predecessor has left:
// it answers what wanted nothing but the answer, goes on where a side effect has been begun, and begins anew
// where none has (Reactor::Resume). No step is taken twice that must not be taken twice, for each step is
// noted before it is taken, and whether it was taken can be seen in the target.
//
// Records are plain memory of a fixed size, written by one reactor's thread. A process that is killed leaves
// every store that it has made, in program order; so compiler barriers (relaxed and release atomics) do.
//
// tests/facts pins that RECV into shared memory is seen by whoever else maps it, and that a receiver killed
// in the middle of RECV leaves the notification in the record or with the kernel, never in neither.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/check.h"
#include "core/counters.h"
#include "core/fd.h"
#include "core/limits.h"
#include "core/notification.h"
#include "core/reply.h"

namespace shunt {

// How far the side effects of a call have come. The order of the values is the order of the steps.
enum class Stage : uint32_t {
  kReceived,     // there are none yet
  kBoundInside,  // the container's own socket, `number`, may have been bound to `address`
  kWithWorker,   // it lies on the desk `number` of the container's memory, which tells more (core/desk.h)
  kInstalling,   // another file may be under `number`: if so, its inode is not `inode` any more
  kStarting,     // it is there and nobody holds the old one; it may be connecting to `address`
  kAnswering,    // all is done, only the answer may not have arrived: `reply`
};

// One call. Everything but `received` belongs to the handler.
struct alignas(64) JournalRecord {
  NotificationRoom received;           // the id in there is 0 while the record is free
  std::atomic<uint64_t> listener = 0;  // the name of the listener that it came by (ServedListener::key)
  std::atomic<Stage> stage = Stage::kReceived;
  uint32_t resumed = 0;                 // how many engines have taken this call over
  int32_t number = -1;                  // the descriptor that the call is about
  int32_t flags = 0;                    // file status flags that its file shall have in the end
  uint64_t inode = 0;                   // of the file that was there first
  int64_t deadline_ns = 0;              // CLOCK_MONOTONIC; 0: none. When a call with a time limit is over.
  int64_t received_at = 0;              // CLOCK_MONOTONIC, ns; 0: nobody wants to know (core/middleware.h)
  std::array<std::byte, 28> address{};  // the peer, or what to bind to: a sockaddr
  uint32_t address_size = 0;
  Reply reply = Reply::Continue();

  // 0: the record is free.
  uint64_t id() const { return received.id(); }
  bool HasSideEffect() const { return stage.load(std::memory_order_relaxed) >= Stage::kWithWorker; }

  // Before the step that `now` names is taken.
  void Enter(Stage now) { stage.store(now, std::memory_order_release); }
  void NoteReply(Reply what) {
    reply = what;
    Enter(Stage::kAnswering);
  }
  void NoteAddress(std::span<const std::byte> bytes);

  // Ready for the next notification.
  void Clear() {
    received.Free();
    stage.store(Stage::kReceived, std::memory_order_relaxed);
    resumed = 0;
    deadline_ns = 0;
    received_at = 0;
  }
  // Takes a predecessor's call over. It is in both records for a moment: whoever comes to the second finds
  // that the call has been answered.
  void TakeOver(JournalRecord& left);
};

// The records of one reactor that are free. Its thread only.
class FreeRecords {
 public:
  explicit FreeRecords(std::span<JournalRecord> records);
  // There is always one: see Journal::kRecordsPerReactor.
  JournalRecord& Take() {
    SHUNT_CHECK(count_ > 0);
    return *free_[--count_];
  }
  void Give(JournalRecord& record) {
    record.Clear();
    free_[count_++] = &record;
  }

 private:
  std::unique_ptr<JournalRecord*[]> free_;
  size_t count_ = 0;
};

// One engine's records and counters. Control thread, except for what it hands out.
class Journal {
 public:
  // One for each task that can wait, and one for the call that is being handled.
  static constexpr size_t kRecordsPerReactor = limits::kTaskSlots + 1;

  // A new one. All its pages are there, so that the kernel never fails to write a notification into them.
  static absl::StatusOr<std::unique_ptr<Journal>> Create(size_t reactors);
  // A predecessor's. InvalidArgument: it is none, or one of another layout.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(Fd file);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  int fd() const { return file_.get(); }
  size_t reactors() const { return reactors_; }
  std::span<JournalRecord> records(size_t reactor) const;
  Counters& counters(size_t reactor) const;
  // What engines before this one have counted.
  Counters& inherited() const;

  // The records that are in use. Only where no reactor writes any more.
  std::vector<JournalRecord*> Unanswered() const;

 private:
  struct Header;
  struct Part;

  Journal(Fd file, void* memory, size_t bytes, size_t reactors)
      : file_(std::move(file)), memory_(memory), bytes_(bytes), reactors_(reactors) {}
  static size_t BytesFor(size_t reactors);
  Header& header() const;
  Part& part(size_t reactor) const;

  Fd file_;
  void* memory_;
  size_t bytes_;
  size_t reactors_;
};

}  // namespace shunt
