// SPDX-License-Identifier: Apache-2.0
// KubeClient: see kube_client.h. The order here: the thread that asks, the client's thread, one request.

#include "tools/kube_client.h"

#include <netdb.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/confinement.h"
#include "core/result.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{100};  // doubled with each try
constexpr milliseconds kLongestPause{1600};

milliseconds Until(KubeClient::Clock::time_point then) {
  // Rounded up: who wakes too early would only sleep again.
  return std::chrono::ceil<milliseconds>(then - KubeClient::Clock::now());
}

// What would help against an answer that is final.
const char* RemedyFor(long code, const PodQuery& query) {
  switch (code) {
    case 404:
      return "; has it been deleted meanwhile?";
    case 401:
      return "; give the agent a token that is valid there";
    case 403:
      return query.has_names() ? "; give the agent's account the right to get pods (deploy/kubernetes)"
                               : "; give the agent's account the right to list pods, or the agent the folder "
                                 "/var/log/pods (deploy/kubernetes)";
    default:
      return "";
  }
}

// Failures that another try would only repeat.
bool IsFinal(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_URL_MALFORMAT:
    case CURLE_WRITE_ERROR:  // ours: the answer was too long
    case CURLE_OUT_OF_MEMORY:
      return true;
    default:
      return false;
  }
}

}  // namespace

// ---- the thread that asks

absl::StatusOr<std::unique_ptr<KubeClient>> KubeClient::Start(Options options) {
  const absl::StatusOr<Libcurl> curl = Libcurl::Load();
  if (!curl.ok()) return curl.status();
  std::unique_ptr<KubeClient> client(new KubeClient(std::move(options), *curl));
  client->event_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!client->event_.valid()) return ToStatus({errno}, "make an eventfd for the API server's answers");
  client->multi_ = curl->multi_init();
  if (client->multi_ == nullptr) return absl::ResourceExhaustedError("libcurl has no memory");
  curl->multi_setopt(client->multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, kConnections);
  client->thread_ = std::thread([self = client.get()] { self->Run(); });
  client->begun_.wait();
  return client;
}

KubeClient::~KubeClient() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    curl_.multi_wakeup(multi_);
    thread_.join();
  }
  if (multi_ != nullptr) curl_.multi_cleanup(multi_);
}

absl::Status KubeClient::Ask(uint64_t number, const PodQuery& query) {
  if (query.has_names() && !(IsPodName(query.pod_namespace) && IsPodName(query.pod)))
    return absl::InvalidArgumentError("no pod can have that name");
  if (!query.has_names() && options_.node.empty()) {
    return absl::FailedPreconditionError(
        "only its uid is known; to find it among the pods of this node set NODE_NAME, or give the agent the "
        "folder /var/log/pods");
  }
  if (asked_ >= kQuestions) return absl::ResourceExhaustedError("too many pods are being asked about");
  ++asked_;
  {
    const std::lock_guard lock(mutex_);
    new_.emplace_back(number, query);
  }
  curl_.multi_wakeup(multi_);
  return absl::OkStatus();
}

std::vector<KubeClient::Answer> KubeClient::TakeAnswers() {
  uint64_t count = 0;
  (void)!read(event_.get(), &count, sizeof(count));
  std::vector<Answer> answers;
  {
    const std::lock_guard lock(mutex_);
    answers.swap(answers_);
  }
  asked_ -= answers.size();
  return answers;
}

// ---- the client's thread

void KubeClient::Run() {
  prctl(PR_SET_NAME, "shunt-kube");
  // Signals are for the other threads.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  // Without capabilities less can be read, and nothing else is lost: what fails then says so by itself.
  KeepCapabilities(EngineThread::kClient).IgnoreError();
  begun_.count_down();
  while (TakeNew()) {
    const Clock::time_point next = StartDue();
    int running = 0;
    curl_.multi_perform(multi_, &running);
    int left = 0;
    bool finished = false;
    while (const CURLMsg* const message = curl_.multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      for (auto& [number, question] : questions_) {
        if (question.request != message->easy_handle) continue;
        Finish(question, code);
        finished = true;
        break;
      }
    }
    std::erase_if(questions_, [](const auto& entry) { return entry.second.number == 0; });
    if (finished) continue;
    constexpr milliseconds kLongestSleep{60'000};
    curl_.multi_poll(multi_, nullptr, 0,
                     static_cast<int>(std::clamp(Until(next), milliseconds(0), kLongestSleep).count()),
                     nullptr);
  }
  for (auto& [number, question] : questions_) End(question);
  questions_.clear();
}

bool KubeClient::TakeNew() {
  std::vector<std::pair<uint64_t, PodQuery>> fresh;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return false;
    fresh.swap(new_);
  }
  const Clock::time_point now = Clock::now();
  for (auto& [number, query] : fresh) {
    Question& question = questions_[number];
    question.number = number;
    question.query = std::move(query);
    question.deadline = now + options_.longest;
    question.next_try = now;
  }
  return true;
}

