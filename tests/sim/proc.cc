// SPDX-License-Identifier: Apache-2.0
// The file system as far as the engine looks into it: /proc.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

int Refuse(int error) {
  errno = error;
  return -1;
}

int Give(FileRef file, int flags) {
  if (const int error = World::Get().Fault({EMFILE, ENFILE, ENOMEM}); error != 0) return Refuse(error);
  return Fiber::Current()->table->Add(std::move(file), (flags & O_CLOEXEC) != 0);
}

// Takes "NUMBER" off the front; -1: there is none.
int TakeNumber(std::string_view& path) {
  int number = -1;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), number);
  if (error != std::errc()) return -1;
  path.remove_prefix(static_cast<size_t>(end - path.data()));
  return number;
}

int OpenOfTask(const std::shared_ptr<Task>& task, std::string_view what, int flags) {
  if (what == "/fdinfo") {
    auto directory = std::make_shared<FdInfoDirectory>();
    directory->task = task;
    directory->table = task != nullptr ? nullptr : Fiber::Current()->table;
    return Give(std::move(directory), flags);
  }
  if (what.starts_with("/fdinfo/")) {
    auto file = std::make_shared<FdInfoFile>();
    what.remove_prefix(strlen("/fdinfo/"));
    file->number = TakeNumber(what);
    file->task = task;
    file->table = task != nullptr ? nullptr : Fiber::Current()->table;
    if (file->Text().empty()) return Refuse(ENOENT);
    return Give(std::move(file), flags);
  }
  if (what == "/status" && task != nullptr) {
    return Give(
        std::make_shared<TextFile>(absl::StrFormat("Name:\tx\nTgid:\t%d\nPid:\t%d\nPPid:\t%d\n",
                                                   task->process->pid, task->tid, task->process->parent)),
        flags);
  }
  if (what == "/ns/net" && task == nullptr) return Give(std::make_shared<NamespaceFile>(), flags);
  World::Get().Wrong("/proc/TASK%s is opened", std::string(what).c_str());
}

// The numbers in a directory, all in one piece.
ssize_t List(const std::vector<int>& numbers, void* into, size_t size) {
  auto* const buffer = static_cast<char*>(into);
  size_t used = 0;
  for (const int number : numbers) {
    dirent64 entry{};
    const std::string name = std::to_string(number);
    std::memcpy(entry.d_name, name.c_str(), name.size() + 1);
    entry.d_reclen = static_cast<unsigned short>((offsetof(dirent64, d_name) + name.size() + 1 + 7) & ~7u);
    if (used + entry.d_reclen > size) break;
    std::memcpy(buffer + used, &entry, entry.d_reclen);
    used += entry.d_reclen;
  }
  return static_cast<ssize_t>(used);
}

}  // namespace
}  // namespace shunt::sim

using namespace shunt::sim;  // NOLINT: this file is about nothing else

extern "C" {

int __wrap_open(const char* name, int flags, unsigned /*mode*/) {
  World& world = World::Get();
  world.Enter(name);
  std::string_view path(name);
  if (path == "/proc") return Give(std::make_shared<ProcDirectory>(), flags);
  if (path == "/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    return Give(std::make_shared<TextFile>("cubic reno\n"), flags);
  if (path.starts_with("/proc/thread-self")) return OpenOfTask(nullptr, path.substr(17), flags);
  if (path.starts_with("/proc/self")) return OpenOfTask(nullptr, path.substr(10), flags);
  if (!path.starts_with("/proc/")) world.Wrong("%s is opened", name);
  path.remove_prefix(strlen("/proc/"));
  const int number = TakeNumber(path);
  if (number >= kEnginePid && number < kEnginePid + 100) return OpenOfTask(nullptr, path, flags);
  const std::shared_ptr<Task> task = Kernel::Get().FindTask(number);
  if (task == nullptr) return Refuse(ENOENT);
  if (task->hidden) return Refuse(EACCES);
  return OpenOfTask(task, path, flags);
}

int __wrap_openat(int directory_fd, const char* name, int flags, unsigned /*mode*/) {
  World& world = World::Get();
  world.Enter("openat", directory_fd);
  const auto directory = Fiber::Current()->table->GetAs<FdInfoDirectory>(directory_fd);
  if (directory == nullptr) world.Wrong("%s is opened in what is no directory", name);
  if (directory->task != nullptr && !directory->task->alive) return Refuse(ENOENT);
  auto file = std::make_shared<FdInfoFile>();
  std::string_view digits(name);
  file->number = TakeNumber(digits);
  file->task = directory->task;
  file->table = directory->table;
  if (file->Text().empty()) return Refuse(ENOENT);
  return Give(std::move(file), flags);
}

ssize_t __wrap_getdents64(int fd, void* into, size_t size) {
  World& world = World::Get();
  world.Enter("getdents64", fd);
  const FileRef file = Fiber::Current()->table->Get(fd);
  std::vector<int> numbers;
  if (const auto directory = std::dynamic_pointer_cast<FdInfoDirectory>(file)) {
    if (directory->task != nullptr && !directory->task->alive) return Refuse(ENOENT);
    if (std::exchange(directory->listed, true)) return 0;
    const FdTable& table = directory->task != nullptr ? *directory->task->process->table : *directory->table;
    for (const auto& [number, descriptor] : table.open) numbers.push_back(number);
  } else if (const auto proc = std::dynamic_pointer_cast<ProcDirectory>(file)) {
    if (std::exchange(proc->listed, true)) return 0;
    numbers.push_back(kEnginePid);
    for (const auto& [tid, task] : Kernel::Get().tasks) {
      if (task->process->pid == tid) numbers.push_back(tid);
    }
  } else {
    world.Wrong("what is no directory is listed");
  }
  if (const int error = world.Fault({ENOMEM}); error != 0) return Refuse(error);
  return List(numbers, into, size);
}

int __wrap_stat(const char* name, struct stat* into) {
  World& world = World::Get();
  world.Enter(name);
  std::string_view path(name);
  path.remove_prefix(strlen("/proc/"));
  const int number = TakeNumber(path);
  const std::shared_ptr<Task> task = Kernel::Get().FindTask(number);
  if (task == nullptr && number != kEnginePid) return Refuse(ENOENT);
  std::memset(into, 0, sizeof(*into));
  into->st_dev = 4;
  into->st_ino = path == "/ns/user" ? 5000 : (task != nullptr ? task->process->netns : kHostNetns);
  return 0;
}

int __wrap_fstat(int fd, struct stat* into) {
  World& world = World::Get();
  world.Enter("fstat", fd);
  const FileRef file = Fiber::Current()->table->Get(fd);
  if (file == nullptr) world.Wrong("descriptor %d is used and not open", fd);
  std::memset(into, 0, sizeof(*into));
  into->st_dev = 9;
  into->st_ino = file->inode;
  const auto* memory = dynamic_cast<const MemoryFile*>(file.get());
  into->st_size = memory != nullptr ? static_cast<off_t>(memory->size) : 0;
  return 0;
}

}  // extern "C"
