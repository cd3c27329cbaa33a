// SPDX-License-Identifier: Apache-2.0
// DnsSource: see dns_source.h. The order here: a round of questions, then what is made of the answers.

#include "net/discovery/dns_source.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/limits.h"
#include "core/result.h"

namespace shunt::net {
namespace {

constexpr DnsType kAddressTypes[] = {DnsType::kA, DnsType::kAaaa};
constexpr DnsType kServiceTypes[] = {DnsType::kSrv};

constexpr char kStays[] = "; what was found before stays in force";

bool IsSrv(const std::string& dns) {
  return dns.starts_with('_');
}

// "." as the target says that there is no such service, RFC 2782; nothing listens on port 0.
bool IsThere(const SrvRecord& service) {
  return !service.target.empty() && service.port != 0;
}

bool CanBeABackend(const IpAddress& ip) {
  return !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsBroadcast();
}

// IPv4 before IPv6, then by number. Of two with one address the better one is first.
auto OrderOf(const BackendSpec& backend) {
  const IpAddress ip = backend.address.ip();
  return std::tuple(backend.address.family() != AF_INET, ip.high(), ip.low(), backend.address.port(),
                    backend.backup, kMostWeight - backend.weight);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DnsSource>> DnsSource::Create(std::string dns, Tell tell, DnsOptions options) {
  Fd events(epoll_create1(EPOLL_CLOEXEC));
  if (!events.valid()) return ToStatus({errno}, absl::StrCat("ask DNS for ", dns));
  return std::unique_ptr<DnsSource>(
      new DnsSource(std::move(dns), std::move(events), std::move(tell), std::move(options)));
}

DnsSource::DnsSource(std::string dns, Fd events, Tell tell, DnsOptions options)
    : dns_(std::move(dns)),
      name_(IsSrv(dns_) ? dns_ : dns_.substr(0, dns_.rfind(':'))),
      port_(IsSrv(dns_) ? 0 : ParsePortNumber(dns_.substr(dns_.rfind(':') + 1)).value_or(0)),
      events_(std::move(events)),
      options_(std::move(options)),
      teller_(std::move(tell)) {}

std::span<const DnsType> DnsSource::first_types() const {
  return port_ == 0 ? std::span<const DnsType>(kServiceTypes) : kAddressTypes;
}

// ---- a round

void DnsSource::Advance(int64_t now) {
  if (client_ == nullptr) {
    if (now < due_) return;
    round_ends_ = now + kRound;
    if (absl::Status begun = Begin(); !begun.ok()) {
      Fail(std::move(begun), now);
      return;
    }
  }
  client_->Serve();
  GoOn();
  if (under_way_ == 0 || now >= round_ends_) {
    End(now);
  } else {
    due_ = std::min(round_ends_, now + client_->Wait().value_or(0));
  }
}

absl::Status DnsSource::Begin() {
  absl::StatusOr<std::unique_ptr<DnsClient>> client = DnsClient::Create(options_, events_.get());
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  names_ = client_->NamesFor(name_);
  asks_targets_ = false;
  unclear_ = absl::OkStatus();
  AskFor(0);
  return absl::OkStatus();
}

void DnsSource::AskFor(size_t name) {
  name_at_ = name;
  answers_.clear();
  for (const DnsType type : first_types()) waiting_.emplace_back(names_[name], type);
}

void DnsSource::GoOn() {
  do {
    while (!waiting_.empty() && under_way_ < limits::kDnsQuestions) {
      const Question question = std::move(waiting_.front());
      waiting_.pop_front();
      ++under_way_;
      client_->Ask(question.first, question.second, [this, question](DnsClient::Answer answer) {
        --under_way_;
        answers_.emplace(question, std::move(answer));
      });
    }
  } while (under_way_ == 0 && PutNext());
}

bool DnsSource::PutNext() {
  if (asks_targets_) return false;
  const std::string& name = names_[name_at_];
  bool found = false;
  absl::Status failure;
  for (const DnsType type : first_types()) {
    const DnsClient::Answer& answer = answers_.at({name, type});
    found = found || answer.ok();
    if (failure.ok() && !absl::IsNotFound(answer.status())) failure = answer.status();
  }
  if (!found) {
    if (name_at_ + 1 == names_.size() || (!failure.ok() && name == answered_)) return false;
    if (unclear_.ok()) unclear_ = failure;
    AskFor(name_at_ + 1);
    return true;
  }
  if (port_ != 0) return false;
  asks_targets_ = true;
  const DnsClient::Answer& services = answers_.at({name, DnsType::kSrv});
  std::set<std::string> targets;
  for (const SrvRecord& service : services->services) {
    if (!IsThere(service) || !targets.insert(service.target).second) continue;
    for (const DnsType type : kAddressTypes) waiting_.emplace_back(service.target, type);
  }
  return !waiting_.empty();
}

void DnsSource::End(int64_t now) {
  client_.reset();  // what it has not answered, it answers now
  waiting_.clear();
  absl::StatusOr<Found> found = Gather();
  if (!found.ok()) {
    Fail(found.status(), now);
    return;
  }
  known_ = std::move(found->known);
  answered_ = names_[name_at_];
  due_ = now + std::clamp(int64_t{found->ttl} * 1'000'000'000, kShortest, kLongest);
  if (found->missing.ok()) {
    retry_ = kFirstRetry;
  } else {
    due_ = std::min(due_, now + NextRetry());
  }
  teller_.Found(std::move(found->backends), std::move(found->missing));
}

void DnsSource::Fail(const absl::Status& why, int64_t now) {
  due_ = now + NextRetry();
  teller_.Failed(absl::Status(why.code(), absl::StrCat(why.message(), kStays)));
}

int64_t DnsSource::NextRetry() {
  return std::exchange(retry_, std::min(2 * retry_, kLastRetry));
}

// ---- what is made of the answers

absl::StatusOr<DnsSource::Found> DnsSource::Gather() {
  Found found;
  const std::string& name = names_[name_at_];
  if (port_ != 0) {
    AddAddresses(name, port_, BackendSpec(), found);
  } else {
    const DnsClient::Answer& services = answers_.at({name, DnsType::kSrv});
    if (!services.ok()) return NothingAt(services.status());
    found.ttl = services->ttl;
    const auto lowest = std::ranges::min(services->services, {}, &SrvRecord::priority).priority;
    for (const SrvRecord& service : services->services) {
      if (!IsThere(service)) continue;
      BackendSpec like;
      like.weight = std::max<uint32_t>(service.weight, 1);
      like.backup = service.priority != lowest;
      AddAddresses(service.target, service.port, like, found);
    }
  }
  if (found.backends.size() > limits::kDnsBackends) {
    return absl::ResourceExhaustedError(absl::StrCat(name, " has more than ", limits::kDnsBackends,
                                                     " backends: more are not taken from DNS"));
  }
  if (found.backends.empty()) return NothingAt(found.missing);
  std::ranges::sort(found.backends, {}, OrderOf);
  const auto repeated =
      std::unique(found.backends.begin(), found.backends.end(),
                  [](const BackendSpec& a, const BackendSpec& b) { return a.address == b.address; });
  found.backends.erase(repeated, found.backends.end());
  return found;
}

void DnsSource::AddAddresses(const std::string& host, uint16_t port, const BackendSpec& like, Found& found) {
  for (const DnsType type : kAddressTypes) {
    const Question question(host, type);
    const DnsRecords* records = nullptr;
    const auto answer = answers_.find(question);
    if (answer != answers_.end() && answer->second.ok()) {
      records = &*answer->second;
      found.ttl = std::min(found.ttl, records->ttl);
    } else if (answer == answers_.end() || !absl::IsNotFound(answer->second.status())) {
      if (found.missing.ok()) found.missing = MissingOf(question, answer);
      if (const auto before = known_.find(question); before != known_.end()) records = &before->second;
    }
    if (records == nullptr) continue;
    found.known.emplace(question, *records);
    for (const IpAddress& ip : records->addresses) {
      if (!CanBeABackend(ip) || found.backends.size() > limits::kDnsBackends) continue;
      found.backends.push_back(like);
      found.backends.back().address = SockAddr(ip, port);
    }
  }
}

absl::Status DnsSource::MissingOf(const Question& question, Answers::const_iterator answer) const {
  const absl::Status why =
      answer != answers_.end()
          ? answer->second.status()
          : absl::DeadlineExceededError(absl::StrCat(question.first, " was not asked for in time"));
  return absl::Status(why.code(), absl::StrCat(why.message(), kStays));
}

absl::Status DnsSource::NothingAt(const absl::Status& why) const {
  if (!why.ok() && !absl::IsNotFound(why)) return why;
  const size_t others = names_.size() - 1;
  return absl::NotFoundError(
      absl::StrCat(port_ == 0 ? "no SRV record" : "no A or AAAA record", " leads from ", name_,
                   others == 0 ? "" : absl::StrCat(", or its ", others, " names by the search list,"),
                   " to a backend", unclear_.ok() ? "" : absl::StrCat(" (", unclear_.message(), ")"),
                   ": mend the zone, or change discover.dns"));
}

}  // namespace shunt::net
