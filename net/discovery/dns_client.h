// SPDX-License-Identifier: Apache-2.0
// DnsClient: questions to DNS servers, by c-ares, without waiting. For one round of questions.
//
// Made anew for each round, because c-ares reads /etc/resolv.conf once: so a change of that file holds from
// the next round on, and each round has ports of its own. Times are c-ares' own here, which are the kernel's.
//
// Only DNS is asked, not /etc/hosts. Truncated answers are asked for again over TCP.

#pragma once

#include <ares.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/discovery/dns_answer.h"

namespace shunt::net {

struct DnsOptions {
  std::string resolv_conf = "/etc/resolv.conf";
  // "127.0.0.1:5353,[::1]:53" in the place of those in resolv_conf; empty: those.
  std::string servers;
  // Each server is asked `tries` times, and waited for so long, with each try longer.
  int attempt_timeout_ms = 2000;
  int tries = 2;
};

class DnsClient {
 public:
  // kNotFound: the name, or a record of this type, does not exist. Any other error: that is not known now.
  using Answer = absl::StatusOr<DnsRecords>;
  using Answered = std::function<void(Answer)>;

  // Its sockets are added to `epoll_fd`, which outlives it.
  static absl::StatusOr<std::unique_ptr<DnsClient>> Create(const DnsOptions& options, int epoll_fd);
  // Answers what was not answered, with an error.
  ~DnsClient();
  DnsClient(const DnsClient&) = delete;
  DnsClient& operator=(const DnsClient&) = delete;

  // The names that `name` may stand for, in the order in which they are to be asked for: by the search list
  // and `ndots` of resolv.conf. One that ends with a dot stands for itself.
  std::vector<std::string> NamesFor(const std::string& name) const;

  // `answered` is called once, from here, from Serve() or when this ends; it must not end it.
  void Ask(const std::string& name, DnsType type, Answered answered);

  // Does what there is to do: with sockets that the epoll reports, and where time is over.
  void Serve();

  // Until Serve() is to be called at the latest, in ns. Nothing: no question is open.
  std::optional<int64_t> Wait() const;

 private:
  explicit DnsClient(int epoll_fd) : epoll_fd_(epoll_fd) {}

  static void Watch(void* self, ares_socket_t socket_fd, int readable, int writable);
  static void TakeAnswer(void* question, int status, int timeouts, unsigned char* bytes, int size);

  const int epoll_fd_;
  ares_channel channel_ = nullptr;
};

}  // namespace shunt::net
