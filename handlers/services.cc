// SPDX-License-Identifier: Apache-2.0
#include "handlers/services.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <system_error>
#include <utility>

#include "core/clock.h"
#include "core/confinement.h"
#include "core/result.h"
#include "net/balancer/remembered_pick.h"

namespace shunt {
namespace {

uint64_t Seed() {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
    seed = static_cast<uint64_t>(MonotonicNow());
  return seed;
}

// Rounded up: who wakes too early only sleeps again.
int MillisecondsUntil(int64_t due, int64_t now) {
  constexpr int64_t kLongest = 60'000;
  if (due <= now) return 0;
  return static_cast<int>(std::min((due - now) / 1'000'000 + 1, kLongest));
}

// Lists may be large, and change often: engines to come are told of them so far apart at least, and the more
// there is to write, the further. It is the control thread that writes, of whose time reactors want some.
constexpr int64_t kFoundApart = 1'000'000'000;
constexpr size_t kServicesInThat = 2000;

}  // namespace

// A table on its way to all reactors, and back.
struct Services::Delivery {
  struct Notice {
    Delivery* delivery = nullptr;
    net::ReactorServices* seat = nullptr;
    Message message;
  };
  Services* services = nullptr;
  std::shared_ptr<const net::ServiceTable> table;
  std::vector<Notice> notices;
  size_t outstanding = 0;  // the thread's
};

absl::StatusOr<std::unique_ptr<Services>> Services::Create(size_t reactors, MakeSource make_source,
                                                           net::AffinityMemory* affinities) {
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll.valid() || !wake.valid()) return ToStatus({errno}, "make the events of the services' thread");
  std::unique_ptr<Services> services(
      new Services(reactors, std::move(make_source), std::move(epoll), std::move(wake)));
  services->affinities_ = affinities;
  for (const std::unique_ptr<net::ReactorServices>& seat : services->seats_) seat->affinities = affinities;
  for (const int fd : {services->wake_.get(), services->returned_.event_fd()}) {
    if (absl::Status status = services->Watch(fd); !status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<net::ConnectChecks>> checks = net::ConnectChecks::Create(
      [self = services.get()](uint32_t slot, uint64_t check, bool up, std::string_view error, int64_t now) {
        self->balancer_.Checked(slot, check, up, error, now);
      },
      [self = services.get()](net::ServiceNetwork network, int family) {
        return self->MakeSocket(network, family);
      },
      [self = services.get()](uint32_t slot, uint64_t check, int64_t now) {
        self->balancer_.CheckSkipped(slot, check, now);
      });
  if (!checks.ok()) return checks.status();
  services->checks_ = *std::move(checks);
  if (absl::Status status = services->Watch(services->checks_->event_fd()); !status.ok()) return status;
  return services;
}

Services::Services(size_t reactors, MakeSource make_source, Fd epoll, Fd wake)
    : make_source_(std::move(make_source)),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      counts_(reactors + 1),
      balancer_(counts_, /*zone=*/""),
      live_counts_(counts_),
      aim_seat_(reactors, counts_, Seed()) {
  const uint64_t seed = Seed();
  for (size_t i = 0; i < reactors; ++i) {
    seats_.push_back(std::make_unique<net::ReactorServices>(i, counts_, seed + i, wake_.get()));
    offers_.push_back(std::make_unique<Offer>());
    offers_.back()->seat = seats_.back().get();
  }
}

Services::~Services() {
  Stop();
}

absl::Status Services::Watch(int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return ToStatus({errno}, "watch an event of the services' thread");
  return absl::OkStatus();
}

absl::Status Services::Start(Engine& engine, std::function<void()> wants) try {
  SHUNT_CHECK(engine.reactors().size() == seats_.size());
  engine_ = &engine;
  wants_due_ = std::move(wants);
  thread_ = std::thread([this] { Run(); });
  begun_.wait();
  return absl::OkStatus();
} catch (const std::system_error& thrown) {  // the only way in which std::thread can fail; it ends here
  return ToStatus({thrown.code().value()},
                  "start the services' thread (is pids.max or RLIMIT_NPROC reached?)");
}

void Services::Stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  Wake();
  thread_.join();
}

void Services::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void Services::Configure(std::vector<net::ServiceSpec> services, std::string zone) {
  {
    const std::lock_guard lock(mutex_);
    // Who comes after us hears of those that go, and once more what he did not hear from us.
    for (const net::ServiceSpec& service : wishes_) {
      if (!service.discover.none()) found_.insert(service.name);
    }
    for (const net::FoundBackends& one : remembered_) found_.insert(one.service);
    balancer_.Remember(std::exchange(remembered_, {}));
    wishes_ = services;
    sources_changed_ = true;
    balancer_.Configure(std::move(services), std::move(zone), MonotonicNow());
  }
  Wake();
}

void Services::Remember(std::vector<net::FoundBackends> found) {
  const std::lock_guard lock(mutex_);
  remembered_ = std::move(found);
}

void Services::AwaitTable() {
  constexpr auto kPatience = std::chrono::seconds(10);
  constexpr int64_t kPatienceWithSources = 2'000'000'000;
  std::unique_lock lock(mutex_);
  table_awaited_ = true;
  sources_awaited_ = MonotonicNow() + kPatienceWithSources;
  Wake();
  table_in_force_.wait_for(lock, kPatience, [this] { return !table_awaited_; });
}

absl::Status Services::Tell(std::string_view service, std::string_view backend,
                            const net::BackendCommand& command) {
  absl::Status status;
  {
    const std::lock_guard lock(mutex_);
    status = balancer_.Command(service, backend, command, MonotonicNow());
  }
  Wake();
  return status;
}

std::vector<net::ServiceReport> Services::Describe() const {
  const std::lock_guard lock(mutex_);
  return balancer_.Describe(MonotonicNow());
}

Services::Wants Services::TakeWants() {
  Wants wants;
  {
    const std::lock_guard lock(mutex_);
    wants_told_ = false;
    wants = std::exchange(wants_, {});
  }
  if (!wants.found.empty()) Wake();  // there may be more by now
  return wants;
}

void Services::GiveSockets(net::NetnsVisit visit) {
  const std::lock_guard lock(mutex_);
  if (inside4_.empty()) inside4_ = std::move(visit.tcp4);
  if (inside6_.empty()) inside6_ = std::move(visit.tcp6);
}

std::optional<net::SockAddr> Services::Aim(const net::DueAiming& aiming, const net::AimedFlows::Flow& flow,
                                           const net::SockAddr& peer, uint64_t owner) {
  const std::lock_guard lock(mutex_);
  const net::Service* const service = in_force_ == nullptr ? nullptr : in_force_->At(aiming.service);
  if (service == nullptr || service->name_hash != flow.service) return std::nullopt;
  const net::Connecting connecting{
      .to_v4 = peer.ip().IsV4(),
      .wish = {.has_key = service->affinity != net::AffinityKey::kNone, .key = flow.key},
      .owner = owner};
  const net::Backend* const backend = net::PickFor(*service, connecting, aim_seat_, affinities_);
  // A socket that has an address of its own in one family cannot be connected in the other.
  if (backend == nullptr || !aiming.stay.contains(backend->identity) ||
      backend->address.ip().IsV4() != peer.ip().IsV4()) {
    return std::nullopt;
  }
  net::BackendCounts::Add(counts_.At(aim_seat_.reactor(), backend->slot).picks);
  return backend->address.family() == peer.family()
             ? backend->address
             : net::SockAddr(backend->address.ip(), backend->address.port(), peer.family());
}

// ---- the thread

void Services::Run() {
  BeginThread(EngineThread::kClient, "shunt-services");
  begun_.count_down();
  std::array<epoll_event, 64> events;
  while (!stopping_) {
    int64_t due;
    {
      const std::lock_guard lock(mutex_);
      const int64_t now = MonotonicNow();
      Turn(now);
      due = NextDue();
    }
    epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
               MillisecondsUntil(due, MonotonicNow()));
    uint64_t ignored;
    [[maybe_unused]] const ssize_t got = read(wake_.get(), &ignored, sizeof(ignored));
  }
}

