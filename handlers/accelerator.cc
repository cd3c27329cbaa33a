// SPDX-License-Identifier: Apache-2.0
#include "handlers/accelerator.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/engine.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/introduction.h"
#include "handlers/lock_retirement.h"
#include "handlers/network_views.h"
#include "handlers/served.h"
#include "handlers/service_errands.h"
#include "handlers/services.h"
#include "handlers/verdict.h"
#include "handlers/workers.h"
#include "net/netns.h"

namespace shunt {
namespace {

// Sockets of its own network that a container has in store for twins that go home.
constexpr int kHomeSockets = 2;

// Of what is held of a container: a route monitor is one, a lever is none.
bool IsSocket(const Fd& fd) {
  struct stat status {};
  return fstat(fd.get(), &status) == 0 && S_ISSOCK(status.st_mode);
}

class RealAccelerator;

// Gives a reactor a new view of one container and brings the old one back.
struct ViewUpdate {
  RealAccelerator* accelerator;  // for the control thread only
  Mailbox* control;
  std::shared_ptr<Served> served;
  std::unique_ptr<const NetworkView> next;
  Reactor* helper = nullptr;  // asked now: the listener may be gone when the update comes by
  size_t place = 0;           // whose turn it is
  Message message;
};

class RealAccelerator final : public Accelerator, public Introducer, public WorkerSource {
 public:
  explicit RealAccelerator(AcceleratorOptions options)
      : options_(std::move(options)), next_key_(options_.first_key) {}

  // The reactors first: they use what is kept here. Before them, who gives them tables.
  ~RealAccelerator() override {
    if (services_ != nullptr) services_->Stop();
    errands_.reset();
    engine_.reset();
  }

  absl::Status Init();

  absl::StatusOr<std::string> ServeAs(uint64_t key, Fd listener, ContainerSpec spec,
                                      std::function<void()> ended) override;
  uint64_t NewKey() override { return next_key_++; }
  absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd> held, std::function<void()> ended) override;
  bool Serves(int listener) const override;
  absl::Status TakeOver(uint64_t name, Fd journal) override;
  void Begin() override;
  void Halt() override {
    services_->Stop();
    if (errands_ != nullptr) errands_->Finish();  // closings are nobody's, if not ours
    engine_->Halt();
  }
  int event_fd() const override { return events_.get(); }
  void HandleEvents() override;
  std::string LocksInForce() const override { return views_->LocksInForce(); }
  bool CanPublish() const override { return views_->locks() == net::SocketLock::Kind::kProgram; }
  void Balance(std::vector<net::ServiceSpec> services, std::string zone, bool at_once) override {
    services_->Configure(std::move(services), std::move(zone));
    if (at_once) services_->AwaitTable();
  }
  void Remember(std::vector<net::FoundBackends> found) override { services_->Remember(std::move(found)); }
  absl::Status TellBackend(std::string_view service, std::string_view backend,
                           const net::BackendCommand& command) override {
    return services_->Tell(service, backend, command);
  }
  std::vector<net::ServiceReport> DescribeServices() const override { return services_->Describe(); }
  const RequestTimes* request_times() const override { return options_.request_times; }
  std::vector<CounterValue> Counters() const override;
  std::vector<ReactorStatus> Reactors() const override;
  std::vector<ContainerStatus> Containers() const override;
  void CallRoll(std::function<void()> all_there) override { engine_->CallRoll(std::move(all_there)); }

  absl::Status Introduce(Container& container, pid_t tid, Introduction& out) override;
  void Activate(Container& container) override;
  void StartWorker(Fd link) override {
    if (options_.custodian != nullptr) options_.custodian->StartWorker(std::move(link));
  }
  void Warn(std::string_view line) override {
    if (options_.warn) options_.warn(line);
  }

 private:
  absl::Status Watch(int fd, uint64_t what);
  std::unique_ptr<Container> NewContainer(uint64_t key, ContainerSpec spec, ContainerMemory memory,
                                          std::function<void()> ended);
  absl::Status Introduced(Served& served, Fd route_monitor, Introduction& out);
  void Start(uint64_t key, Listener listener, std::unique_ptr<Container> container);
  void Hold(uint64_t key, const Served& served) const;
  std::shared_ptr<HostPort> SharedHostPort(uint64_t netns, const net::Publish& publish);
  void Refresh(const std::shared_ptr<Served>& served);
  void Deliver(const std::shared_ptr<Served>& served);
  void OnEnded(uint64_t key, std::unique_ptr<Guest> guest);
  static void OnViewDelivered(Message& message);
  static void OnViewReturned(Message& message);
  void RetireUnusedLocks();
  void DoForServices();

