// SPDX-License-Identifier: Apache-2.0
// The first half that connect, bind, listen and their like share: the address once into our copy, the socket
// by a duplicate of its descriptor, and whose network it lives in.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/call.h"
#include "core/reply.h"
#include "net/socket_facts.h"

namespace shunt {

// The bytes of an address as the target passed it. Read once; everything is decided on this copy.
struct RawAddress {
  std::array<std::byte, 128> bytes;
  size_t size = 0;

  std::span<const std::byte> span() const { return {bytes.data(), size}; }
  int family() const;  // size >= 2
};

// Nothing if the kernel would refuse the length (below 2 or above 128) or the memory is not readable: it
// shall say so itself.
std::optional<RawAddress> ReadAddress(const Call& call, uint64_t address, int length);

class SocketBench;

// Whose network a target's socket lives in.
enum class Home : uint8_t {
  kContainer,  // where the container's sockets are made
  kHost,       // a twin
  kElsewhere,  // a nested network namespace, or not yet known
};

struct TargetSocket {
  TargetSocket(Fd its_fd, const DescriptorInfo& its_info, const net::SocketFacts& its_facts)
      : fd(std::move(its_fd)), info(its_info), facts(its_facts) {}

  Fd fd;  // our duplicate
  DescriptorInfo info;
  net::SocketFacts facts;
  Home home = Home::kElsewhere;

  // True if the program has bound it to a port, rather than one being left over from a failed connect.
  bool BoundToPort(const SocketBench& bench);

 private:
  std::optional<bool> bound_;
};

// The answer to a bind or a listen on `number` that its handler has no part in: CONTINUE, but `error` if that
// socket is a twin, which they would give a port of the host. For twins get into unexpected hands (by a
// message to a container that has none itself), and what a handler could not read the kernel perhaps can. If
// we cannot tell and the container has twins it is `error` as well.
Reply LeaveToKernel(const Call& call, int number, int error);

// Our duplicate of the target's socket of any kind; nothing if it is no socket or we may not look.
std::optional<Fd> TakeAnySocket(const Call& call, int number);

// What lay under the descriptor a microsecond ago was a socket, and what was taken is none. Who does that
// once by accident will not miss us, and who does it on purpose shall not keep us busy: from now on the
// container's sockets stay where they are.
void NoteExchange(const Call& call);
// The same, with our duplicate of what was there.
void LeaveAlone(const Call& call, Fd taken);

// Nothing if it is no TCP socket over IPv4 or IPv6, or if we may not look: the kernel shall deal with it.
std::optional<TargetSocket> TakeSocket(const Call& call, int number);

// SO_COOKIE; 0: it has none.
uint64_t CookieOf(int socket_fd);

// The answer to getsockname(2) and its like, as the kernel gives it: `name` to where the target wants it, as
// far as there is room, and its length.
Reply StoreName(const Call& call, const net::SockAddr& name, uint64_t address, uint64_t length_address);

}  // namespace shunt
