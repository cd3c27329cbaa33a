// SPDX-License-Identifier: Apache-2.0
// Registrar: has published ports of this agent's containers announced to other machines (docs/multinode.md).
//
// A container counts with the addresses that it had when it was introduced, before its program had a say in
// them, and no others: who may change his addresses could else have those of others announced as his own. So
// they are held for the engines to come.
//
// Control thread; what is written, another thread writes (tools/etcd_announcer.h). It starts before the
// process is confined.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/discovery/source.h"
#include "net/ip_address.h"
#include "net/publish.h"
#include "tools/announcements.h"
#include "tools/keeper_protocol.h"
#include "tools/multinode.h"
#include "tools/watch_thread.h"

namespace shunt {

// Under a tag that every keeper knows, as kFoundLists is.
inline constexpr HoldingName kAnnouncedAddresses = {HoldingTag::kSettings, 2};

class Registrar {
 public:
  static constexpr size_t kMostKeys = 4096;     // of one machine
  static constexpr size_t kMostAddresses = 16;  // of one container; the first ones count

  using Hold = std::function<void(int file)>;
  // `held` is what an engine before this one has held, or -1. Nothing is announced before Begin().
  static absl::StatusOr<std::unique_ptr<Registrar>> Start(const MultinodeConfig& config, int held, Hold hold);

  // From here on we are the one.
  void Begin();
  // A container that publishes these ports, and the addresses of its network namespace. Those with which the
  // namespace came first count.
  void Know(uint64_t container, uint64_t netns, std::vector<net::Publish> ports,
            std::vector<net::IpAddress> addresses);
  void Forget(uint64_t container);
  // An orderly end: takes all back, and waits for that, two seconds at most.
  void Leave();

  // Readable when HandleEvents() has something to log.
  int event_fd() const { return source_->event_fd(); }
  void HandleEvents() { source_->Advance(0); }

 private:
  struct Entry {
    uint64_t netns = 0;
    std::vector<net::Publish> ports;  // none: nobody has served it yet
    std::vector<net::IpAddress> addresses;
  };

  Registrar(MultinodeConfig config, Hold hold);
  void Heard(const absl::Status& status);
  void HoldAddresses() const;
  void Announce();

  const MultinodeConfig config_;
  const Hold hold_;
  const std::shared_ptr<Announcements> announcements_;
  std::map<uint64_t, Entry> containers_;  // the oldest first: of two that want one key it has it
  bool begun_ = false;
  bool failing_ = false;
  bool too_many_ = false;  // which was told
  std::unique_ptr<WatchThread> thread_;
  std::unique_ptr<net::Source> source_;  // goes before the thread
};

// What is to be announced of one container. `host`: where others reach this machine.
void AddAnnouncements(std::span<const net::Publish> ports, std::span<const net::IpAddress> addresses,
                      const net::IpAddress& host, Announcements::Keys& keys);

}  // namespace shunt