  static constexpr uint64_t kEngineEvent = 0;
  static constexpr uint64_t kHostEvent = 1;

  AcceleratorOptions options_;
  std::unique_ptr<Services> services_;  // outlives the engine
  class Counters errand_counts_;
  std::unique_ptr<ServiceErrands> errands_;  // null: connects are not balanced
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<CgroupOpener> cgroups_;  // null: none are opened
  Fd events_;                              // an epoll over everything that wakes the control thread
  Fd host_monitor_;
  uint64_t host_netns_ = 0;
  std::unique_ptr<NetworkViews> views_;
  std::map<uint64_t, std::shared_ptr<Served>> served_;
  std::map<std::pair<uint64_t, std::string>, std::weak_ptr<HostPort>> host_ports_;  // by network and port
  // What is under way to the reactors and back.
  std::map<const ViewUpdate*, std::unique_ptr<ViewUpdate>> updates_;
  LockRetirements retirements_;
  std::map<uint64_t, AdoptedContainer> adopted_;
  uint64_t next_key_;
  std::vector<SocketBench*> benches_;  // one for each reactor, which owns it
};

absl::Status RealAccelerator::Watch(int fd, uint64_t what) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = what}};
  if (epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return ToStatus({errno}, "watch a descriptor");
  return absl::OkStatus();
}

absl::Status RealAccelerator::Init() {
  events_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  const absl::StatusOr<uint64_t> own = net::OwnNetnsCookie();
  if (!own.ok()) return own.status();
  host_netns_ = *own;
  Result<Fd> monitor = net::OpenRouteMonitor();
  if (!monitor) return ToStatus(monitor.error(), "open a route monitor");
  host_monitor_ = std::move(*monitor);
  absl::StatusOr<std::unique_ptr<NetworkViews>> views = NetworkViews::Create(options_.lock_socket);
  if (!views.ok()) return views.status();
  views_ = *std::move(views);

  if (options_.opens_cgroups) {
    absl::StatusOr<std::unique_ptr<CgroupOpener>> cgroups = CgroupOpener::Start();
    if (!cgroups.ok()) return cgroups.status();
    cgroups_ = *std::move(cgroups);
  }

  const size_t reactors =
      options_.reactors > 0 ? static_cast<size_t>(options_.reactors) : AllowedCpus().size();
  auto services = Services::Create(reactors, options_.make_source, options_.affinities);
  if (!services.ok()) return services.status();
  services_ = *std::move(services);

  absl::Status bench_failure = absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(
      {
          .reactors = static_cast<int>(reactors),
          .pin = options_.affinity == Affinity::kPin,
          .make_bench = [this, &bench_failure]() -> std::unique_ptr<Workbench> {
            absl::StatusOr<std::unique_ptr<SocketBench>> bench = SocketBench::Create();
            if (bench.ok()) {
              (*bench)->Use(services_->SeatOf(benches_.size()));
              benches_.push_back(bench->get());
              return std::move(*bench);
            }
            bench_failure = bench.status();
            return std::make_unique<Workbench>();
          },
          .on_reactor_start = options_.on_reactor_start,
          .on_reactor_stop = options_.on_reactor_stop,
      },
      kRoutes, Default);
  if (!bench_failure.ok()) return bench_failure;
  if (!engine.ok()) return engine.status();
  engine_ = std::move(*engine);
  if (options_.balances) {
    auto errands = ServiceErrands::Start(std::bind_front(&Services::Aim, services_.get()), errand_counts_);
    if (!errands.ok()) return errands.status();
    errands_ = *std::move(errands);
    if (absl::Status status = services_->Start(*engine_, [this] { DoForServices(); }); !status.ok())
      return status;
  }
  if (absl::Status status = Watch(engine_->event_fd(), kEngineEvent); !status.ok()) return status;
  return Watch(host_monitor_.get(), kHostEvent);
}

