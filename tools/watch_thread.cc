// SPDX-License-Identifier: Apache-2.0
// WatchThread: see watch_thread.h. The order here: what a source has, the thread, one request.

#include "tools/watch_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/confinement.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;

// A server that ends streams as soon as they begin is not asked without a pause.
constexpr milliseconds kStreamsApart{1'000};

milliseconds RoundedUp(WatchThread::Clock::duration time) {
  return std::chrono::ceil<milliseconds>(time);  // who wakes too early would only sleep again
}

}  // namespace

// What the thread has told and a source has not taken yet.
struct WatchThread::Box {
  explicit Box(Fd its_event) : event(std::move(its_event)) {}

  void Ring() const {
    const uint64_t one = 1;
    (void)!write(event.get(), &one, sizeof(one));
  }
  void Hush() const {
    uint64_t count = 0;
    (void)!read(event.get(), &count, sizeof(count));
  }

  const Fd event;
  std::atomic<bool> abandoned = false;  // by the source
  std::mutex mutex;
};

struct WatchThread::Letterbox : Box {
  using Box::Box;
  using Found = absl::StatusOr<std::vector<net::BackendSpec>>;

  void Put(Found found) {
    {
      const std::lock_guard lock(mutex);
      if (found.ok()) letters.clear();  // overtaken
      letters.push_back(std::move(found));
    }
    Ring();
  }
  std::vector<Found> Take() {
    Hush();
    const std::lock_guard lock(mutex);
    return std::exchange(letters, {});
  }

  std::vector<Found> letters;
};

// What several watchers have found together, and what is wrong with each.
struct WatchThread::ServicesBox : Box {
  ServicesBox(Fd its_event, size_t watchers) : Box(std::move(its_event)), wrong(watchers) {}

  void Add(net::FoundChanges more) {
    {
      const std::lock_guard lock(mutex);
      changes.Add(std::move(more));
      news = true;
    }
    Ring();
  }
  void Say(size_t watcher, const absl::Status& status) {
    {
      const std::lock_guard lock(mutex);
      if (wrong[watcher] == status) return;
      wrong[watcher] = status;
      news = true;
    }
    Ring();
  }
  void TellTo(const net::Source::TellServices& tell) {
    Hush();
    net::FoundChanges found;
    absl::Status status;
    {
      const std::lock_guard lock(mutex);
      if (!std::exchange(news, false)) return;
      found = std::exchange(changes, {});
      for (const absl::Status& one : wrong) {
        if (one.ok() || status == one) continue;
        status =
            status.ok() ? one : absl::Status(one.code(), absl::StrCat(status.message(), "; ", one.message()));
      }
    }
    tell(std::move(found), status);
  }

  bool news = false;
  net::FoundChanges changes;
  std::vector<absl::Status> wrong;  // of each watcher
};

class WatchThread::RemoteSource : public net::Source {
 public:
  RemoteSource(WatchThread& thread, std::string title, std::shared_ptr<Box> box,
               std::function<void()> advance)
      : thread_(thread), title_(std::move(title)), box_(std::move(box)), advance_(std::move(advance)) {}
  ~RemoteSource() override {
    box_->abandoned = true;
    thread_.curl_.multi_wakeup(thread_.multi_);
  }
  std::string Title() const override { return title_; }
  int event_fd() const override { return box_->event.get(); }
  int64_t NextDue() const override { return kNever; }
  void Advance(int64_t /*now*/) override { advance_(); }

 private:
  WatchThread& thread_;
  const std::string title_;
  const std::shared_ptr<Box> box_;
  const std::function<void()> advance_;
};

// Who hears a watcher.
struct WatchThread::Ear {
  virtual ~Ear() = default;
  virtual void Found(std::vector<net::BackendSpec> /*backends*/, absl::Status /*missing*/) {}
  virtual void FoundServices(net::FoundChanges /*changes*/) {}
  virtual void IsRight() {}
  virtual void Failed(absl::Status why) = 0;
};

struct WatchThread::ListEar : Ear {
  explicit ListEar(std::shared_ptr<Letterbox> its_box)
      : box(std::move(its_box)),
        teller([to = box.get()](Letterbox::Found found) { to->Put(std::move(found)); }) {}
  void Found(std::vector<net::BackendSpec> backends, absl::Status missing) override {
    teller.Found(std::move(backends), std::move(missing));
  }
  void Failed(absl::Status why) override { teller.Failed(std::move(why)); }

  const std::shared_ptr<Letterbox> box;
  net::Teller teller;
};

