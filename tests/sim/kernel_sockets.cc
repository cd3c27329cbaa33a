// SPDX-License-Identifier: Apache-2.0
// TCP sockets: states, addresses, options. Sockets of other kinds exist and do nothing.

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/socket_options.h"
#include "tests/sim/kernel.h"
#include "tests/sim/places.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

constexpr int kSoBufLock = 72;
constexpr int kSoNetnsCookie = 71;
constexpr int kSoBindToIfIndex = 62;

bool IsPortTaken(const Socket& by, uint16_t port) {
  const auto& sockets = Kernel::Get().sockets;
  return std::any_of(sockets.begin(), sockets.end(), [&](const auto& entry) {
    const Socket& other = *entry.second;
    return &other != &by && other.netns == by.netns && other.bound && other.local.port() == port;
  });
}

net::SockAddr Unbound(int family) {
  return {family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress(), 0};
}

// As long as the kernel's own value of an option is, for those that were never set.
std::vector<std::byte> DefaultOf(const Socket& socket, int level, int name) {
  const net::SocketOption* const row = net::FindSocketOption(level, name);
  size_t size = 4;
  if (row != nullptr) {
    using Kind = net::OptionKind;
    if (row->kind == Kind::kU64 || row->kind == Kind::kLinger) size = 8;
    if (row->kind == Kind::kTimeval) size = 16;
    if (row->kind == Kind::kName) size = name == TCP_CONGESTION && level == IPPROTO_TCP ? 16 : 0;
    if (row->kind == Kind::kBytes) size = 0;
  }
  std::vector<std::byte> value(size);
  const auto put = [&](const auto& what) {
    value.assign(sizeof(what), {});
    std::memcpy(value.data(), &what, sizeof(what));
  };
  if (level == IPPROTO_TCP && name == TCP_CONGESTION) std::memcpy(value.data(), "cubic", 5);
  if (level == IPPROTO_TCP && name == TCP_INFO) put(static_cast<uint8_t>(socket.state));
  if (level != SOL_SOCKET) return value;
  if (name == SO_TYPE) put(socket.type);
  if (name == SO_PROTOCOL) put(socket.protocol);
  if (name == SO_DOMAIN) put(socket.family);
  if (name == SO_COOKIE) put(socket.cookie);
  if (name == kSoNetnsCookie) put(socket.netns);
  if (name == kSoBindToIfIndex) put(socket.device);
  if (name == SO_LOCK_FILTER) put(socket.filter_locked ? 1 : 0);
  return value;
}

}  // namespace

Socket::Socket(int its_family, int its_type, int its_protocol, uint64_t its_netns)
    : family(its_family),
      type(its_type),
      protocol(its_protocol),
      netns(its_netns),
      cookie(Kernel::Get().next_cookie++),
      local(Unbound(its_family == AF_INET6 ? AF_INET6 : AF_INET)) {
  mount = kSocketMount;
  flags = O_RDWR;
  Kernel::Get().sockets[inode] = this;
}

Socket::~Socket() {
  Kernel::Get().sockets.erase(inode);
}

bool Socket::IsTcp() const {
  return (family == AF_INET || family == AF_INET6) && type == SOCK_STREAM;
}

short Socket::Ready() const {
  int ready = shut_down ? POLLRDHUP | POLLIN : 0;
  if (state == TcpState::kClosed) ready |= POLLOUT | POLLHUP;
  if (state == TcpState::kEstablished) ready |= POLLOUT;
  if (pending_error != 0) ready |= POLLERR;
  return static_cast<short>(ready);
}

int Bind(Socket& socket, const net::SockAddr& address) {
  if (!socket.IsTcp()) return 0;
  if (address.family() != socket.family) return EAFNOSUPPORT;
  if (!CanBindTo(socket.netns, address.ip())) return EADDRNOTAVAIL;
  const bool taken = address.port() != 0 && IsPortTaken(socket, address.port());
  if (socket.bound || socket.state != TcpState::kClosed) return EINVAL;
  if (taken) return EADDRINUSE;
  socket.bound = true;
  socket.local = {address.ip(), address.port() != 0 ? address.port() : Kernel::Get().next_port++,
                  static_cast<sa_family_t>(socket.family)};
  return 0;
}