std::unique_ptr<Container> RealAccelerator::NewContainer(uint64_t key, ContainerSpec spec,
                                                         ContainerMemory memory,
                                                         std::function<void()> ended) {
  auto served = std::make_shared<Served>();
  served->spec = std::move(spec);
  served->ended = std::move(ended);
  auto container = std::make_unique<Container>(served->spec.name, std::move(memory));
  container->exact_traps = served->spec.exact_traps;
  container->first_process = served->spec.first_process;
  container->Obey(served->spec.policy, options_.request_times);
  container->introducer = this;
  container->worker_source = this;
  container->key = key;
  const std::span<PortMemory> ports = container->memory.ports();
  for (size_t i = 0; i < served->spec.publish.size(); ++i)
    container->published.push_back({.publish = served->spec.publish[i], .memory = &ports[i]});
  for (const net::Publish& taken : served->spec.taken)
    container->published.push_back({.publish = taken, .taken = true});
  served->container = container.get();
  served->memory = &container->memory;
  served_[key] = std::move(served);
  return container;
}

void RealAccelerator::Hold(uint64_t key, const Served& served) const {
  if (options_.custodian == nullptr || served.listener_fd < 0) return;
  // Behind the first two: what there is. IsSocket() tells them apart. A container without memory is served,
  // but nothing else is held of it.
  std::vector<int> fds = {served.listener_fd};
  if (served.memory->fd() >= 0) {
    fds.push_back(served.memory->fd());
    if (served.container->lever.valid()) fds.push_back(served.container->lever.get());
    if (served.route_monitor.valid()) fds.push_back(served.route_monitor.get());
  }
  options_.custodian->HoldContainer(key, fds);
}

void RealAccelerator::Start(uint64_t key, Listener listener, std::unique_ptr<Container> container) {
  Served& served = *served_[key];
  served.listener =
      &engine_->Serve(key, std::move(listener), std::move(container), served.spec.pid,
                      [this, key](std::unique_ptr<Guest> guest) { OnEnded(key, std::move(guest)); });
}

absl::StatusOr<std::string> RealAccelerator::ServeAs(uint64_t key, Fd listener_fd, ContainerSpec spec,
                                                     std::function<void()> ended) {
  absl::StatusOr<Listener> listener = Listener::Adopt(std::move(listener_fd));
  if (!listener.ok()) return listener.status();
  next_key_ = std::max(next_key_, key + 1);
  ContainerMemory memory = ContainerMemory::CreateAnyhow(spec);
  const bool outlives_us = memory.fd() >= 0;
  std::unique_ptr<Container> container =
      NewContainer(key, std::move(spec), std::move(memory), std::move(ended));
  Served& served = *served_[key];
  served.listener_fd = listener->fd();
  if (absl::StatusOr<Fd> lever = TakeLever(served.spec, cgroups_.get()); lever.ok()) {
    container->lever = *std::move(lever);
  } else if (options_.warn) {
    options_.warn(std::string(lever.status().message()));
  }
  Hold(key, served);  // from here on it survives us
  StartFirstWorker(*container, served.listener_fd, served.spec.pid);
  // If the container cannot be accelerated its calls are still answered: they take the ordinary path.
  std::string ordinary;
  if (!outlives_us) {
    ordinary = "no descriptor is free for its memory; raise the limit (ulimit -n)";
    container->introducer = nullptr;
    container->facts.introduced = ContainerMemory::Introduced::kOrdinary;
  } else if (served.spec.pid != 0) {
    Introduction introduction;
    if (absl::Status status = Introduce(*container, served.spec.pid, introduction); status.ok()) {
      introduction.MoveInto(*container);
      container->views.fill(served.view.get());
    } else if (!absl::IsPermissionDenied(status)) {
      ordinary = std::string(status.message());
      container->introducer = nullptr;
      container->facts.introduced = ContainerMemory::Introduced::kOrdinary;
    }  // Else its task is still the runtime, which hides from everybody: the first call of the program tells.
  }
  Start(key, *std::move(listener), std::move(container));
  return ordinary;
}