void Services::Turn(int64_t now) {
  returned_.Deliver();
  if (std::exchange(sources_changed_, false)) ChooseSources();
  for (auto& [name, watched] : sources_) watched.source->Advance(now);
  HearOutcomes(now);
  checks_->Advance(now);
  balancer_.Advance(now);
  for (const net::DueCheck& check : balancer_.TakeChecks(now)) checks_->Begin(check, now);
  PassWants(now);
  LookForPlaces(now);
  if (delivery_ == nullptr) {
    if (std::shared_ptr<const net::ServiceTable> table = balancer_.TakeTable(now, table_awaited_)) {
      live_counts_.Watch(balancer_.CountedBackends());
      live_counts_.Advance(now);
      Deliver(std::move(table));
    } else if (table_awaited_ && (now >= sources_awaited_ || !balancer_.AwaitsSources())) {
      table_awaited_ = false;
      table_in_force_.notify_all();
    }
  }
}

int64_t Services::NextDue() const {
  int64_t due = std::min({balancer_.NextDue(), checks_->NextDue(), live_counts_.NextDue()});
  for (const auto& [name, watched] : sources_) due = std::min(due, watched.source->NextDue());
  if (table_awaited_ && delivery_ == nullptr) due = std::min(due, sources_awaited_);
  if (!found_.empty() && wants_.found.empty()) due = std::min(due, found_due_);
  return due;
}

