// SPDX-License-Identifier: Apache-2.0
// Carries socket options from a container's socket to its twin, by the table in net/socket_options.h.
//
// "Differs" means: differs from what the twin has. The container's network may have other defaults than the
// host's (sysctls are per network namespace), and a socket does not tell a default from a value that somebody
// set; what the program can observe is the value, so the value is what stays the same. Options that nobody
// touched and whose trap never fired (the rare ones) keep the host's defaults.
//
// Nothing is granted: an option whose write takes a privilege over the network is never written, whatever
// privilege the engine has, and every write is read back. What cannot be carried over exactly leaves the
// socket on its ordinary path. All functions are for any thread, take no locks and no heap.

#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "core/result.h"
#include "net/socket_options.h"

namespace shunt::net {

// What a fresh twin of one family reads. Learned in the host's network at start, and again whenever somebody
// may have changed its sysctls (about 40 us); a twin that is older than the defaults it is compared with may
// differ from them.
class TwinDefaults {
 public:
  // Big enough for every kind whose value is compared; what is only tested for zero is not kept.
  struct Value {
    bool known = false;  // false: this kernel or this family does not have the option
    uint8_t size = 0;
    std::array<unsigned char, 16> bytes{};
  };

  // `family` is AF_INET or AF_INET6. ENOPROTOOPT: the kernel is older than 5.14, which brought SO_BUF_LOCK.
  static Result<TwinDefaults> Learn(int family);

  // `row` indexes kSocketOptions.
  const Value& value(size_t row) const { return values_[row]; }

  // Congestion controls that every unprivileged program on the host may choose.
  bool MayChooseCongestionControl(std::string_view name) const;

 private:
  std::array<Value, kSocketOptions.size()> values_;
  std::array<char, 256> congestion_controls_{};  // separated by blanks, as /proc/sys has them
};

enum class OptionSet : uint8_t {
  kHot,        // what ordinary programs set without a trap: 12 system calls for IPv4, 13 for IPv6, and 2 for
               // F_SETOWN/F_SETSIG
  kAll,        // the rare ones as well: for sockets on which one of them was trapped
  kAllOfTwin,  // the same for a twin, on which our own lock (a device, a locked filter) is none of its
               // program's options
};

enum class CarryPhase : uint8_t {
  kBeforeBind,  // only what has to be on the twin before its own bind
  kAfterBind,   // everything else
  kWhole,       // both, for a twin that is not going to be bound
};

struct [[nodiscard]] Carried {
  // The first thing that cannot be carried over, for counters and messages ("SO_MARK"); nullptr: all is on
  // the twin.
  const char* obstacle = nullptr;
  // SO_SNDTIMEO is set; true as well if it was not looked at.
  bool send_timeout = true;

  bool complete() const { return obstacle == nullptr; }
};

// Makes `twin_fd` the same as `socket_fd`, both TCP sockets of the family that `defaults` were learned for,
// neither of them connected. If the result is not complete, the socket belongs on the ordinary path and the
// twin is no longer fresh: throw it away.
Carried CarryOptions(int socket_fd, int twin_fd, const TwinDefaults& defaults, OptionSet set,
                     CarryPhase phase);

}  // namespace shunt::net
