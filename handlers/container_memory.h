// SPDX-License-Identifier: Apache-2.0
// ContainerMemory: what must be known of a container and that no look at the kernel can tell, in memory that
// outlives the engine.
//
// It is a memfd that is held beside the container's listener. A new engine finds in it what the operator
// wants, what has been learnt of the container's network, and what its calls have left behind: that sockets
// of it were moved, which of them have rare options, which ports its listeners have on the host. Written by
// the container's reactors through atomics; a killed writer leaves every store that it has made.

#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/limits.h"
#include "core/reply.h"
#include "handlers/accelerator.h"
#include "handlers/workers.h"
#include "net/aimed_flows.h"
#include "net/option_marks.h"
#include "net/peer_names.h"
#include "net/sock_addr.h"

namespace shunt {

// Answers that did not arrive because a signal took the caller out of the call. If the kernel restarts the
// call it comes as a new one, for a descriptor whose file has been exchanged already; it gets the answer
// then. A call that is about no file has a name in an inode's place (Container::NameOf).
class LostReplies {
 public:
  // `inode` is of the file that is under the call's descriptor now.
  void Note(pid_t tid, uint64_t inode, Reply reply);
  // The answer that this thread missed for this file, once.
  std::optional<Reply> Take(pid_t tid, uint64_t inode);