// Everything of it is in its memory, so that this takes no look into the container.
absl::StatusOr<std::string> RealAccelerator::Adopt(uint64_t key, std::vector<Fd> held,
                                                   std::function<void()> ended) {
  if (held.empty()) return absl::InvalidArgumentError("nothing is held of the container");
  absl::StatusOr<Listener> listener = Listener::Adopt(std::move(held[0]));
  if (!listener.ok()) return listener.status();
  absl::StatusOr<ContainerMemory> memory = absl::InvalidArgumentError("no memory is held of the container");
  if (held.size() > 1) memory = ContainerMemory::Open(std::move(held[1]));
  absl::StatusOr<ContainerSpec> spec = memory.ok() ? memory->Spec() : memory.status();
  std::string ordinary;
  if (!spec.ok()) {
    // A memory of another layout than ours: what its sockets are we can still see.
    ordinary = std::string(spec.status().message());
    spec = ContainerSpec{.name = absl::StrFormat("number %d", key)};
    memory = ContainerMemory::CreateAnyhow(*spec);
    memory->facts().has_twins = true;
    memory->facts().introduced = ContainerMemory::Introduced::kOrdinary;
  }
  memory->BeginAnew();
  next_key_ = std::max(next_key_, key + 1);
  std::unique_ptr<Container> container =
      NewContainer(key, *std::move(spec), *std::move(memory), std::move(ended));
  Served& served = *served_[key];
  served.listener_fd = listener->fd();
  Fd route_monitor;
  for (Fd& fd : std::span(held).subspan(std::min<size_t>(held.size(), 2)))
    (IsSocket(fd) ? route_monitor : container->lever) = std::move(fd);
  if (container->facts.introduced == ContainerMemory::Introduced::kOrdinary) {
    container->introducer = nullptr;
  } else if (container->facts.introduced == ContainerMemory::Introduced::kYes && route_monitor.valid()) {
    Introduction introduction;
    if (absl::Status status = Introduced(served, std::move(route_monitor), introduction); status.ok()) {
      introduction.MoveInto(*container);
      container->views.fill(served.view.get());
    } else {
      ordinary = std::string(status.message());
      container->introducer = nullptr;
    }
  }
  adopted_[key] = {.listener = *std::move(listener), .container = std::move(container)};
  return ordinary;
}

bool RealAccelerator::Serves(int listener) const {
  return std::any_of(served_.begin(), served_.end(), [&](const auto& entry) {
    return entry.second->listener_fd >= 0 && SameOpenFile(entry.second->listener_fd, listener);
  });
}

absl::Status RealAccelerator::TakeOver(uint64_t name, Fd journal) {
  absl::StatusOr<std::unique_ptr<Journal>> left = Journal::Open(std::move(journal));
  if (!left.ok()) return left.status();
  engine_->TakeOver(*std::move(left), [this, name] {
    if (options_.custodian != nullptr) options_.custodian->DropJournal(name);
  });
  return absl::OkStatus();
}

void RealAccelerator::Begin() {
  if (options_.custodian != nullptr) options_.custodian->HoldJournal(engine_->journal().fd());
  for (auto& [key, adopted] : std::exchange(adopted_, {})) {
    Start(key, *std::move(adopted.listener), std::move(adopted.container));
    if (const int monitor = served_[key]->route_monitor.get(); monitor >= 0)
      Watch(monitor, key).IgnoreError();
  }
  engine_->NobodyElseIsComing();
}

// Control thread; also on behalf of a reactor that has met the first call of a container whose pid nobody
// could tell.
absl::Status RealAccelerator::Introduce(Container& container, pid_t tid, Introduction& out) {
  const auto found = served_.find(container.key);
  if (found == served_.end()) return absl::NotFoundError("the container has ended");
  Served& served = *found->second;
  // Its first caller may be in a network of its own by now, which was not to lead anywhere.
  if (options_.lasting_pids && served.spec.pid != 0) tid = served.spec.pid;
  absl::StatusOr<net::NetnsVisit> visit = net::VisitNetns(tid, kHomeSockets);
  if (!visit.ok()) return visit.status();
  if (visit->cookie == host_netns_) {
    return absl::FailedPreconditionError(
        absl::StrCat(served.spec.name, " uses the host's network already: there is nothing to accelerate"));
  }
  ContainerNetwork network{.netns = visit->cookie,
                           .owner = visit->owner,
                           .first_unprivileged_port = visit->first_unprivileged_port,
                           .privileged = OwnsHostNetwork(tid)};
  if (absl::Status status = ReadContainerNetwork(visit->route_monitor.get(), network); !status.ok())
    return status;
  served.memory->SetNetwork(network);
  out.home4 = std::move(visit->tcp4);
  out.home6 = std::move(visit->tcp6);
  if (absl::Status status = Introduced(served, std::move(visit->route_monitor), out); !status.ok())
    return status;
  if (absl::Status status = Watch(served.route_monitor.get(), container.key); !status.ok()) return status;
  container.facts.introduced = ContainerMemory::Introduced::kYes;
  Hold(container.key, served);
  return absl::OkStatus();
}

