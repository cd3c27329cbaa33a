// SPDX-License-Identifier: Apache-2.0
#include "handlers/host_port.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace shunt {
namespace {

bool IsSet(int socket_fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(socket_fd, level, name, &value, &size) == 0 && value != 0;
}

void Set(int socket_fd, int level, int name, int value) {
  setsockopt(socket_fd, level, name, &value, sizeof(value));
}

net::IpAddress Anywhere(int family) {
  return family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress();
}

}  // namespace

net::SockAddr HostPort::AddressFor(int family) const {
  return {publish_.host_ip.value_or(Anywhere(family)), publish_.host_port, static_cast<sa_family_t>(family)};
}

// True if a socket that is bound to AddressFor(its family) takes the port in `family`.
bool HostPort::Concerns(Family family, int socket_fd, int socket_family) const {
  if (socket_family == AF_INET) return family == kV4;
  const net::IpAddress ip = AddressFor(AF_INET6).ip();
  if (ip.IsV4()) return family == kV4;
  return family == kV6 || (ip.IsUnspecified() && !IsSet(socket_fd, IPPROTO_IPV6, IPV6_V6ONLY));
}

// A socket that holds the port in one family for a SO_REUSEPORT group of ours. Unless it `join`s a group that
// is there already, it finds the port free.
Result<Fd> HostPort::BoundGuard(Family family, bool join) const {
  const int domain = family == kV4 ? AF_INET : AF_INET6;
  const bool fits = !publish_.host_ip || publish_.host_ip->IsV6() == (family == kV6);
  const net::SockAddr address(fits ? publish_.host_ip.value_or(Anywhere(domain)) : Anywhere(domain),
                              publish_.host_port, static_cast<sa_family_t>(domain));
  Fd guard(socket(domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!guard.valid()) return FailErrno();
  if (domain == AF_INET6) Set(guard.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (join) Set(guard.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  // SO_REUSEADDR only until it is bound: with it, old connections in TIME_WAIT are not in the way.
  // SO_REUSEPORT only afterwards: now it is known that nobody else is there. The kernel judges later binds
  // and listens by what the guard has then.
  Set(guard.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(guard.get(), address.data(), address.size()) != 0) return FailErrno();
  Set(guard.get(), SOL_SOCKET, SO_REUSEADDR, 0);
  Set(guard.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  return guard;
}

// Takes the port in one family for a SO_REUSEPORT group of ours. 0, or the errno of the bind.
int HostPort::Guard(Family family) {
  if (guards_[family].valid()) return 0;
  Result<Fd> guard = BoundGuard(family, /*join=*/false);
  if (!guard) return guard.error().code;
  guards_[family] = *std::move(guard);
  return 0;
}

void HostPort::Restore(const PortMemory& memory) {
  const std::scoped_lock lock(mutex_);
  for (const std::atomic<uint64_t>& cookie : memory.cookies) {
    if (cookie != 0) cookies_[next_cookie_++ % kRemembered] = cookie;
  }
  for (const Family family : {kV4, kV6}) {
    if (memory.bound[family]) bound_as_[family] = memory.bound_as[family];
    if (!memory.guarded[family] || guards_[family].valid()) continue;
    // The guard went with the engine that had it; the group may still be there.
    if (Result<Fd> guard = BoundGuard(family, /*join=*/true); guard) guards_[family] = *std::move(guard);
  }
}

void HostPort::NoteGuards(PortMemory& memory) const {
  const std::scoped_lock lock(mutex_);
  for (const Family family : {kV4, kV6}) memory.guarded[family] = guards_[family].valid();
}

// A socket that wants the port for itself. Guards are in its way even when the group that they were made for
// has gone, so it is tried without them; if the group is still there, they come back.
int HostPort::AdmitAlone(int socket_fd, int socket_family) {
  std::array<Fd, kFamilies> held;
  for (const Family family : {kV4, kV6}) {
    if (Concerns(family, socket_fd, socket_family)) held[family] = std::move(guards_[family]);
  }
  if (!held[kV4].valid() && !held[kV6].valid()) return 0;  // the bind itself will tell
  // With SO_REUSEADDR on both, guard and probe agree; with a listener no probe does.
  for (const Fd& guard : held) {
    if (guard.valid()) Set(guard.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  }
  Fd probe(socket(socket_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!probe.valid()) return errno;
  Set(probe.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (socket_family == AF_INET6)
    Set(probe.get(), IPPROTO_IPV6, IPV6_V6ONLY, IsSet(socket_fd, IPPROTO_IPV6, IPV6_V6ONLY) ? 1 : 0);
  const net::SockAddr address = AddressFor(socket_family);
  if (bind(probe.get(), address.data(), address.size()) == 0) return 0;  // `held` goes
  const int error = errno;
  for (const Family family : {kV4, kV6}) {
    if (!held[family].valid()) continue;
    Set(held[family].get(), SOL_SOCKET, SO_REUSEADDR, 0);
    guards_[family] = std::move(held[family]);
  }
  return error;
}

int HostPort::Admit(int socket_fd, int family) {
  const std::scoped_lock lock(mutex_);
  if (!IsSet(socket_fd, SOL_SOCKET, SO_REUSEPORT)) return AdmitAlone(socket_fd, family);
  for (const Family each : {kV4, kV6}) {
    if (!Concerns(each, socket_fd, family)) continue;
    if (const int error = Guard(each); error != 0) return error;
  }
  return 0;
}

void HostPort::Remember(uint64_t cookie, const net::SockAddr& bound_as) {
  const std::scoped_lock lock(mutex_);
  cookies_[next_cookie_++ % kRemembered] = cookie;
  // In full length, as getsockname tells it, however short an address the program has passed.
  bound_as_[bound_as.family() == AF_INET ? kV4 : kV6] = {bound_as.ip(), bound_as.port(), bound_as.family()};
}

bool HostPort::IsOurs(uint64_t cookie) const {
  const std::scoped_lock lock(mutex_);
  return cookie != 0 && std::find(cookies_.begin(), cookies_.end(), cookie) != cookies_.end();
}

net::SockAddr HostPort::BoundAs(int family) const {
  const std::scoped_lock lock(mutex_);
  return bound_as_[family == AF_INET ? kV4 : kV6];
}

}  // namespace shunt
