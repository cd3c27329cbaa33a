// SPDX-License-Identifier: Apache-2.0
// What the keeper and an engine say to each other: one fixed struct per packet, with at most four descriptors
// beside it (SCM_RIGHTS), on a SOCK_SEQPACKET pair that the engine finds as descriptor 3.
//
// The keeper understands names, counts and the order of things; what a holding is good for, only engines
// know. The two exceptions: the first descriptor of a kContainer is a seccomp listener, that of a kJournal a
// journal; both matter to the keeper only when it has to answer calls itself.
//
// An engine's life, as packets:
//   keeper: kGive... kGiven            engine: kPrepared        everything slow, nothing that others notice
//   keeper: kStart                     engine: kReady           recovers what predecessors left, and serves
//   keeper: kPing                      engine: kPong            from kReady on, within seconds
//   keeper: kStop                      engine: kStopped         receives nothing more; then waits for the end
//   the keeper closes the link: the engine ends. It may also be killed at any moment instead.
// kGive may also come after kGiven, and for a name that was given before: it replaces that. Connections come
// that way (kIntake): the keeper's process accepts them, engines drop them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shunt {

enum class HoldingTag : uint32_t {
  kSettings = 1,
  kIntake = 2,   // 0: the socket on which runtimes hand listeners over; else a connection to it
  kControl = 3,  // the control socket
  kJournal = 4,
  kContainer = 5,
  kMetrics = 6,  // the socket on which metrics are asked for
};
inline constexpr uint32_t kHighestHoldingTag = 6;

// What descriptors are kept under.
struct HoldingName {
  HoldingTag tag{};
  uint64_t id = 0;
  friend bool operator==(const HoldingName&, const HoldingName&) = default;
  friend bool operator<(const HoldingName& a, const HoldingName& b) {
    return a.tag != b.tag ? a.tag < b.tag : a.id < b.id;
  }
};

enum class KeeperMessage : uint32_t {
  // From the engine.
  kHold = 1,  // name, 1 to 4 descriptors: keep these instead of what is held under the name
  kDrop,      // name; one that is not held is no mistake
  kPrepared,
  kReady,    // value: the engine's own flags; text: what to show
  kServing,  // name, text: what to show about it
  kStopped,
  kPong,     // value: that of the kPing
  kUpgrade,  // please start the program that is installed now
  kFailed,   // text. From the engine: why it is about to end. From the keeper: why it does not hold `name`
  kWorker,   // 1 descriptor: have a worker begin there
  kAgain,    // name: please kGive that once more; there was no descriptor for it

  // From the keeper.
  kGive = 64,  // name, 1 to 4 descriptors
  kGiven,
  kStart,
  kStop,
  kLeave,          // an orderly end: remove sockets from the file system, kDrop them, exit with status 0
  kReload,         // read the configuration again
  kPing,           // value
  kUpgradeDone,    // a successor serves; the link closes
  kUpgradeFailed,  // text; go on
};

inline constexpr size_t kHoldingDescriptors = 4;
inline constexpr size_t kPacketText = 400;

// Unused fields are zero.
struct KeeperPacket {
  uint32_t message = 0;  // a KeeperMessage
  uint32_t tag = 0;      // a HoldingTag, or 0
  uint64_t id = 0;
  uint64_t value = 0;
  uint32_t text_size = 0;
  char text[kPacketText] = {};
  uint32_t reserved = 0;

  HoldingName name() const { return {static_cast<HoldingTag>(tag), id}; }
  // Only of a packet that IsWellFormed().
  std::string_view text_view() const { return {text, text_size}; }
};
static_assert(sizeof(KeeperPacket) == 432);

// `text` is cut to what fits.
KeeperPacket MakePacket(KeeperMessage message, HoldingName name = {}, uint64_t value = 0,
                        std::string_view text = {});

// True if every field is one that the message may have, and `descriptors` come with it. Says nothing about
// whose message it is.
bool IsWellFormed(const KeeperPacket& packet, size_t descriptors);

}  // namespace shunt