KubeClient::Clock::time_point KubeClient::StartDue() {
  Clock::time_point next = Clock::now() + std::chrono::hours(1);
  for (auto& [number, question] : questions_) {
    if (question.request == nullptr && question.next_try <= Clock::now()) {
      if (Clock::now() >= question.deadline) {
        const std::string seconds = absl::StrCat(static_cast<double>(options_.longest.count()) / 1000,
                                                 " s (can this node reach it?), the last try: ");
        Reply(number,
              absl::DeadlineExceededError(absl::StrCat(
                  "no answer within ", seconds,
                  question.last_failure.ok() ? "none was possible" : question.last_failure.message())));
        question.number = 0;
        continue;
      }
      if (absl::Status status = Begin(question); !status.ok()) Retry(question, std::move(status));
    }
    // A request under way has a time of its own, which libcurl watches.
    if (question.number != 0 && question.request == nullptr) next = std::min(next, question.next_try);
  }
  std::erase_if(questions_, [](const auto& entry) { return entry.second.number == 0; });
  return next;
}

void KubeClient::Reply(uint64_t number, absl::StatusOr<PodRecord> record) {
  {
    const std::lock_guard lock(mutex_);
    answers_.push_back({number, std::move(record)});
  }
  const uint64_t one = 1;
  (void)!write(event_.get(), &one, sizeof(one));
}

// ---- one request

std::string KubeClient::UrlFor(const PodQuery& query) const {
  const std::string& server = options_.server.url;
  if (query.has_names())
    return absl::StrCat(server, "/api/v1/namespaces/", query.pod_namespace, "/pods/", query.pod);
  return absl::StrCat(server, "/api/v1/pods?fieldSelector=spec.nodeName%3D", options_.node,
                      "&resourceVersion=0");
}

absl::Status KubeClient::Begin(Question& question) {
  ++question.tries;
  question.body.clear();
  question.too_long = false;
  question.error[0] = '\0';
  question.request = curl_.easy_init();
  if (question.request == nullptr) return absl::ResourceExhaustedError("libcurl has no memory");
  absl::Status status = Present(question);
  if (status.ok()) status = AddAddress(question);
  if (!status.ok()) {
    End(question);
    return status;
  }
  const auto set = [&](CURLoption option, auto value) { curl_.easy_setopt(question.request, option, value); };
  const long time = static_cast<long>(
      std::max(milliseconds(1), std::min(options_.one_try, Until(question.deadline))).count());
  set(CURLOPT_URL, UrlFor(question.query).c_str());  // copied
  set(CURLOPT_PROTOCOLS_STR, "https");
  set(CURLOPT_PROXY, "");  // whatever the environment says
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_TIMEOUT_MS, time);
  set(CURLOPT_CONNECTTIMEOUT_MS, time);
  set(CURLOPT_USERAGENT, "shunt/" SHUNT_VERSION);
  set(CURLOPT_HTTPHEADER, question.headers);
  set(CURLOPT_WRITEFUNCTION, &KubeClient::OnBytes);
  set(CURLOPT_WRITEDATA, &question);
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(question.error));
  curl_.multi_add_handle(multi_, question.request);
  return absl::OkStatus();
}

// Who we are, and whom we take the server's certificates from: read anew each time.
absl::Status KubeClient::Present(Question& question) {
  const KubeServer& server = options_.server;
  const auto lend = [&](CURLoption option, std::string& text) {
    curl_blob blob = {.data = text.data(), .len = text.size(), .flags = CURL_BLOB_NOCOPY};
    return curl_.easy_setopt(question.request, option, &blob) == CURLE_OK;
  };
  const auto read = [](const KubeText& from, std::string& into) {
    absl::StatusOr<std::string> text = from.Read();
    const absl::Status status = text.status();
    if (text.ok()) into = *std::move(text);
    return status;
  };
  bool taken = true;
  if (server.authority.is_there()) {
    if (absl::Status status = read(server.authority, question.authority); !status.ok()) return status;
    taken = lend(CURLOPT_CAINFO_BLOB, question.authority);
    // Else everybody whom the machine trusts would be trusted as well.
    curl_.easy_setopt(question.request, CURLOPT_CAPATH, nullptr);
  }
  if (server.certificate.is_there()) {
    if (absl::Status status = read(server.certificate, question.certificate); !status.ok()) return status;
    if (absl::Status status = read(server.key, question.key); !status.ok()) return status;
    taken =
        taken && lend(CURLOPT_SSLCERT_BLOB, question.certificate) && lend(CURLOPT_SSLKEY_BLOB, question.key);
  }
  if (!taken) return absl::InternalError("libcurl does not take certificates");
  question.headers = curl_.slist_append(nullptr, "Accept: application/json");
  if (server.token.is_there()) {
    std::string token;
    if (absl::Status status = read(server.token, token); !status.ok()) return status;
    absl::StripAsciiWhitespace(&token);
    if (token.empty() || !std::all_of(token.begin(), token.end(), absl::ascii_isgraph))
      return absl::InvalidArgumentError(absl::StrCat("the token in ", server.token.file, " is none"));
    question.headers =
        curl_.slist_append(question.headers, absl::StrCat("Authorization: Bearer ", token).c_str());
  }
  return absl::OkStatus();
}

