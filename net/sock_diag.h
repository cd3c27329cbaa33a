// SPDX-License-Identifier: Apache-2.0
// SockDiag: the TCP sockets of a network namespace, as the kernel knows them.
//
// Any user may ask. No heap after construction; one thread.

#pragma once

#include <linux/inet_diag.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/ip_address.h"
#include "net/netlink.h"

namespace shunt::net {

// An address as sock_diag writes it; IPv4 in either family is IPv4.
IpAddress DiagAddress(const __be32 (&words)[4], int family);

class SockDiag {
 public:
  // Of the network namespace that this thread is in. ENOENT or EPROTONOSUPPORT, here or later: the kernel has
  // no sock_diag for TCP (CONFIG_INET_DIAG).
  static Result<SockDiag> Open();

  // Calls visit() with each message of the answer, without its header: an inet_diag_msg and attributes. The
  // question says family, states and all else; its protocol is TCP. `filter`: INET_DIAG_REQ_BYTECODE, which
  // the kernel decides by; empty: all.
  Result<void> Dump(inet_diag_req_v2 question, absl::FunctionRef<void(netlink::Bytes payload)> visit,
                    netlink::Bytes filter = {});

 private:
  explicit SockDiag(Fd fd);

  Fd fd_;
  std::unique_ptr<std::byte[]> buffer_;  // netlink::kDumpBuffer bytes
};

}  // namespace shunt::net
