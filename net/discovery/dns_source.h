// SPDX-License-Identifier: Apache-2.0
// DnsSource: backends that DNS names.
//
//   _http._tcp.orders.svc   its SRV records, then A and AAAA of their targets. The records of the lowest
//   priority
//                           are ordinary backends, all others are backups; each address of a target has the
//                           record's weight, a weight of 0 counts as 1. A target "." is none.
//   orders.svc:8080         its A and AAAA records, with that port
//
// Names are completed by the search list of resolv.conf as libc does it, with two differences: all addresses
// are of one name, and from the name that has answered the last time a server that fails leads on to no
// other, since with that one service could become another for a while.
//
// What DNS says is asked for again when the smallest time to live is over, after kShortest at least and
// kLongest at most; after an error first after kFirstRetry, then after twice that time, up to kLastRetry.
//
// An error leaves in force what was found before, and an answer without any backend is an error: a DNS server
// that has lost its zone, or has not read it yet, must not take everything down. So DNS alone cannot say that
// a service has no backends any more; health checks do. The same holds for each single question: where the
// AAAA records, or the addresses of one target, cannot be had, those that they were the last time are kept,
// and the rest counts. A target that does not exist any more is gone.
//
// Addresses that no backend can have (0.0.0.0, multicast, broadcast: some servers answer so for what they
// block) are left out.

#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "net/discovery/dns_client.h"
#include "net/discovery/source.h"
#include "net/discovery/teller.h"

namespace shunt::net {

class DnsSource : public Source {
 public:
  // ns
  static constexpr int64_t kShortest = 1'000'000'000;
  static constexpr int64_t kLongest = 300'000'000'000;
  static constexpr int64_t kFirstRetry = 1'000'000'000;
  static constexpr int64_t kLastRetry = 30'000'000'000;
  // A round of questions that takes longer ends with what has been answered.
  static constexpr int64_t kRound = 20'000'000'000;

  // `dns` as above (DiscoverSpec::dns, which the configuration's reader has checked). An error is want of
  // descriptors. Asks nobody yet.
  static absl::StatusOr<std::unique_ptr<DnsSource>> Create(std::string dns, Tell tell,
                                                           DnsOptions options = {});

  std::string Title() const override { return "dns " + dns_; }
  int event_fd() const override { return events_.get(); }
  int64_t NextDue() const override { return due_; }
  void Advance(int64_t now) override;

  // A round of questions is under way.
  bool asks() const { return client_ != nullptr; }

 private:
  using Question = std::pair<std::string, DnsType>;
  using Answers = std::map<Question, DnsClient::Answer>;

  DnsSource(std::string dns, Fd events, Tell tell, DnsOptions options);

  // What a round has found.
  struct Found {
    std::vector<BackendSpec> backends;
    uint32_t ttl = std::numeric_limits<uint32_t>::max();  // the smallest, seconds
    absl::Status missing;                                 // what could not be had; OK: nothing
    std::map<Question, DnsRecords> known;
  };

  std::span<const DnsType> first_types() const;
  absl::Status Begin();
  // Puts the first questions about names_[name].
  void AskFor(size_t name);
  void GoOn();
  // All questions so far are answered: puts those that follow from the answers. False: none do.
  bool PutNext();
  void End(int64_t now);
  void Fail(const absl::Status& why, int64_t now);
  int64_t NextRetry();

  absl::StatusOr<Found> Gather();
  // `like`: all but the address.
  void AddAddresses(const std::string& host, uint16_t port, const BackendSpec& like, Found& found);
  absl::Status MissingOf(const Question& question, Answers::const_iterator answer) const;
  absl::Status NothingAt(const absl::Status& why) const;

  const std::string dns_;
  const std::string name_;
  const uint16_t port_;  // 0: SRV says
  const Fd events_;
  const DnsOptions options_;
  Teller teller_;
  int64_t due_ = 0;
  int64_t retry_ = kFirstRetry;

  // Where what is in force comes from.
  std::map<Question, DnsRecords> known_;
  std::string answered_;  // which of names_ it was; empty: none yet

  // The round that is under way.
  int64_t round_ends_ = 0;
  std::vector<std::string> names_;  // what name_ may stand for
  size_t name_at_ = 0;              // the one that is asked for
  absl::Status unclear_;            // whether one of those before it exists is not known, and why
  bool asks_targets_ = false;
  std::deque<Question> waiting_;
  size_t under_way_ = 0;
  Answers answers_;
  std::unique_ptr<DnsClient> client_;  // last: at its end it answers into the others what is under way
};

}  // namespace shunt::net
