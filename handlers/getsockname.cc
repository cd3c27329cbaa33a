// SPDX-License-Identifier: Apache-2.0
// getsockname(2), trapped only in containers that publish a port under another number: shows what the program
// bound, not where the host has put it.

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/socket_call.h"

namespace shunt {
namespace {

const PublishedPort* FindByHostPort(const Container& container, uint16_t host_port) {
  for (const PublishedPort& port : container.published) {
    if (port.publish.host_port == host_port && port.bound_as.port() != 0) return &port;
  }
  return nullptr;
}

}  // namespace

Reply NameSocket(Call& call, int number, uint64_t address, uint64_t length_address) {
  const Container& container = ContainerOf(call);
  if (!container.has_twins) return Reply::Continue();
  const std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket || socket->home != Home::kHost) return Reply::Continue();
  const PublishedPort* const port = FindByHostPort(container, socket->facts.local.port());
  if (port == nullptr) return Reply::Continue();

  // The listener has the address that the program asked for; an accepted socket its own, with the program's
  // port.
  net::SockAddr name = socket->facts.local;
  if (socket->facts.tcp_state == TCP_LISTEN || socket->facts.tcp_state == TCP_CLOSE) {
    if (port->bound_as.family() == name.family()) name = port->bound_as;
  } else {
    name.set_port(port->publish.port);
  }

  int length = 0;
  const Target& target = call.target();
  const Result<size_t> got = target.ReadMemory(length_address, std::as_writable_bytes(std::span(&length, 1)));
  if (!got || *got != sizeof(length)) return Reply::Fail(EFAULT);
  if (length < 0) return Reply::Fail(EINVAL);
  if (!call.StillValid()) return Reply::Continue();
  const size_t copied = std::min(static_cast<size_t>(length), static_cast<size_t>(name.size()));
  const std::span bytes(reinterpret_cast<const std::byte*>(name.data()), copied);
  const int full = static_cast<int>(name.size());
  const Result<size_t> put_name = target.WriteMemory(address, bytes);
  const Result<size_t> put_length = target.WriteMemory(length_address, std::as_bytes(std::span(&full, 1)));
  const bool all = put_name && *put_name == copied && put_length && *put_length == sizeof(full);
  return all ? Reply::Return(0) : Reply::Fail(EFAULT);
}

Reply GetSockName(Call& call) {
  return NameSocket(call, call.int_arg(0), call.arg(1), call.arg(2));
}

}  // namespace shunt