struct WatchThread::ServicesEar : Ear {
  ServicesEar(std::shared_ptr<ServicesBox> its_box, size_t its_watcher)
      : box(std::move(its_box)), watcher(its_watcher) {}
  void FoundServices(net::FoundChanges changes) override { box->Add(std::move(changes)); }
  void IsRight() override { box->Say(watcher, absl::OkStatus()); }
  void Failed(absl::Status why) override { box->Say(watcher, why); }

  const std::shared_ptr<ServicesBox> box;
  const size_t watcher;
};

// A watcher and its request.
struct WatchThread::Entry {
  Entry(const WatchThread& thread, std::unique_ptr<Watcher> its_watcher, std::shared_ptr<Box> its_box,
        std::unique_ptr<Ear> its_ear)
      : watcher(std::move(its_watcher)),
        box(std::move(its_box)),
        ear(std::move(its_ear)),
        request(thread.curl_, thread.multi_) {}

  absl::Status Titled(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat(watcher->Title(), ": ", status.message()));
  }

  const std::unique_ptr<Watcher> watcher;
  const std::shared_ptr<Box> box;
  const std::unique_ptr<Ear> ear;
  HttpRequest request;
  Clock::time_point due;    // the next request, if none is under way
  Clock::time_point begun;  // the one under way
  Clock::time_point ends;   // a stream, when it has lasted long enough
  bool streams = false;
  bool heard = false;  // the stream has begun
  int failures = 0;    // since a stream has lasted
};

absl::StatusOr<std::unique_ptr<WatchThread>> WatchThread::Start() try {
  const absl::StatusOr<Libcurl> curl = Libcurl::Load();
  if (!curl.ok()) return curl.status();
  std::unique_ptr<WatchThread> watches(new WatchThread(*curl));
  watches->multi_ = curl->multi_init();
  if (watches->multi_ == nullptr) return absl::ResourceExhaustedError("libcurl has no memory");
  watches->thread_ = std::thread([self = watches.get()] { self->Run(); });
  watches->begun_.wait();
  return watches;
} catch (const std::system_error& thrown) {  // the only way in which std::thread can fail; it ends here
  return ToStatus({thrown.code().value()},
                  "start the thread that watches servers (is pids.max or RLIMIT_NPROC reached?)");
}

WatchThread::WatchThread(const Libcurl& curl) : curl_(curl) {}

WatchThread::~WatchThread() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    curl_.multi_wakeup(multi_);
    thread_.join();
  }
  new_.clear();
  if (multi_ != nullptr) curl_.multi_cleanup(multi_);
}

absl::StatusOr<std::unique_ptr<net::Source>> WatchThread::Watch(std::unique_ptr<Watcher> watcher,
                                                                net::Source::Tell tell) {
  Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return ToStatus({errno}, "make an eventfd for what a server tells");
  auto box = std::make_shared<Letterbox>(std::move(event));
  auto source = std::make_unique<RemoteSource>(*this, watcher->Title(), box, [box, tell = std::move(tell)] {
    for (Letterbox::Found& found : box->Take()) tell(std::move(found));
  });
  {
    const std::lock_guard lock(mutex_);
    new_.emplace_back(*this, std::move(watcher), box, std::make_unique<ListEar>(box));
  }
  curl_.multi_wakeup(multi_);
  return source;
}

absl::StatusOr<std::unique_ptr<net::Source>> WatchThread::Watch(
    std::string title, std::vector<std::unique_ptr<Watcher>> watchers, net::Source::TellServices tell) {
  Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return ToStatus({errno}, "make an eventfd for what a server tells");
  auto box = std::make_shared<ServicesBox>(std::move(event), watchers.size());
  auto source = std::make_unique<RemoteSource>(*this, std::move(title), box,
                                               [box, tell = std::move(tell)] { box->TellTo(tell); });
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < watchers.size(); ++i)
      new_.emplace_back(*this, std::move(watchers[i]), box, std::make_unique<ServicesEar>(box, i));
  }
  curl_.multi_wakeup(multi_);
  return source;
}

// ---- the thread