// libcurl would look a name up on a thread that it makes, which a confined engine must not have. One family
// at a time: for both, the C library sends by a system call of its own.
absl::Status KubeClient::AddAddress(Question& question) {
  const KubeServer& server = options_.server;
  int failure = 0;
  for (const int family : {AF_INET, AF_INET6}) {
    const addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_family = family, .ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    failure = getaddrinfo(server.host.c_str(), server.port.c_str(), &hints, &found);
    if (failure != 0) continue;
    char address[NI_MAXHOST] = {};
    failure =
        getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof(address), nullptr, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (failure != 0) continue;
    if (server.host == address) return absl::OkStatus();
    const bool v6 = family == AF_INET6;
    question.addresses = curl_.slist_append(
        nullptr,
        absl::StrCat(server.host, ":", server.port, ":", v6 ? "[" : "", address, v6 ? "]" : "").c_str());
    curl_.easy_setopt(question.request, CURLOPT_RESOLVE, question.addresses);
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("look up ", server.host, ": ", gai_strerror(failure)));
}

size_t KubeClient::OnBytes(char* bytes, size_t size, size_t count, void* context) {
  auto& question = *static_cast<Question*>(context);
  const size_t longest = question.query.has_names() ? kPodBytes : kListBytes;
  if (question.body.size() + size * count > longest) {
    question.too_long = true;
    return 0;
  }
  question.body.append(bytes, size * count);
  return size * count;
}

// Takes the request away, whatever has become of it.
void KubeClient::End(Question& question) {
  if (question.request != nullptr) {
    curl_.multi_remove_handle(multi_, question.request);
    curl_.easy_cleanup(question.request);
  }
  curl_.slist_free_all(question.headers);
  curl_.slist_free_all(question.addresses);
  question.request = nullptr;
  question.headers = question.addresses = nullptr;
}

void KubeClient::Retry(Question& question, absl::Status failure, milliseconds at_least) {
  const milliseconds pause =
      std::max(at_least, std::min(kLongestPause, kFirstPause * (1 << std::min(question.tries, 10))));
  question.last_failure = std::move(failure);
  question.next_try = std::min(Clock::now() + pause, question.deadline);
}

void KubeClient::Finish(Question& question, CURLcode code) {
  long status = 0;
  curl_off_t retry_after = 0;  // seconds
  curl_.easy_getinfo(question.request, CURLINFO_RESPONSE_CODE, &status);
  curl_.easy_getinfo(question.request, CURLINFO_RETRY_AFTER, &retry_after);
  End(question);
  absl::StatusOr<PodRecord> record = absl::UnknownError("");
  bool final = false;
  if (question.too_long) {
    record = absl::OutOfRangeError(
        absl::StrCat("the answer has more than ", LongestFor(question.query), " bytes"));
    final = true;
  } else if (code != CURLE_OK) {
    const char* const remedy =
        code == CURLE_PEER_FAILED_VERIFICATION ? "; is the certificate-authority that of this server?" : "";
    record = absl::UnavailableError(
        absl::StrCat(question.error[0] != '\0' ? question.error : curl_.easy_strerror(code), remedy));
    final = IsFinal(code);
  } else {
    record = Understand(question, status);
    // A pod that is new may not be in the server's memory yet, from which lists are answered.
    const bool unseen = absl::IsNotFound(record.status()) && status == 200 && !question.query.has_names();
    final = record.ok() || !(status == 401 || status == 429 || status >= 500 || unseen);
  }
  if (!final) {
    constexpr curl_off_t kLongestWish = 3600;
    return Retry(question, record.status(),
                 std::chrono::seconds(std::clamp<curl_off_t>(retry_after, 0, kLongestWish)));
  }
  Reply(question.number, std::move(record));
  question.number = 0;
}

absl::StatusOr<PodRecord> KubeClient::Understand(const Question& question, long code) const {
  if (code == 200) return ReadPod(question.body, question.query);
  const std::string refusal = RefusalIn(question.body);
  const std::string text = absl::StrCat("it answers ", code, refusal.empty() ? "" : ": ", refusal,
                                        RemedyFor(code, question.query));
  return code == 404 ? absl::NotFoundError(text) : absl::FailedPreconditionError(text);
}

}  // namespace shunt
