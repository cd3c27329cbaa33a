// SPDX-License-Identifier: Apache-2.0
// The one list of what shunt handles: which system call, by which handler, and under which condition on its
// registers.
//
// The filter, the OCI profile and the dispatch table are made from it. To add a handler, add a line here and
// write it. X(system call, handler, condition): the condition is a name of RouteCondition.

#pragma once

#include <cstdint>

namespace shunt {

// When a call is worth a notification. Everything is decided by register arguments: what is in memory could
// change.
enum class RouteCondition : uint8_t {
  kAlways,
  kIfRenumbered,    // a port is published under another number, so that the socket's own port is not what was
                    // bound
  kFastOpenInArg2,  // MSG_FASTOPEN in `flags`: the call connects
  kFastOpenInArg3,
  kTrappedOption,  // setsockopt of an option that net/socket_options.h calls rare or unreadable
  kIfAsked,        // only where the container's profile asks for it by name (tools/profile.h)
  kSocketCall,     // i386 and s390: the calls above through socketcall(2), as far as its first argument tells
                   // them
};

#define SHUNT_ROUTES(X)                      \
  X(connect, Connect, kAlways)               \
  X(bind, Bind, kAlways)                     \
  X(listen, Listen, kAlways)                 \
  X(epoll_create, EpollCreate, kAlways)      \
  X(epoll_create1, EpollCreate1, kAlways)    \
  X(sendto, SendTo, kFastOpenInArg3)         \
  X(sendmsg, SendMsg, kFastOpenInArg2)       \
  X(sendmmsg, SendMmsg, kFastOpenInArg3)     \
  X(setsockopt, SetSockOpt, kTrappedOption)  \
  X(getsockname, GetSockName, kIfRenumbered) \
  X(getpeername, GetPeerName, kIfAsked)      \
  X(socketcall, SocketCall, kSocketCall)     \
  X(mkdir, Mkdir, kIfAsked)                  \
  X(mkdirat, MkdirAt, kIfAsked)              \
  X(mknod, Mknod, kIfAsked)                  \
  X(mknodat, MknodAt, kIfAsked)              \
  X(mount, Mount, kIfAsked)                  \
  X(umount, Umount, kIfAsked)                \
  X(umount2, Umount2, kIfAsked)              \
  X(execve, Exec, kIfAsked)                  \
  X(execveat, ExecAt, kIfAsked)

}  // namespace shunt
