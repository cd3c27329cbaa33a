// SPDX-License-Identifier: Apache-2.0
#include "tools/pod_directory.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/result.h"

namespace shunt {

absl::StatusOr<std::unique_ptr<PodDirectory>> PodDirectory::Start(HttpOrigin server, std::string node,
                                                                  Receiver receive) {
  std::unique_ptr<PodDirectory> directory(new PodDirectory(std::move(receive)));
  absl::StatusOr<std::unique_ptr<KubeClient>> client = KubeClient::Start(
      {.server = std::move(server), .node = std::move(node), .longest = kAsked, .one_try = kOneTry});
  if (!client.ok()) return client.status();
  directory->client_ = *std::move(client);
  directory->events_.reset(epoll_create1(EPOLL_CLOEXEC));
  directory->timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  for (const int fd : {directory->client_->event_fd(), directory->timer_.get()}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(directory->events_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      return ToStatus({errno}, "watch for the API server's answers");
  }
  return directory;
}

PodDirectory::Record PodDirectory::Find(const PodQuery& query) const {
  const auto found = known_.find(query.uid);
  Record record = found == known_.end() ? nullptr : found->second.lock();
  // Runtimes may say anything: whether the pod of this name has this uid the server tells who asks.
  if (record != nullptr && query.has_names() &&
      (record->pod_namespace != query.pod_namespace || record->pod != query.pod))
    return nullptr;
  return record;
}

absl::Status PodDirectory::Ask(const PodQuery& query, uint64_t asker) {
  for (auto& [number, question] : questions_) {
    if (question.query != query) continue;
    question.askers.push_back(asker);
    return absl::OkStatus();
  }
  const uint64_t number = ++last_number_;
  if (absl::Status status = client_->Ask(number, query); !status.ok()) return status;
  questions_[number] = {.query = query, .askers = {asker}, .end = Clock::now() + kLongest};
  SetTimer();
  return absl::OkStatus();
}

void PodDirectory::Forget(uint64_t asker) {
  for (auto& [number, question] : questions_) std::erase(question.askers, asker);
}

void PodDirectory::HandleEvents() {
  uint64_t expirations = 0;
  (void)!read(timer_.get(), &expirations, sizeof(expirations));
  for (KubeClient::Answer& answer : client_->TakeAnswers()) Answer(answer.number, std::move(answer.record));
  while (!questions_.empty() && questions_.begin()->second.end <= Clock::now())
    Answer(questions_.begin()->first, absl::DeadlineExceededError("looking its address up takes too long"));
  std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
  SetTimer();
}

void PodDirectory::Answer(uint64_t number, absl::StatusOr<PodRecord> record) {
  const auto found = questions_.find(number);
  if (found == questions_.end()) return;  // too late
  const Question question = std::move(found->second);
  questions_.erase(found);
  const absl::StatusOr<Record> shared =
      record.ok() ? absl::StatusOr<Record>(std::make_shared<const PodRecord>(*std::move(record)))
                  : record.status();
  if (shared.ok() && !question.query.uid.empty()) known_[question.query.uid] = *shared;
  for (const uint64_t asker : question.askers) receive_(asker, shared);
}

void PodDirectory::SetTimer() {
  itimerspec at{};
  if (!questions_.empty()) {
    const auto left = std::max<std::chrono::nanoseconds>(questions_.begin()->second.end - Clock::now(),
                                                         std::chrono::milliseconds(1));
    at.it_value = {.tv_sec = left.count() / 1'000'000'000, .tv_nsec = left.count() % 1'000'000'000};
  }
  timerfd_settime(timer_.get(), 0, &at, nullptr);
}

}  // namespace shunt
