// SPDX-License-Identifier: Apache-2.0
// LockProgram(): the eBPF socket filter that keeps a container's TCP socket from being aimed anywhere else
// than its policy allows.
//
// A container that owns a socket of the host's network can disconnect it, connect it again, or turn it into a
// listener, and can race every check that is made before a system call goes on. It cannot get round what the
// kernel does with the packets that arrive: a connect that never sees the SYN-ACK never completes, and a
// listener that never sees a SYN accepts nobody. The program sees each packet that was looked up for the
// socket, with its header, before TCP does, and decides so:
//
//   1. The socket listens: the packet goes through if it is for an endpoint of `listen`, else it is dropped.
//      All packets, not only SYNs, because a bare ACK with a valid SYN cookie makes a connection too.
//   2. The socket waits for the answer to a connect, or the packet has SYN and ACK: dropped if it comes from
//      a network of `deny` and not from an endpoint of `self`. RST included, so that refusals do not tell
//      which ports are open there.
//   3. SYN alone, in any other state, is let through for an endpoint of `listen`: who sends it means the
//      container, and a client that crashed and comes back must get its answer. Else it is judged as in 2.
//   4. Everything else belongs to a connection that 1 or 2 has let come about.
//
// The state in 1 and 2 is read without the socket's lock: it may be an older one than TCP then acts on.
// Therefore SYNs are judged in every state; without them no state but LISTEN leads to a connection, and a
// packet finds a listener only while it listens. What the lock cannot see is what leaves: a connect to a
// denied network still sends its SYN, and with TCP Fast Open data beside it, which is why those calls
// (MSG_FASTOPEN, TCP_FASTOPEN_CONNECT) have to be refused on a locked socket.
//
// Both families are in one program, since a dual-stack socket gets IPv4 packets too. The program has no maps
// and keeps nothing: the same policy gives the same instructions.

#pragma once

#include <linux/bpf.h>

#include <vector>

#include "net/lock_policy.h"

namespace shunt::net {

// Needs a policy that CheckLockPolicy() accepts (checked). For BPF_PROG_TYPE_SOCKET_FILTER.
std::vector<bpf_insn> LockProgram(const LockPolicy& policy);

}  // namespace shunt::net
