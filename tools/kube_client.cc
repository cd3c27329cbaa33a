// SPDX-License-Identifier: Apache-2.0
// KubeClient: see kube_client.h. The order here: the thread that asks, the client's thread, one request.

#include "tools/kube_client.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

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
  BeginThread(EngineThread::kClient, "shunt-kube");
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
        if (!question.is_asked() || question.request->handle() != message->easy_handle) continue;
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
    if (!question.is_asked() && question.next_try <= Clock::now()) {
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
    if (question.number != 0 && !question.is_asked()) next = std::min(next, question.next_try);
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

std::string KubeClient::PathFor(const PodQuery& query) const {
  if (query.has_names()) return absl::StrCat("/api/v1/namespaces/", query.pod_namespace, "/pods/", query.pod);
  return absl::StrCat("/api/v1/pods?fieldSelector=spec.nodeName%3D", options_.node, "&resourceVersion=0");
}

absl::Status KubeClient::Begin(Question& question) {
  ++question.tries;
  if (question.request == nullptr) question.request = std::make_unique<HttpRequest>(curl_, multi_);
  const milliseconds time = std::max(milliseconds(1), std::min(options_.one_try, Until(question.deadline)));
  return question.request->Begin(
      options_.server,
      {.path = PathFor(question.query), .longest = time, .most_bytes = LongestFor(question.query)});
}

void KubeClient::Retry(Question& question, absl::Status failure, milliseconds at_least) {
  const milliseconds pause =
      std::max(at_least, std::min(kLongestPause, kFirstPause * (1 << std::min(question.tries, 10))));
  question.last_failure = std::move(failure);
  question.next_try = std::min(Clock::now() + pause, question.deadline);
}

void KubeClient::Finish(Question& question, CURLcode code) {
  const HttpAnswer answer = question.request->Finish(code);
  absl::StatusOr<PodRecord> record = answer.failure.ok() ? absl::UnknownError("") : answer.failure;
  bool final = answer.is_final;
  if (answer.failure.ok()) {
    record = Understand(question, answer);
    // A pod that is new may not be in the server's memory yet, from which lists are answered.
    const bool unseen =
        absl::IsNotFound(record.status()) && answer.code == 200 && !question.query.has_names();
    final = record.ok() || !(answer.code == 401 || answer.code == 429 || answer.code >= 500 || unseen);
  }
  if (!final) return Retry(question, record.status(), answer.retry_after);
  Reply(question.number, std::move(record));
  question.number = 0;
}

absl::StatusOr<PodRecord> KubeClient::Understand(const Question& question, const HttpAnswer& answer) const {
  const long code = answer.code;
  if (code == 200) return ReadPod(answer.body, question.query);
  const std::string refusal = RefusalIn(answer.body);
  const std::string text = absl::StrCat("it answers ", code, refusal.empty() ? "" : ": ", refusal,
                                        RemedyFor(code, question.query));
  return code == 404 ? absl::NotFoundError(text) : absl::FailedPreconditionError(text);
}

}  // namespace shunt