int Listen(Socket& socket) {
  if (!socket.IsTcp()) return EOPNOTSUPP;
  if (socket.state != TcpState::kClosed && socket.state != TcpState::kListening) return EINVAL;
  if (socket.local.port() == 0) socket.local.set_port(Kernel::Get().next_port++);
  socket.bound = true;
  socket.state = TcpState::kListening;
  return 0;
}

int Connect(Socket& socket, const void* address, size_t size, bool by_engine) {
  World& world = World::Get();
  if (!socket.IsTcp()) return ECONNREFUSED;
  if (size < 2 || size > 128) return EINVAL;
  sa_family_t family;
  std::memcpy(&family, address, sizeof(family));
  if (family == AF_UNSPEC) {
    socket.state = TcpState::kClosed;
    if (!socket.bound) socket.local = Unbound(socket.family);
    return 0;
  }
  if (socket.state == TcpState::kEstablished || socket.state == TcpState::kListening) return EISCONN;
  if (socket.state == TcpState::kSynSent) return EALREADY;
  const Result<net::SockAddr> peer = net::SockAddr::Parse({static_cast<const std::byte*>(address), size});
  if (!peer) return peer.error().code;
  if (peer->family() != socket.family) return EAFNOSUPPORT;
  if (socket.pending_error != 0) return std::exchange(socket.pending_error, 0);
  if (peer->ip().IsMulticast()) return ENETUNREACH;
  if (by_engine && socket.netns == kHostNetns) {
    if (!socket.locked()) world.Wrong("a socket without a lock is connected on the host");
    if (!MayBeReached(peer->ip(), peer->port()))
      world.Wrong("a socket is connected to %s on the host", peer->ToString().c_str());
    if ((socket.flags & O_NONBLOCK) == 0) world.Wrong("the engine makes a connect that blocks");
  }
  if (!world.chance.OneIn(8)) {
    socket.peer = *peer;
    if (socket.local.port() == 0) socket.local.set_port(Kernel::Get().next_port++);
    socket.state = world.chance.OneIn(4) ? TcpState::kEstablished : TcpState::kSynSent;
    return socket.state == TcpState::kEstablished ? 0 : EINPROGRESS;
  }
  return world.chance.OneOf({ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, ENOBUFS, EACCES});
}

int SetOption(const std::shared_ptr<FdTable>& table, Socket& socket, int level, int name, const void* value,
              size_t size) {
  int number = 0;
  if (size >= sizeof(number)) std::memcpy(&number, value, sizeof(number));
  if (level == SOL_SOCKET && name == SO_ATTACH_BPF) {
    if (socket.filter_locked) return EPERM;
    if (table->GetAs<LockProgramFile>(number) == nullptr) World::Get().Wrong("no program is attached");
    socket.has_program = true;
    return 0;
  }
  if (level == SOL_SOCKET && name == SO_LOCK_FILTER) {
    socket.filter_locked = true;
    return 0;
  }
  if (level == SOL_SOCKET && name == kSoBindToIfIndex) {
    if (socket.device != 0 && socket.device != number) return EPERM;
    socket.device = number;
    return 0;
  }
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), value, size);
  if (level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF)) {
    number *= 2;
    std::memcpy(bytes.data(), &number, sizeof(number));
  }
  socket.options[{level, name}] = std::move(bytes);
  return 0;
}

int GetOption(const Socket& socket, int level, int name, void* value, unsigned* size) {
  if (!socket.IsTcp() && level != SOL_SOCKET) return EOPNOTSUPP;
  // 0 instructions; an eBPF filter cannot be read.
  if (level == SOL_SOCKET && name == SO_ATTACH_FILTER) {
    *size = 0;
    return socket.has_program ? EACCES : 0;
  }
  std::vector<std::byte> bytes;
  if (level == SOL_SOCKET && name == kSoBufLock) {
    const bool send = socket.options.contains({SOL_SOCKET, SO_SNDBUF});
    const bool receive = socket.options.contains({SOL_SOCKET, SO_RCVBUF});
    const int locks = (send ? 1 : 0) | (receive ? 2 : 0);
    bytes.resize(sizeof(locks));
    std::memcpy(bytes.data(), &locks, sizeof(locks));
  } else if (const auto found = socket.options.find({level, name}); found != socket.options.end()) {
    bytes = found->second;
  } else {
    bytes = DefaultOf(socket, level, name);
  }
  *size = static_cast<unsigned>(std::min<size_t>(*size, bytes.size()));
  if (*size > 0) std::memcpy(value, bytes.data(), *size);
  return 0;
}

}  // namespace shunt::sim