// What follows from what is known of its network.
absl::Status RealAccelerator::Introduced(Served& served, Fd route_monitor, Introduction& out) {
  served.route_monitor = std::move(route_monitor);
  absl::StatusOr<std::unique_ptr<const NetworkView>> view =
      views_->Make(served.spec, served.memory->network());
  if (!view.ok()) return view.status();
  served.view = std::move(*view);
  const ContainerNetwork& network = served.memory->network();
  out.netns = network.netns;
  out.network_owner = network.owner;
  out.first_unprivileged_port = network.first_unprivileged_port;
  for (size_t i = 0; i < served.spec.publish.size(); ++i) {
    out.host_ports.push_back(SharedHostPort(network.netns, served.spec.publish[i]));
    out.host_ports.back()->Restore(served.memory->ports()[i]);
  }
  if (options_.introduced && !served.spec.publish.empty()) {
    absl::StatusOr<std::vector<net::IpAddress>> addresses = net::OutwardAddresses(served.route_monitor.get());
    if (addresses.ok())
      options_.introduced(served.container->key, network.netns, served.spec.publish, *std::move(addresses));
  }
  return absl::OkStatus();
}

void RealAccelerator::Activate(Container& container) {
  if (const auto found = served_.find(container.key); found != served_.end()) Deliver(found->second);
}

// One for each network and port, however many listeners its processes come with.
std::shared_ptr<HostPort> RealAccelerator::SharedHostPort(uint64_t netns, const net::Publish& publish) {
  std::weak_ptr<HostPort>& known = host_ports_[{netns, publish.ToString()}];
  std::shared_ptr<HostPort> port = known.lock();
  if (port == nullptr) known = port = std::make_shared<HostPort>(publish);
  return port;
}

// The container's or the host's network has changed: a new view for the reactor. One at a time for each
// container.
void RealAccelerator::Refresh(const std::shared_ptr<Served>& served) {
  if (served->corpse != nullptr || served->view == nullptr || served->listener == nullptr) return;
  if (served->update_in_flight) {
    served->update_again = true;
    return;
  }
  // Should this fail the old view stays, which knows less of the network, and its lock still holds.
  ContainerNetwork network = served->memory->network();
  if (!ReadContainerNetwork(served->route_monitor.get(), network).ok()) return;
  served->memory->SetNetwork(network);
  Deliver(served);
}

// A view of what is known of the container's network, to its reactors. One at a time.
void RealAccelerator::Deliver(const std::shared_ptr<Served>& served) {
  if (served->corpse != nullptr || served->listener == nullptr) return;
  if (served->update_in_flight) {
    served->update_again = true;
    return;
  }
  absl::StatusOr<std::unique_ptr<const NetworkView>> view =
      views_->Make(served->spec, served->memory->network());
  if (!view.ok()) return;
  std::unique_ptr<ViewUpdate> made(new ViewUpdate{.accelerator = this,
                                                  .control = &engine_->control(),
                                                  .served = served,
                                                  .next = std::move(*view),
                                                  .helper = served->listener->helper.reactor});
  ViewUpdate* const update = made.get();
  updates_[update] = std::move(made);
  update->message = {.deliver = OnViewDelivered, .context = update};
  served->update_in_flight = true;
  engine_->Post(*served->listener, update->message);
}

// On the container's reactor and then on the one that helps: one pointer store for each.
void RealAccelerator::OnViewDelivered(Message& message) {
  auto& update = message.about<ViewUpdate>();
  update.served->container->views[update.place] = update.next.get();
  if (update.place == 0 && update.helper != nullptr) {
    update.place = 1;
    update.helper->Post(message);
    return;
  }
  message.deliver = OnViewReturned;
  update.control->Push(&message);
}

void RealAccelerator::OnViewReturned(Message& message) {
  auto& delivered = message.about<ViewUpdate>();
  const std::unique_ptr<ViewUpdate> update =
      std::move(delivered.accelerator->updates_.extract(&delivered).mapped());
  Served& served = *update->served;
  served.view = std::move(update->next);  // the old one goes: no handler keeps a view across a wait
  served.update_in_flight = false;
  update->accelerator->RetireUnusedLocks();
  if (served.corpse != nullptr) return;
  if (std::exchange(served.update_again, false)) update->accelerator->Refresh(update->served);
}