void WatchThread::Run() {
  BeginThread(EngineThread::kClient, "shunt-watch");
  begun_.count_down();
  while (TakeNew()) {
    int running = 0;
    curl_.multi_perform(multi_, &running);
    HearCurl();
    const Clock::time_point next = Turn();
    for (const Entry& entry : entries_) entry.watcher->OnPause();
    constexpr milliseconds kLongestSleep{60'000};
    const milliseconds sleep = std::clamp(RoundedUp(next - Clock::now()), milliseconds(0), kLongestSleep);
    curl_.multi_poll(multi_, nullptr, 0, static_cast<int>(sleep.count()), nullptr);
  }
  entries_.clear();
}

bool WatchThread::TakeNew() {
  const std::lock_guard lock(mutex_);
  entries_.splice(entries_.end(), new_);
  return !stop_;
}

WatchThread::Clock::time_point WatchThread::Turn() {
  entries_.remove_if([](const Entry& entry) { return entry.box->abandoned.load(); });
  Clock::time_point next = Clock::now() + std::chrono::hours(1);
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    Entry& entry = *at;
    const Clock::time_point now = Clock::now();
    if (!entry.request.under_way() && entry.due <= now) {
      const milliseconds rest = entry.watcher->Rest();
      if (rest.count() > 0) {
        next = std::min(next, now + rest);
        continue;
      }
      // To look up its name may have taken long: the others are heard before anything else, and come first.
      Begin(entry);
      entries_.splice(entries_.end(), entries_, at);
      return now;
    }
    if (entry.request.under_way() && entry.streams) CheckStream(entry, now);
    if (!entry.request.under_way()) {
      next = std::min(next, entry.due);
    } else if (entry.streams) {
      next = std::min(next, entry.heard ? entry.ends : entry.begun + kAnswerWithin);
    }  // else libcurl watches its time
  }
  return next;
}

void WatchThread::Begin(Entry& entry) {
  absl::StatusOr<Watcher::Ask> ask = entry.watcher->Next();
  if (!ask.ok()) return Settle(entry, ask.status(), {});
  entry.streams = ask->streams;
  entry.heard = false;
  HttpRequest::Wanted wanted{.path = std::move(ask->path),
                             .post = std::move(ask->post),
                             .authorization = std::move(ask->authorization),
                             .longest = kAnswerWithin,
                             .most_bytes = kMostBytes};
  if (entry.streams) {
    wanted.longest = {};
    wanted.begins = [&entry] {
      entry.heard = true;
      entry.watcher->OnStream();
    };
    wanted.take_line = [&entry](absl::string_view line) { return entry.watcher->OnLine(line); };
  }
  entry.watcher->TellTo([&entry](std::vector<net::BackendSpec> backends, const absl::Status& missing) {
    entry.ear->Found(std::move(backends), entry.Titled(missing));
  });
  entry.watcher->TellTo(Watcher::HearServices{
      .found = [&entry](net::FoundChanges changes) { entry.ear->FoundServices(std::move(changes)); },
      .right = [&entry] { entry.ear->IsRight(); }});
  if (absl::Status status = entry.request.Begin(ask->origin, std::move(wanted)); !status.ok())
    return Settle(entry, entry.watcher->OnFailure(std::move(status)), {});
  entry.begun = Clock::now();
  // Some earlier than others, since they may all have begun when the server did.
  entry.ends = entry.begun + std::chrono::duration_cast<Clock::duration>(ask->longest * (1 - Chance() / 4));
}

void WatchThread::CheckStream(Entry& entry, Clock::time_point now) {
  if (!entry.heard && now >= entry.begun + kAnswerWithin) {
    entry.request.End();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(kAnswerWithin).count();
    Hear(entry, {.failure = absl::DeadlineExceededError(absl::StrCat("no answer within ", seconds, " s"))});
  } else if (entry.heard && now >= entry.ends) {
    entry.request.End();
    Hear(entry, {.code = 200});
  }
}

void WatchThread::HearCurl() {
  int left = 0;
  while (const CURLMsg* const message = curl_.multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    const CURL* const handle = message->easy_handle;
    const auto entry =
        std::ranges::find_if(entries_, [handle](const Entry& one) { return one.request.handle() == handle; });
    if (entry == entries_.end()) continue;
    Hear(*entry, entry->request.Finish(code));
  }
}

// ---- one request

void WatchThread::Hear(Entry& entry, const HttpAnswer& answer) {
  if (entry.streams && entry.heard && Clock::now() >= entry.begun + kAnswerWithin) entry.failures = 0;
  const absl::Status status =
      answer.failure.ok() ? entry.watcher->OnAnswer(answer) : entry.watcher->OnFailure(answer.failure);
  Settle(entry, status, answer.retry_after);
}

void WatchThread::Settle(Entry& entry, const absl::Status& status, std::chrono::seconds at_least) {
  const Clock::time_point now = Clock::now();
  if (status.ok()) {
    entry.due = entry.streams ? std::max(now, entry.begun + kStreamsApart) : now;
    return;
  }
  entry.ear->Failed(entry.Titled(status));
  const milliseconds longest = std::min(kLongestPause, kFirstPause * (1 << std::min(entry.failures++, 10)));
  const milliseconds pause = std::chrono::duration_cast<milliseconds>(longest * (1 + Chance()) / 2);
  entry.due = now + std::max<milliseconds>(pause, at_least);
}

}  // namespace shunt