// What is found the same way as before is found by the source that there is.
void Services::ChooseSources() {
  std::map<std::string, Watched> before = std::exchange(sources_, {});
  for (const net::ServiceSpec& service : wishes_) {
    if (service.discover.none() || !make_source_) continue;
    if (const auto known = before.find(service.name);
        known != before.end() && known->second.spec == service.discover) {
      sources_[service.name] = std::move(known->second);
      continue;
    }
    const auto tell = [this, name = service.name](absl::StatusOr<std::vector<net::BackendSpec>> found) {
      const int64_t now = MonotonicNow();
      if (found.ok()) {
        balancer_.Discover(name, *std::move(found), now);
        found_.insert(name);
      } else {
        balancer_.SourceFailed(name, std::string(found.status().message()), now);
      }
    };
    const auto tell_services = [this, name = service.name](net::FoundChanges changes,
                                                           const absl::Status& wrong) {
      balancer_.DiscoverServices(name, std::move(changes), std::string(wrong.message()), MonotonicNow());
      found_.insert(name);
    };
    absl::StatusOr<std::unique_ptr<net::Source>> source = make_source_(service, tell, tell_services);
    if (!source.ok()) continue;
    if ((*source)->event_fd() >= 0) Watch((*source)->event_fd()).IgnoreError();
    sources_[service.name] = {.spec = service.discover, .source = *std::move(source)};
  }
  // A source may share its event with others, who keep it open for a while.
  for (const auto& [name, gone] : before) {
    if (gone.source != nullptr && gone.source->event_fd() >= 0)
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, gone.source->event_fd(), nullptr);
  }
}

void Services::HearOutcomes(int64_t now) {
  for (const std::unique_ptr<net::ReactorServices>& seat : seats_) {
    net::Outcome outcome;
    while (seat->outcomes.Take(outcome)) {
      counts_.Watch(outcome.slot, !outcome.well);
      balancer_.Connected(outcome.slot, outcome.well, now);
    }
  }
}

// For checks. Those of a container's own network are brought from there, a few at a time, each time by a
// process: a check that finds none is left out.
Result<Fd> Services::MakeSocket(net::ServiceNetwork network, int family) {
  if (network == net::ServiceNetwork::kHost) {
    Fd made(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!made.valid()) return FailErrno();
    return made;
  }
  net::SpareSockets& store = family == AF_INET ? inside4_ : inside6_;
  if (!store.empty()) return store.Take();
  wants_.sockets = true;
  return Fail(EAGAIN);
}

