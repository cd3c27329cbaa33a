// SPDX-License-Identifier: Apache-2.0
// Patience: how long a reactor waits for one target.
//
// A descriptor is installed by the target itself, so whoever asks for it waits until the target gets a CPU.
// One of the lowest priority beside a program that takes every CPU gets none for a second and more, and may
// be made so on purpose, a thousand times. So the wait ends after a millisecond or two: a timer signals the
// thread while it waits. The kernel then takes the request back, and nothing has happened.
//
// A target's memory is another thing to wait for: whoever reads it waits until a change of the target's
// mappings is over, and no signal but a fatal one ends that. So these waits have no bound, but are measured,
// and whoever causes them is charged for them like for the others. A read that took long because this thread
// got no CPU itself is nobody's fault. The kernel tells the two apart by how often the thread has gone to
// sleep, but asking costs more than the read, so it is asked only for a while after one that took long.
//
// The timer runs on while the thread is busy and stops itself when it has found it idle a few times: an
// installation costs no system call more, but the first after a pause.

#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>

namespace shunt {

class Patience {
 public:
  Patience() = default;
  ~Patience();
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

  // Bounds the waits of the calling thread. (If the kernel gives no timer, they stay without a bound.)
  void Start();
  // Whether there is anybody else whom a long wait could hurt.
  void Limit(bool limited);
  // True if the calling thread's waits are bounded.
  static bool Limited();
  // True if a signal of ours may come to the calling thread. Whoever is told false is not interrupted until
  // its next Wait.
  static bool MaySignal();
  // What waits have cost that were given up, or were long ones for memory, since somebody asked last.
  struct Stalls {
    uint32_t count = 0;
    int64_t nanoseconds = 0;
  };
  Stalls TakeStalls();

  // Lives while the calling thread waits for a target.
  class Wait {
   public:
    // kAlways: even if there is nobody whom it could hurt: what waits would wait for minutes, and who watches
    // over the engine would take it for dead.
    enum class Bound { kIfLimited, kAlways };
    explicit Wait(Bound bound = Bound::kIfLimited);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

    // After EINTR: true if it has been long enough.
    bool Over() const;
    // After EINTR: it has been long enough already.
    void GiveUp() const;

   private:
    Patience* const patience_;
  };

  // Lives while the calling thread reads or writes a target's memory.
  class Access {
   public:
    Access();
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    Patience* const patience_;
    int64_t begin_ = 0;
    int64_t sleeps_ = -1;  // of this thread until then; -1: not asked
  };

  // The longest wait is that many of these, in nanoseconds. One for memory that was shorter than one is free.
  static constexpr int64_t kTick = 1'000'000;
  static constexpr uint32_t kTicks = 2;

 private:
  static void OnTick(int signal);
  void SetTimer(int64_t interval_ns);

  timer_t timer_{};
  bool has_timer_ = false;
  bool limited_ = false;
  Stalls stalls_;
  int64_t suspicious_until_ = 0;  // accesses are looked at more closely; CLOCK_MONOTONIC
  // The thread's and its signal handler's.
  std::atomic<bool> waiting_{false}, running_{false};
  std::atomic<uint32_t> ticks_{0};
};

}  // namespace shunt