void RealAccelerator::OnEnded(uint64_t key, std::unique_ptr<Guest> guest) {
  const auto found = served_.find(key);
  const std::shared_ptr<Served> served = found->second;
  served_.erase(found);
  if (errands_ != nullptr) errands_->Forget(key);
  if (options_.custodian != nullptr) options_.custodian->DropContainer(key);
  served->corpse = std::move(guest);  // an update may still be on its way to it
  served->route_monitor.reset();
  if (!served->update_in_flight) {
    served->view.reset();
    served->corpse.reset();
  }
  std::erase_if(host_ports_, [](const auto& entry) { return entry.second.expired(); });
  RetireUnusedLocks();
  if (served->ended) served->ended();
}

void RealAccelerator::RetireUnusedLocks() {
  for (std::shared_ptr<const net::NumberedLock>& lock : views_->TakeUnusedLocks())
    retirements_.Retire(*engine_, benches_, std::move(lock));
}

// Brings sockets of the network of one container; has what sources have found kept; passes on what an
// operator should know, and what is to be done in all containers.
void RealAccelerator::DoForServices() {
  Services::Wants wants = services_->TakeWants();
  if (!wants.found.empty() && options_.custodian != nullptr)
    options_.custodian->HoldFound(std::move(wants.found));
  for (const std::string& remark : wants.remarks) Warn(remark);
  std::vector<ErrandPlace> places;
  for (const auto& [key, served] : served_) {
    if (served->task() == 0) continue;
    places.push_back(served->errand_place());
    if (!wants.sockets) continue;
    absl::StatusOr<net::NetnsVisit> visit = net::VisitNetns(served->task(), net::SpareSockets::kCapacity);
    if (!visit.ok() || visit->cookie == host_netns_) continue;
    services_->GiveSockets(*std::move(visit));
    wants.sockets = false;
  }
  errands_->Give(wants.closings, std::move(wants.aimings), places);
}

void RealAccelerator::HandleEvents() {
  std::array<epoll_event, 64> events;
  const int count = epoll_wait(events_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const uint64_t what = events[static_cast<size_t>(i)].data.u64;
    if (what == kEngineEvent) {
      engine_->HandleEvents();
    } else if (what == kHostEvent) {
      if (net::DrainChanges(host_monitor_.get()) && views_->ReadHost().ok() &&
          views_->locks() == net::SocketLock::Kind::kDevice) {
        for (const auto& [key, served] : served_) Refresh(served);
      }
    } else if (const auto found = served_.find(what); found != served_.end()) {
      if (net::DrainChanges(found->second->route_monitor.get())) Refresh(found->second);
    }
  }
}

std::vector<Accelerator::CounterValue> RealAccelerator::Counters() const {
  std::vector<CounterValue> values;
  for (size_t i = 0; i < kCounterCount; ++i)
    values.push_back({kCounterTexts[i], engine_->Sum(Counter(i)) + errand_counts_.Read(Counter(i))});
  return values;
}

std::vector<Accelerator::ReactorStatus> RealAccelerator::Reactors() const {
  std::vector<ReactorStatus> all;
  for (const auto& reactor : engine_->reactors()) {
    const class Counters& counters = reactor->counters();
    all.push_back({.cpu = reactor->cpu(),
                   .received = counters.Read(Counter::received),
                   .answered = counters.Read(Counter::answered),
                   .waiting = counters.Read(Counter::waits_begun) - counters.Read(Counter::waits_ended)});
  }
  return all;
}

std::vector<Accelerator::ContainerStatus> RealAccelerator::Containers() const {
  std::map<uint64_t, uint64_t> in_flight;
  for (const JournalRecord* const record : engine_->journal().Unanswered())
    ++in_flight[record->listener.load(std::memory_order_relaxed)];
  std::vector<ContainerStatus> all;
  for (const auto& [key, served] : served_) {
    if (served->listener == nullptr) continue;
    all.push_back({.key = key,
                   .name = served->spec.name,
                   .owner = served->spec.owner,
                   .accelerated = served->view != nullptr && served->view->lock != nullptr,
                   .calls = served->listener->main.calls.load(std::memory_order_relaxed) +
                            served->listener->helper.calls.load(std::memory_order_relaxed),
                   .in_flight = in_flight[key]});
  }
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Accelerator>> Accelerator::Start(const AcceleratorOptions& options) {
  auto accelerator = std::make_unique<RealAccelerator>(options);
  if (absl::Status status = accelerator->Init(); !status.ok()) return status;
  return accelerator;
}

}  // namespace shunt