void Services::PassWants(int64_t now) {
  constexpr int64_t kVisitsApart = 1'000'000'000;
  for (net::DueClosing& closing : balancer_.TakeClosings(now)) wants_.closings.push_back(std::move(closing));
  PassAimings(now);
  if (wants_.sockets && now - sockets_asked_ < kVisitsApart)
    wants_.sockets = false;  // the next check asks again
  PassFound(now);
  if (std::optional<std::string> failure = live_counts_.TakeFailure())
    wants_.remarks.push_back(*std::move(failure));
  for (std::string& remark : balancer_.TakeRemarks()) wants_.remarks.push_back(std::move(remark));
  if (wants_.closings.empty() && wants_.aimings.empty() && !wants_.sockets && wants_.found.empty() &&
      wants_.remarks.empty())
    return;
  if (std::exchange(wants_told_, true)) return;
  if (wants_.sockets) sockets_asked_ = now;
  wants_message_ = {.deliver = [](Message& message) { message.about<Services>().wants_due_(); },
                    .context = this};
  engine_->control().Push(&wants_message_);
}

// When no reactor goes by an earlier table any more: until then it may aim where nothing is to stay.
void Services::PassAimings(int64_t now) {
  for (net::DueAiming& aiming : balancer_.TakeAimings(now)) aimings_.push_back(std::move(aiming));
  if (delivery_ != nullptr) return;
  for (net::DueAiming& aiming : std::exchange(aimings_, {})) {
    std::erase_if(wants_.aimings, [&](const auto& one) { return one.service == aiming.service; });
    wants_.aimings.push_back(std::move(aiming));
  }
}

// Nothing more before the control thread has taken what there is.
void Services::PassFound(int64_t now) {
  if (found_.empty() || !wants_.found.empty() || now < found_due_) return;
  size_t services = 0;
  for (const std::string& service : std::exchange(found_, {})) {
    wants_.found.push_back(balancer_.Found(service));
    services += wants_.found.back().services.size();
  }
  found_due_ = now + kFoundApart * static_cast<int64_t>(1 + services / kServicesInThat);
}

// The kernel is asked for connections when it is time, and who waits for one to end hears of it.
void Services::LookForPlaces(int64_t now) {
  live_counts_.Hurry(std::ranges::any_of(seats_, [](const auto& seat) { return seat->queue.busy(); }));
  if (!live_counts_.Advance(now)) return;
  for (size_t i = 0; i < offers_.size(); ++i) {
    Offer& offer = *offers_[i];
    if (!offer.seat->queue.busy() || offer.under_way.exchange(true)) continue;
    offer.message = {.deliver =
                         [](Message& message) {
                           Offer& its = message.about<Offer>();
                           its.under_way = false;
                           its.seat->queue.Offer();
                         },
                     .context = &offer};
    engine_->reactors()[i]->Post(offer.message);
  }
}

// ---- tables to reactors

void Services::Deliver(std::shared_ptr<const net::ServiceTable> table) {
  delivery_ = std::make_unique<Delivery>();
  delivery_->services = this;
  delivery_->table = std::move(table);
  delivery_->outstanding = seats_.size();
  delivery_->notices.resize(seats_.size());
  for (size_t i = 0; i < seats_.size(); ++i) {
    Delivery::Notice& notice = delivery_->notices[i];
    notice = {.delivery = delivery_.get(), .seat = seats_[i].get()};
    notice.message = {.deliver = OnDelivered, .context = &notice};
    engine_->reactors()[i]->Post(notice.message);
  }
}

// On a reactor, between two calls: one pointer store. No handler keeps the one before across a wait.
void Services::OnDelivered(Message& message) {
  const auto& notice = message.about<Delivery::Notice>();
  const net::ServiceTable* const table = notice.delivery->table.get();
  notice.seat->table = table->empty() ? nullptr : table;
  notice.seat->queue.Offer();  // before the former table is returned
  message.deliver = OnReturned;
  notice.delivery->services->returned_.Push(&message);
}

void Services::OnReturned(Message& message) {
  Services& self = *message.about<Delivery::Notice>().delivery->services;
  if (--self.delivery_->outstanding != 0) return;
  const std::shared_ptr<const net::ServiceTable> before =
      std::exchange(self.in_force_, std::move(self.delivery_->table));
  self.delivery_.reset();
  if (before != nullptr) self.balancer_.TableRetired(*before);
}

}  // namespace shunt
