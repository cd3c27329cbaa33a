// SPDX-License-Identifier: Apache-2.0
// DnsClient: see dns_client.h.

#include "net/discovery/dns_client.h"

#include <sys/epoll.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"

namespace shunt::net {
namespace {

// A turn ends after so many reports of sockets: the epoll reports again what is left.
constexpr int kReportsPerTurn = 64;

constexpr int kClassInternet = 1;

struct Question {
  std::string name;
  DnsType type;
  DnsClient::Answered answered;
};

absl::Status Failure(const Question& question, int status) {
  const std::string what = absl::StrCat(DnsTypeName(question.type), " of ", question.name, ": ");
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
      return absl::NotFoundError(absl::StrCat(what, "there is none"));
    case ARES_ETIMEOUT:
    case ARES_EDESTRUCTION:
      return absl::DeadlineExceededError(absl::StrCat(what, "no DNS server has answered in time"));
    case ARES_ECONNREFUSED:  // SERVFAIL, NOTIMP and REFUSED as well
      return absl::UnavailableError(absl::StrCat(what, "each DNS server fails, refuses, or is not there"));
    default:
      return absl::UnavailableError(absl::StrCat(what, ares_strerror(status)));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<DnsClient>> DnsClient::Create(const DnsOptions& options, int epoll_fd) {
  static const int library = ares_library_init(ARES_LIB_INIT_ALL);
  SHUNT_CHECK(library == ARES_SUCCESS);
  std::unique_ptr<DnsClient> client(new DnsClient(epoll_fd));
  std::string resolv_conf = options.resolv_conf;
  std::string lookups = "b";  // c-ares' letter for DNS
  ares_options asked{};
  asked.timeout = options.attempt_timeout_ms;
  asked.tries = options.tries;
  asked.lookups = lookups.data();
  asked.resolvconf_path = resolv_conf.data();
  asked.sock_state_cb = Watch;
  asked.sock_state_cb_data = client.get();
  int status = ares_init_options(
      &client->channel_, &asked,
      ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_RESOLVCONF | ARES_OPT_SOCK_STATE_CB);
  if (status == ARES_SUCCESS && !options.servers.empty()) {
    status = ares_set_servers_ports_csv(client->channel_, options.servers.c_str());
  }
  if (status != ARES_SUCCESS) {
    return absl::UnavailableError(absl::StrCat("ask DNS servers by ", options.resolv_conf, " ",
                                               options.servers, ": ", ares_strerror(status)));
  }
  return client;
}

DnsClient::~DnsClient() {
  if (channel_ != nullptr) ares_destroy(channel_);
}

std::vector<std::string> DnsClient::NamesFor(const std::string& name) const {
  if (name.ends_with('.')) return {name};
  ares_options found{};
  int filled = 0;
  std::vector<std::string> names;
  int ndots = 1;
  if (ares_save_options(channel_, &found, &filled) == ARES_SUCCESS) {
    ndots = found.ndots;
    for (const char* domain : std::span(found.domains, static_cast<size_t>(found.ndomains))) {
      const absl::string_view suffix = domain;
      if (!suffix.empty() && suffix != ".") names.push_back(absl::StrCat(name, ".", suffix));
    }
  }
  ares_destroy_options(&found);
  const bool whole_first = std::count(name.begin(), name.end(), '.') >= ndots;
  names.insert(whole_first ? names.begin() : names.end(), name);
  return names;
}

void DnsClient::Ask(const std::string& name, DnsType type, Answered answered) {
  auto* const question = new Question{name, type, std::move(answered)};
  ares_query(channel_, name.c_str(), kClassInternet, static_cast<int>(type), TakeAnswer, question);
}

void DnsClient::TakeAnswer(void* argument, int status, int /*timeouts*/, unsigned char* bytes, int size) {
  const std::unique_ptr<Question> question(static_cast<Question*>(argument));
  if (status != ARES_SUCCESS) {
    question->answered(Failure(*question, status));
    return;
  }
  std::optional<DnsRecords> records = ReadDnsAnswer({bytes, static_cast<size_t>(size)}, question->type);
  if (!records) {
    question->answered(Failure(*question, ARES_EBADRESP));
  } else if (records->empty()) {
    question->answered(Failure(*question, ARES_ENODATA));
  } else {
    question->answered(*std::move(records));
  }
}

void DnsClient::Watch(void* self, ares_socket_t socket_fd, int readable, int writable) {
  const int epoll_fd = static_cast<DnsClient*>(self)->epoll_fd_;
  epoll_event event{};
  event.data.fd = socket_fd;
  event.events = (readable != 0 ? EPOLLIN : 0u) | (writable != 0 ? EPOLLOUT : 0u);
  if (event.events == 0) {
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, socket_fd, nullptr);
  } else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, socket_fd, &event) != 0) {
    // Where it cannot be added for want of memory, the question runs into its time-out.
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, socket_fd, &event);
  }
}

void DnsClient::Serve() {
  std::array<epoll_event, kReportsPerTurn> events;
  const int count = epoll_wait(epoll_fd_, events.data(), kReportsPerTurn, 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    // Errors and hang-ups are found by reading and writing.
    const uint32_t ends = event.events & (EPOLLERR | EPOLLHUP);
    const bool readable = (event.events & EPOLLIN) != 0 || ends != 0;
    const bool writable = (event.events & EPOLLOUT) != 0 || ends != 0;
    ares_process_fd(channel_, readable ? event.data.fd : ARES_SOCKET_BAD,
                    writable ? event.data.fd : ARES_SOCKET_BAD);
  }
  ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // time-outs
}

std::optional<int64_t> DnsClient::Wait() const {
  timeval wait{};
  if (ares_timeout(channel_, nullptr, &wait) == nullptr) return std::nullopt;
  return int64_t{wait.tv_sec} * 1'000'000'000 + int64_t{wait.tv_usec} * 1000;
}

}  // namespace shunt::net
