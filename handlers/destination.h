// SPDX-License-Identifier: Apache-2.0
// Destination: where a connect goes to; and where that is the address of a service, which of its backends are
// being tried. A value that a call takes along while it waits.

#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "net/balancer/held_place.h"
#include "net/balancer/service.h"
#include "net/sock_addr.h"

namespace shunt {

struct Destination {
  static constexpr int64_t kNoService = -1;
  static constexpr uint32_t kNoSlot = ~uint32_t{0};

  net::SockAddr address;
  net::SockAddr shown;  // what getpeername(2) is to show instead; not valid: `address`

  // The rest is about a service.
  int64_t service = kNoService;  // its id in the table of services, which is looked at anew for each attempt
  bool to_v4 = false;            // the address that the program has given is one of IPv4's
  bool has_key = false;
  uint64_t key = 0;             // whose connections are to stay together
  int64_t timeout_ns = 0;       // of this attempt
  int64_t race_after_ns = 0;    // after which another attempt joins it; 0: never
  int64_t begun_at = 0;         // when this attempt began; CLOCK_MONOTONIC, ns
  uint32_t slot = kNoSlot;      // of the backend that is being tried; kNoSlot: not known any more
  net::HeldPlace place;         // at that backend, where the service has limits
  bool in_its_network = false;  // that the service says its backends are in
  bool joins = false;           // this attempt races with others (handlers/race.h)
  bool overtook = false;        // it has won a race (handlers/race.h) against the socket that it replaces
  int attempts = 1;             // that there may be
  int begun = 0;                // attempts so far, this one included
  std::array<uint32_t, net::ConnectSpec::kMostAttempts> tried;  // slots, of as many as have begun

  bool is_service() const { return service != kNoService; }
  bool is_last() const { return begun >= attempts; }
  std::span<const uint32_t> tried_slots() const { return std::span(tried).first(static_cast<size_t>(begun)); }
};

}  // namespace shunt
