// SPDX-License-Identifier: Apache-2.0
#include "net/sock_diag.h"

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

namespace shunt::net {

IpAddress DiagAddress(const __be32 (&words)[4], int family) {
  if (family == AF_INET) {
    in_addr address;
    std::memcpy(&address, words, sizeof address);
    return IpAddress::FromV4(address);
  }
  in6_addr address;
  std::memcpy(&address, words, sizeof address);
  return IpAddress::FromV6(address);
}

SockDiag::SockDiag(Fd fd)
    : fd_(std::move(fd)), buffer_(std::make_unique<std::byte[]>(netlink::kDumpBuffer)) {}

Result<SockDiag> SockDiag::Open() {
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd.valid()) return FailErrno();
  return SockDiag(std::move(fd));
}

Result<void> SockDiag::Dump(inet_diag_req_v2 question, absl::FunctionRef<void(netlink::Bytes payload)> visit,
                            netlink::Bytes filter) {
  question.sdiag_protocol = IPPROTO_TCP;
  netlink::Request request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, question);
  if (!filter.empty()) request.AddBytes(INET_DIAG_REQ_BYTECODE, filter);
  return netlink::DumpOnce(fd_.get(), request, buffer_.get(), [&](int type, netlink::Bytes payload) {
    if (type == SOCK_DIAG_BY_FAMILY) visit(payload);
  });
}

}  // namespace shunt::net