 private:
  // Under a lock because two reactors may be here; rarely, and nobody waits inside. A lock that a killed
  // engine held would stay: the next one begins with BeginAnew().
  friend class ContainerMemory;
  static constexpr size_t kPlaces = 64;
  struct Place {
    pid_t tid = 0;
    Reply reply = Reply::Continue();
    uint64_t inode = 0;
  };
  void Lock() {
    while (busy_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void Unlock() { busy_.clear(std::memory_order_release); }

  std::atomic_flag busy_;
  std::atomic<uint32_t> count_ = 0;
  uint32_t next_ = 0;
  std::array<Place, kPlaces> places_;
};

// Calls that wait until a certain time, by the threads that make them. A signal takes a thread out of its
// call, and if the kernel restarts that it comes as a new one: it waits for what is left, not anew.
class Deadlines {
 public:
  struct Caller {
    pid_t tid = 0;
    uint64_t birth = 0;  // tells it from a later thread of the same number
    friend bool operator==(const Caller&, const Caller&) = default;
  };
  // The deadline (CLOCK_MONOTONIC, ns) of the wait that this caller has begun and not ended; or else begins
  // one that ends `then`.
  int64_t Begin(const Caller& caller, int64_t then);
  // The wait is over.
  void End(const Caller& caller);

 private:
  friend class ContainerMemory;  // as in LostReplies
  static constexpr size_t kPlaces = 2 * limits::kTaskSlotsPerListener;
  struct Place {
    Caller caller;
    int64_t deadline = 0;
  };
  void Lock() {
    while (busy_.test_and_set(std::memory_order_acquire)) {
    }
  }
  void Unlock() { busy_.clear(std::memory_order_release); }

  std::atomic_flag busy_;
  uint32_t next_ = 0;
  std::array<Place, kPlaces> places_{};
};

// What is known of one published port.
struct PortMemory {
  static constexpr size_t kListeners = 64;
  enum Family : size_t { kV4, kV6, kFamilies };

  // A SO_REUSEPORT group of the container's has it: a guard was bound.
  std::array<std::atomic<bool>, kFamilies> guarded{};
  // What the program has bound a socket of this family to last. Two reactors may write: the flag says whether
  // what is there is whole.
  std::array<std::atomic<bool>, kFamilies> bound{};
  std::array<net::SockAddr, kFamilies> bound_as{};
  // SO_COOKIE of its latest listeners.
  std::array<std::atomic<uint64_t>, kListeners> cookies{};
  std::atomic<uint32_t> next_cookie = 0;

  void Remember(uint64_t cookie, const net::SockAddr& as);
};

// What the container's network looks like, as read from it.
struct ContainerNetwork {
  static constexpr size_t kAddresses = 64;
  uint64_t netns = 0;                                  // its cookie
  uint64_t owner = 0;                                  // inode of the user namespace that owns it; 0: hidden
  net::SubnetSet networks;                             // of its interfaces
  std::array<net::IpAddress, kAddresses> addresses{};  // its own; the first of them, if there are more
  size_t address_count = 0;
  int first_unprivileged_port = 1024;  // net.ipv4.ip_unprivileged_port_start
  bool privileged = false;             // its root may undo a device lock
};

class ContainerMemory {
 public:
  // Whether an engine has found out about the container's network. kOrdinary: nothing is to be accelerated.
  enum class Introduced : uint32_t { kNotYet, kYes, kOrdinary };

  struct Facts {
    uint64_t magic = 0;
    uint64_t ports = 0;
    std::atomic<bool> has_twins = false;  // some socket of it was moved, so an address alone does not decide
    // How often it was caught exchanging a socket for something else under our hands; left alone since the
    // first time.
    std::atomic<uint32_t> exchanged_descriptors = 0;
    std::atomic<uint64_t> epolls_made = 0;    // epoll_create calls so far
    std::atomic<uint32_t> epolls_coming = 0;  // under way: installed, perhaps, and not counted yet
    // Control thread: two copies, so that one is whole at every moment; `current` says which.
    std::atomic<Introduced> introduced = Introduced::kNotYet;
    std::atomic<uint32_t> current = 0;
    std::array<ContainerNetwork, 2> networks;
    LostReplies lost_replies;
    // From here on nothing is written before it is made use of.
    Deadlines deadlines;
    net::OptionMarks rare_options;  // sockets with an option that ordinary swaps do not read
    net::OptionMarks stay;          // sockets with an option that nobody can read back
    // Work for its workers: for each of its two reactors as many as it may have. Pages that nobody uses take
    // no memory.
    std::array<Desk, 2 * Workers::kMost> desks;
    MountTable mounts;
    net::PeerNames peer_names;  // of sockets that are connected to services
    net::AimedFlows aimed;      // UDP sockets that are; zero in the file
  };

  // For a container that nobody serves yet.
  static absl::StatusOr<ContainerMemory> Create(const ContainerSpec& spec);
  // The same, or where no descriptor is free, one without (fd() is -1), which ends with this process. Without
  // memory at all nobody can be served: we crash, for the keeper to find a way.
  static ContainerMemory CreateAnyhow(const ContainerSpec& spec);
  // What an engine before this one has used, and has let go of.
  static absl::StatusOr<ContainerMemory> Open(Fd file);

  ContainerMemory(ContainerMemory&& other) noexcept;
  ContainerMemory& operator=(ContainerMemory&& other) noexcept;
  ~ContainerMemory();

  int fd() const { return file_.get(); }
  Facts& facts() const { return *static_cast<Facts*>(memory_); }
  // In the order of ContainerSpec::publish.
  std::span<PortMemory> ports() const;
  std::span<Desk> desks() const { return facts().desks; }
  // Where it lies in the file: a desk, or the table of mounts.
  uint64_t OffsetOf(const auto& part) const {
    return static_cast<uint64_t>(reinterpret_cast<const std::byte*>(&part) -
                                 static_cast<std::byte*>(memory_));
  }
  // As it was given to Create(). The error says what is wrong with it.
  absl::StatusOr<ContainerSpec> Spec() const;
  const ContainerNetwork& network() const { return facts().networks[facts().current % 2]; }
  void SetNetwork(const ContainerNetwork& network) const;
  // Once, before the first call: the engine before this one may have died anywhere.
  void BeginAnew() const;

 private:
  ContainerMemory(Fd file, void* memory, size_t bytes)
      : file_(std::move(file)), memory_(memory), bytes_(bytes) {}
  static ContainerMemory Make(Fd file, void* memory, size_t bytes, const ContainerSpec& spec,
                              std::string_view text);
  size_t TextOffset() const;

  Fd file_;
  void* memory_;
  size_t bytes_;
};

}  // namespace shunt
