// SPDX-License-Identifier: Apache-2.0
// What the programs in the containers do.

#include "tests/sim/containers.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "core/filter.h"
#include "tests/sim/places.h"

namespace shunt::sim {
namespace {

// Numbers are few, so that they are soon given again.
constexpr pid_t kFirstTid = 2000;
constexpr size_t kTids = 40;
constexpr size_t kTasksAtMost = 24;
constexpr size_t kDescriptorsAtMost = 10;

constexpr uint64_t kAddressAt = kMemoryBase;
constexpr uint64_t kWordsAt = kMemoryBase + 128;
constexpr uint64_t kNameAt = kMemoryBase + 160;
constexpr uint64_t kNameSizeAt = kMemoryBase + 200;

Chance& Luck() {
  return World::Get().chance;
}

template <typename T>
void Store(Task& task, uint64_t address, const T& value) {
  std::memcpy(task.memory.data() + (address - kMemoryBase), &value, sizeof(value));
}

int NumberOf(const char* syscall) {
  const auto numbers = NumbersOf(syscall);
  return numbers.empty() ? -1 : static_cast<int>(numbers.front().number);
}

std::shared_ptr<Socket> SocketAt(const Task& task, int number) {
  return task.process->table->GetAs<Socket>(number);
}

}  // namespace

pid_t Containers::FreeTid() {
  const auto& tasks = Kernel::Get().tasks;
  pid_t tid;
  do {
    tid = kFirstTid + static_cast<pid_t>(Luck().Below(kTids));
  } while (tasks.contains(tid));
  return tid;
}

std::shared_ptr<Filter> Containers::Start(uint64_t netns, const std::string& name, bool hidden) {
  auto filter = std::make_shared<Filter>();
  filter->name = name;
  const pid_t tid = FreeTid();
  auto process = std::make_shared<Process>(tid, /*parent=*/0, netns);
  auto task = std::make_shared<Task>(tid, process, filter);
  task->hidden = hidden;
  process->tasks.push_back(task);
  Kernel::Get().tasks[tid] = task;
  ++filter->tasks;
  return filter;
}

void Containers::NewTask(const Task& parent, bool new_process) {
  if (Kernel::Get().tasks.size() >= kTasksAtMost) return;
  const pid_t tid = FreeTid();
  std::shared_ptr<Process> process = parent.process;
  if (new_process) {
    process = std::make_shared<Process>(tid, parent.process->pid, parent.process->netns);
    process->table->open = parent.process->table->open;
  }
  ++process->disturbed;
  auto task = std::make_shared<Task>(tid, process, parent.filter);
  task->memory = parent.memory;
  process->tasks.push_back(task);
  ++parent.filter->tasks;
  Kernel::Get().tasks[tid] = std::move(task);
}

bool Containers::CanAct(const Task& task) const {
  if (task.inside == nullptr) return !settling_;
  return task.inside->install != nullptr || task.inside->state == Trapped::State::kAnswered;
}

size_t Containers::Weight() {
  const auto& tasks = Kernel::Get().tasks;
  const auto able =
      std::count_if(tasks.begin(), tasks.end(), [this](const auto& entry) { return CanAct(*entry.second); });
  return 3 * static_cast<size_t>(able) + (settling_ || tasks.empty() ? 0 : 1);
}

void Containers::Act() {
  std::vector<std::shared_ptr<Task>> able, all;
  for (const auto& [tid, task] : Kernel::Get().tasks) {
    all.push_back(task);
    if (CanAct(*task)) able.push_back(task);
  }
  if (!settling_ && (able.empty() || Luck().OneIn(12))) return Disturb(all[Luck().Below(all.size())]);
  const std::shared_ptr<Task> task = able[Luck().Below(able.size())];
  if (Kernel::Get().CarryOutInstall(*task)) return;
  if (task->inside != nullptr) return TakeAnswer(*task);
  DoSomething(task);
}

const Task* Containers::Waiting() const {
  for (const auto& [tid, task] : Kernel::Get().tasks) {
    if (task->inside != nullptr) return task.get();
  }
  return nullptr;
}

void Containers::EndAll() {
  while (!Kernel::Get().tasks.empty()) {
    const std::shared_ptr<Task> task = Kernel::Get().tasks.begin()->second;
    Kernel::Get().EndTask(task);
  }
}

// What happens to a task whether it waits or not.
void Containers::Disturb(const std::shared_ptr<Task>& task) {
  Chance& luck = Luck();
  World& world = World::Get();
  ++task->process->disturbed;
  switch (luck.Below(6)) {
    case 0:
      if (!luck.OneIn(3)) return;
      return Kernel::Get().EndTask(task);
    case 1: {
      if (task->inside == nullptr) return;
      world.Trace("a signal takes task %d out of its call", task->tid);
      const seccomp_data data = task->inside->data;
      const bool restart = task->inside->state != Trapped::State::kAnswered && luck.OneIn(2);
      Kernel::Get().LeaveCall(*task);
      if (!restart) return;
      const auto call = std::make_shared<Trapped>();
      call->id = Kernel::Get().next_call++;
      call->data = data;
      call->disturbed_before = task->process->disturbed;
      task->inside = call;
      task->filter->waiting.push_back(call);
      task->filter->all[call->id] = call;
      ++task->filter->wakeups;
      return;
    }
    case 2:
      world.Trace("the memory of task %d changes", task->tid);
      return WriteAddress(*task, AF_INET, luck.OneOf({Wanted::kOther, Wanted::kOwn}));
    case 3: {
      const int number = AnyNumber(*task->process);
      world.Trace("descriptor %d of process %d is closed", number, task->process->pid);
      task->process->table->open.erase(number);
      return;
    }
    case 4: {
      const int from = AnyNumber(*task->process), to = AnyNumber(*task->process);
      world.Trace("process %d: dup2(%d, %d)", task->process->pid, from, to);
      const auto found = task->process->table->open.find(from);
      if (found != task->process->table->open.end()) task->process->table->open[to] = found->second;
      return;
    }
    default: {
      const int to = AnyNumber(*task->process);
      if (!luck.OneIn(30)) return;
      world.Trace("process %d: something else comes to lie at %d", task->process->pid, to);
      task->process->table->open[to] = {std::make_shared<OtherFile>(), false};
    }
  }
}

int Containers::AnyNumber(const Process& process) {
  const auto& open = process.table->open;
  if (open.empty() || Luck().OneIn(20)) return static_cast<int>(Luck().Below(kDescriptorsAtMost));
  auto at = open.begin();
  std::advance(at, Luck().Below(open.size()));
  return at->first;
}

void Containers::MakeSocket(Process& process) {
  if (process.table->open.size() >= kDescriptorsAtMost) return;
  const int family = Luck().OneOf({AF_INET, AF_INET, AF_INET, AF_INET, AF_INET6, AF_UNIX});
  const int type = Luck().OneIn(12) ? SOCK_DGRAM : SOCK_STREAM;
  const int protocol = family == AF_UNIX ? 0 : (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP);
  auto socket = std::make_shared<Socket>(family, type, protocol, process.netns);
  if (Luck().OneIn(3)) socket->flags |= O_NONBLOCK;
  if (Luck().OneIn(6)) {
    const int yes = 1;
    SetOption(process.table, *socket, SOL_SOCKET, Luck().OneOf({SO_KEEPALIVE, SO_REUSEADDR, SO_REUSEPORT}),
              &yes, sizeof(yes));
  }
  if (Luck().OneIn(4)) {
    const timeval timeout = {.tv_sec = Luck().OneOf<time_t>({0, 3600}), .tv_usec = 1000};
    SetOption(process.table, *socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  }
  process.table->Add(std::move(socket), Luck().OneIn(2));
}

// Mostly one that a socket of `family` can use.
void Containers::WriteAddress(Task& task, int family, Wanted wanted) {
  const char* ip = Luck().OneOf({"198.51.100.7", "198.51.100.8", "203.0.113.9", "::ffff:198.51.100.7"});
  uint16_t port = Luck().OneOf<uint16_t>({80, 443});
  if (Luck().OneIn(4)) ip = Luck().OneOf({"127.0.0.1", "10.0.2.100", "10.0.2.5", "192.0.2.9", "0.0.0.0"});
  if (wanted == Wanted::kOwn) {
    ip = Luck().OneOf({"0.0.0.0", "0.0.0.0", kContainerAddress, "127.0.0.1"});
    port = Luck().OneOf<uint16_t>({kPublishedPort, kPublishedPort, kPublishedPort, 80, 0});
  }
  if (family == AF_INET6 && Luck().OneIn(2)) ip = wanted == Wanted::kOwn ? "::" : "2001:db8::9";
  const bool misfit = Luck().OneIn(12) || (family == AF_INET && !Ip(ip).IsV4());
  const auto its_family = static_cast<sa_family_t>(family);
  const net::SockAddr address = misfit || (family != AF_INET && family != AF_INET6)
                                    ? net::SockAddr(Ip(ip), port)
                                    : net::SockAddr(Ip(ip), port, its_family);
  task.memory.fill({});
  std::memcpy(task.memory.data(), address.data(), address.size());
  if (Luck().OneIn(15)) Store(task, kAddressAt, Luck().OneOf<sa_family_t>({AF_UNSPEC, AF_UNIX}));
  Store(task, kNameSizeAt, int{28});
}

// A step of a program that is not in a call.
void Containers::DoSomething(const std::shared_ptr<Task>& task) {
  Process& process = *task->process;
  switch (Luck().Below(14)) {
    case 0:
    case 1:
      return MakeSocket(process);
    case 2:
      if (Luck().OneIn(2)) return NewTask(*task, /*new_process=*/Luck().OneIn(2));
      return;
    case 3: {
      const auto found = process.table->open.find(AnyNumber(process));
      if (Luck().OneIn(2) && found != process.table->open.end() &&
          process.table->open.size() < kDescriptorsAtMost)
        process.table->Add(FileRef(found->second.file), false);
      return;
    }
    case 4: {
      const int epoll_number = AnyNumber(process), number = AnyNumber(process);
      const auto epoll = process.table->GetAs<Epoll>(epoll_number);
      const FileRef file = process.table->Get(number);
      if (epoll == nullptr || file == nullptr || file == epoll || epoll->Find(file, number) != nullptr)
        return;
      epoll->watches.push_back({.file = file,
                                .number = number,
                                .events = EPOLLIN | EPOLLOUT,
                                .data = Luck().Next(),
                                .armed = true,
                                .since = Kernel::Get().next_call});
      return;
    }
    case 5: {
      const auto socket = SocketAt(*task, AnyNumber(process));
      if (socket != nullptr && Luck().OneIn(4)) socket->shut_down = true;
      return;
    }
    case 6:
      process.table->open.erase(AnyNumber(process));
      return;
    default:
      return CallSomething(*task);
  }
}

// A socket that a call can do something with, if there is one.
int Containers::GoodNumber(const Process& process, TcpState state) {
  std::vector<int> good;
  for (const auto& [number, descriptor] : process.table->open) {
    const auto* socket = dynamic_cast<const Socket*>(descriptor.file.get());
    if (socket != nullptr && socket->IsTcp() && socket->state == state) good.push_back(number);
  }
  return good.empty() || Luck().OneIn(6) ? AnyNumber(process) : good[Luck().Below(good.size())];
}

void Containers::CallSomething(Task& task) {
  Process& process = *task.process;
  const int number = GoodNumber(process, TcpState::kClosed);
  const auto socket = SocketAt(task, number);
  const int family = socket != nullptr ? socket->family : AF_INET;
  const uint64_t size = Luck().OneIn(12) ? Luck().OneOf<uint64_t>({0, 2, 15, 24, 129}) : 28;
  const uint64_t address = Luck().OneIn(30) ? 8 : kAddressAt;
  const auto fd = static_cast<uint64_t>(number);
  WriteAddress(task, family, Luck().OneIn(6) ? Wanted::kOwn : Wanted::kOther);
  switch (Luck().Below(20)) {
    case 0:
    case 1:
      WriteAddress(task, family, Wanted::kOwn);
      return Trap(task, "bind", {fd, address, size});
    case 2:
    case 3:
      return Trap(task, "listen", {fd, 5});
    case 4:
      return Trap(task, "epoll_create1", {Luck().OneIn(10) ? uint64_t{7} : uint64_t{EPOLL_CLOEXEC}});
    case 5:
      return Trap(task, "getsockname", {static_cast<uint64_t>(AnyNumber(process)), kNameAt, kNameSizeAt});
    case 6:
      return Trap(
          task, "setsockopt",
          {fd, IPPROTO_TCP, Luck().OneOf<uint64_t>({TCP_SYNCNT, TCP_SYNCNT, TCP_MD5SIG, TCP_FASTOPEN})});
    case 7:
      return Trap(task, "sendto", {fd, 0, 0, MSG_FASTOPEN, address, size});
    case 8: {
      Store(task, kWordsAt,
            std::array<uint32_t, 3>{static_cast<uint32_t>(number), static_cast<uint32_t>(address),
                                    static_cast<uint32_t>(size)});
      return Trap(task, "socketcall", {2 + Luck().Below(5), kWordsAt});
    }
    case 9:
      return Trap(task, "getpid", {});
    case 10:
      return Trap(task, "connect", {static_cast<uint64_t>(AnyNumber(process)), address, size});
    default:
      return Trap(task, "connect", {fd, address, size});
  }
}

void Containers::Trap(Task& task, const char* syscall, std::initializer_list<uint64_t> args) {
  const std::vector<SyscallNumber> numbers = NumbersOf(syscall);
  if (numbers.empty()) return;
  const SyscallNumber& which = numbers[Luck().OneIn(4) ? Luck().Below(numbers.size()) : 0];
  const auto call = std::make_shared<Trapped>();
  call->id = Kernel::Get().next_call++;
  call->data.nr = static_cast<int>(which.number);
  call->data.arch = which.audit_arch;
  std::copy(args.begin(), args.end(), call->data.args);
  call->disturbed_before = task.process->disturbed;
  task.hidden = false;
  task.inside = call;
  task.filter->waiting.push_back(call);
  task.filter->all[call->id] = call;
  ++task.filter->wakeups;
  ++calls_;
  World::Get().Trace("task %d calls %s, descriptor %d: call %llu", task.tid, syscall,
                     static_cast<int>(call->data.args[0]), static_cast<unsigned long long>(call->id));
}

void Containers::TakeAnswer(Task& task) {
  const std::shared_ptr<Trapped> call = std::exchange(task.inside, nullptr);
  std::erase(task.filter->waiting, call);
  if ((call->answer.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE) != 0) RunNatively(task, call->data);
}

// CONTINUE: the kernel reads everything anew.
void Containers::RunNatively(Task& task, const seccomp_data& data) {
  const int number = static_cast<int>(data.args[0]);
  const auto socket = SocketAt(task, number);
  if (socket == nullptr) return;
  if (data.nr == NumberOf("connect")) return ConnectNatively(task, number, data.args[1], data.args[2]);
  if (data.nr == NumberOf("listen")) {
    Listen(*socket);
    return;
  }
  if (data.nr != NumberOf("bind") || data.args[1] != kAddressAt) return;
  const auto bytes = std::span(task.memory).first(std::min<uint64_t>(data.args[2], task.memory.size()));
  if (const auto address = net::SockAddr::Parse(bytes)) Bind(*socket, *address);
}

void Containers::ConnectNatively(Task& task, int number, uint64_t address, uint64_t size) {
  if (address != kAddressAt) return;
  Connect(*SocketAt(task, number), task.memory.data(), std::min<uint64_t>(size, task.memory.size()),
          /*by_engine=*/false);
}

size_t Network::Weight() {
  const auto& sockets = Kernel::Get().sockets;
  const bool open = std::any_of(sockets.begin(), sockets.end(),
                                [](const auto& entry) { return entry.second->state == TcpState::kSynSent; });
  return (open ? 2 : 0) + (settling_ ? 0 : 1);
}

void Network::Act() {
  Chance& luck = Luck();
  if (!settling_ && luck.OneIn(12)) {
    for (const auto& [number, descriptor] : Kernel::Get().engine_table->open) {
      const auto monitor = std::dynamic_pointer_cast<RouteMonitorFile>(descriptor.file);
      if (monitor != nullptr && luck.OneIn(2)) monitor->changed = true;
    }
    return;
  }
  std::vector<Socket*> connecting;
  for (const auto& [inode, socket] : Kernel::Get().sockets) {
    if (socket->state == TcpState::kSynSent) connecting.push_back(socket);
  }
  if (connecting.empty()) return;
  Socket& socket = *connecting[luck.Below(connecting.size())];
  if (luck.OneIn(3)) {
    socket.state = TcpState::kClosed;
    socket.pending_error = ECONNREFUSED;
  } else {
    socket.state = TcpState::kEstablished;
  }
}

}  // namespace shunt::sim
