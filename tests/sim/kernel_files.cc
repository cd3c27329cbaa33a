// SPDX-License-Identifier: Apache-2.0
// Open files, descriptor tables, epolls, what /proc says of a descriptor, and the life of a task.

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

Kernel* the_kernel = nullptr;

}  // namespace

Kernel::Kernel() {
  the_kernel = this;
}
Kernel::~Kernel() {
  the_kernel = nullptr;
}
Kernel& Kernel::Get() {
  return *the_kernel;
}

File::File() : inode(Kernel::Get().next_inode++) {}

int FdTable::Add(FileRef file, bool cloexec, int from) {
  int number = std::max(from, first_free);
  for (auto at = open.lower_bound(number); at != open.end() && at->first == number; ++at) ++number;
  open[number] = {std::move(file), cloexec};
  ++opened;
  return number;
}

FileRef FdTable::Get(int number) const {
  const auto found = open.find(number);
  return found == open.end() ? nullptr : found->second.file;
}

short Epoll::Ready() const {
  for (const Watch& watch : watches) {
    const FileRef file = watch.file.lock();
    if (file != nullptr && watch.armed && (file->Ready() & (watch.events | POLLERR | POLLHUP)) != 0)
      return POLLIN;
  }
  return 0;
}

Epoll::Watch* Epoll::Find(const FileRef& file, int number) {
  std::erase_if(watches, [](const Watch& watch) { return watch.file.expired(); });
  for (Watch& watch : watches) {
    if (watch.number == number && watch.file.lock() == file) return &watch;
  }
  return nullptr;
}

short ListenerFile::Ready() const {
  short ready = 0;
  for (const auto& call : filter->waiting) {
    if (call->state == Trapped::State::kWaiting) ready |= POLLIN;
    if (call->state == Trapped::State::kReceived) ready |= POLLOUT;
  }
  return static_cast<short>(ready | (filter->tasks == 0 ? POLLHUP : 0));
}

std::string FdInfoFile::Text() const {
  if (task != nullptr && !task->alive) return "";
  const FdTable& its_table = task != nullptr ? *task->process->table : *table;
  const auto found = its_table.open.find(number);
  if (found == its_table.open.end()) return "";
  const auto& [file, cloexec] = found->second;
  std::array<char, 160> line;
  std::snprintf(line.data(), line.size(), "pos:\t0\nflags:\t0%o\nmnt_id:\t%d\nino:\t%" PRIu64 "\n",
                file->flags | (cloexec ? O_CLOEXEC : 0), file->mount, file->inode);
  std::string text = line.data();
  const auto epoll = std::dynamic_pointer_cast<Epoll>(file);
  if (epoll == nullptr) return text;
  for (const Epoll::Watch& watch : epoll->watches) {
    const FileRef watched = watch.file.lock();
    if (watched == nullptr) continue;
    const uint32_t private_bits = EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE;
    std::snprintf(line.data(), line.size(),
                  "tfd: %8d events: %8x data: %16" PRIx64 "  pos:0 ino:%" PRIx64 " sdev:9\n", watch.number,
                  watch.armed ? watch.events : watch.events & private_bits, watch.data, watched->inode);
    text += line.data();
  }
  return text;
}

void MemoryFile::Resize(size_t its_size) {
  constexpr size_t kPage = 4096;
  const size_t whole = (its_size + kPage - 1) / kPage * kPage;
  size = its_size;
  bytes.reset(std::aligned_alloc(kPage, whole));
  std::memset(bytes.get(), 0, whole);
}

std::shared_ptr<Task> Kernel::FindTask(pid_t tid) const {
  const auto found = tasks.find(tid);
  return found == tasks.end() ? nullptr : found->second;
}

void Kernel::LeaveCall(Task& task) {
  const std::shared_ptr<Trapped> call = std::exchange(task.inside, nullptr);
  if (call == nullptr) return;
  if (call->install != nullptr) {
    call->install->result = -ESRCH;
    call->install->done = true;
    call->install = nullptr;
  }
  if (call->state != Trapped::State::kAnswered) call->state = Trapped::State::kLeft;
  std::erase(task.filter->waiting, call);
}

void Kernel::EndTask(const std::shared_ptr<Task>& task) {
  if (!task->alive) return;
  World::Get().Trace("task %d ends", task->tid);
  LeaveCall(*task);
  task->alive = false;
  --task->filter->tasks;
  tasks.erase(task->tid);
  std::erase(task->process->tasks, task);
  if (task->process->tasks.empty()) task->process->table->open.clear();
}

void Kernel::EngineDies() {
  ++engines_killed;
  for (const auto& [tid, task] : tasks) {
    if (task->inside != nullptr) task->inside->install = nullptr;
  }
  mappings.clear();
  engine_table->open.clear();
}

namespace {

// What watched the old file under this number must watch the new one, unless the program itself has been at
// it.
void CheckRegistrations(const Task& task, const Install& install) {
  const FdTable& table = *task.process->table;
  const FileRef old_file = table.Get(install.number);
  const auto* socket = dynamic_cast<const Socket*>(install.file.get());
  if (task.inside->disturbed_before != task.process->disturbed || task.process->tasks.size() != 1) return;
  if (old_file == nullptr || socket == nullptr || socket->netns != kHostNetns) return;
  for (const auto& [number, descriptor] : table.open) {
    auto* const epoll = dynamic_cast<Epoll*>(descriptor.file.get());
    const auto* const watch = epoll != nullptr ? epoll->Find(old_file, install.number) : nullptr;
    if (watch == nullptr || watch->since > task.inside->id) continue;
    if (epoll->Find(install.file, install.number) == nullptr)
      World::Get().Wrong("task %d: epoll %d does not watch the new socket", task.tid, number);
  }
}

// A second descriptor for one call can only take the first back: then it is the file that was there before,
// or one of the container's own. An engine that takes the call over may find it taken back and begin anew,
// but never replaces what is there.
void CheckInstallCount(Trapped& call, const Install& install, const FileRef& there) {
  const auto* socket = dynamic_cast<const Socket*>(install.file.get());
  const bool takes_back = call.installs > 0 && call.first.lock() == install.file;
  const bool host = !takes_back && (socket == nullptr || socket->netns == kHostNetns);
  const bool replaces = there != nullptr && call.twin.lock() == there;
  if (call.installs++ == 0) call.first = there;
  const bool too_many = Kernel::Get().engines_killed == 0 && call.installs > (host ? 1 : 2);
  if (too_many || (host && replaces))
    World::Get().Wrong("call %llu has got a second descriptor", static_cast<unsigned long long>(call.id));
  if (host) call.twin = install.file;
}

}  // namespace

bool Kernel::CarryOutInstall(Task& task) {
  if (task.inside == nullptr || task.inside->install == nullptr) return false;
  Trapped& call = *task.inside;
  Install& install = *std::exchange(call.install, nullptr);
  install.done = true;
  FdTable& table = *task.process->table;
  if (install.number < 0) {
    install.result = table.Add(install.file, install.cloexec);
    call.answer = {.id = call.id, .val = install.result, .error = 0, .flags = 0};
    call.state = Trapped::State::kAnswered;
    ++answered;
    return true;
  }
  install.result = install.number;
  CheckRegistrations(task, install);
  CheckInstallCount(call, install, table.Get(install.number));
  table.open[install.number].file = install.file;
  table.open[install.number].cloexec = install.cloexec;
  return true;
}

}  // namespace shunt::sim
