// SPDX-License-Identifier: Apache-2.0
// The system calls of the engine: the linker leads every one that its files make to a function here (--wrap,
// see CMakeLists.txt), so the hot path runs as it is built for the real kernel.
//
// Each may be preceded by anything that others do, and may fail with what the kernel can say at that place.
// A descriptor that is not open is a mistake of the engine's, always.

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "core/result.h"
#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

int Answer(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

std::shared_ptr<FdTable> Table() {
  return Fiber::Current()->table;
}

FileRef Open(int fd) {
  FileRef file = Table()->Get(fd);
  if (file == nullptr) World::Get().Wrong("descriptor %d is used and not open", fd);
  return file;
}

template <typename T>
std::shared_ptr<T> OpenAs(int fd) {
  return std::dynamic_pointer_cast<T>(Open(fd));
}

// A new descriptor, or why there is none.
int Give(FileRef file, bool cloexec = true) {
  if (const int error = World::Get().Fault({EMFILE, ENFILE, ENOMEM}); error != 0) return Answer(error);
  return Table()->Add(std::move(file), cloexec);
}

// The part of a task's memory that process_vm_readv or process_vm_writev (`call`) is about.
Result<std::span<std::byte>> MemoryThere(const char* call, pid_t tid, const iovec& local,
                                         const iovec& remote) {
  World& world = World::Get();
  world.Enter(call, tid);
  if (const int error = world.Fault({ENOMEM, EFAULT, EPERM}); error != 0) return Fail(error);
  const std::shared_ptr<Task> task = Kernel::Get().FindTask(tid);  // the kernel has it, too
  if (task == nullptr) return Fail(ESRCH);
  const uint64_t offset = reinterpret_cast<uint64_t>(remote.iov_base) - kMemoryBase;
  if (offset >= task->memory.size()) return Fail(EFAULT);
  return std::span(task->memory).subspan(offset, std::min(local.iov_len, task->memory.size() - offset));
}

int ListenerCall(ListenerFile& listener, unsigned long request, void* argument) {
  World& world = World::Get();
  if (const int error = world.Fault({EINTR}); error != 0) return -error;
  Filter& filter = *listener.filter;
  constexpr unsigned long kSetFlags = SECCOMP_IOW(4, __u64);
  switch (request) {
    case SECCOMP_IOCTL_NOTIF_RECV:
      return ReceiveCall(filter, *static_cast<seccomp_notif*>(argument));
    case SECCOMP_IOCTL_NOTIF_SEND:
      return SendAnswer(filter, *static_cast<const seccomp_notif_resp*>(argument));
    case SECCOMP_IOCTL_NOTIF_ADDFD:
      return InstallInTask(filter, *static_cast<const seccomp_notif_addfd*>(argument));
    case SECCOMP_IOCTL_NOTIF_ID_VALID: {
      const auto found = filter.all.find(*static_cast<const uint64_t*>(argument));
      const bool valid = found != filter.all.end() && found->second->state == Trapped::State::kReceived;
      return valid ? 0 : -ENOENT;
    }
    case kSetFlags:
      return 0;
    default:
      world.Wrong("a listener does not know request %lx", request);
  }
}

}  // namespace
}  // namespace shunt::sim

using namespace shunt::sim;  // NOLINT: this file is about nothing else

extern "C" {

int __wrap_close(int fd) {
  World& world = World::Get();
  world.Enter("close", fd);
  FdTable& table = *Table();
  const auto found = table.open.find(fd);
  if (found == table.open.end()) world.Wrong("descriptor %d is closed and not open", fd);
  const FileRef file = found->second.file;
  if (dynamic_cast<const OtherFile*>(file.get()) != nullptr && Fiber::Current()->name.starts_with("reactor"))
    world.Wrong("a reactor waits for the close of a file that is not ours");
  table.open.erase(found);
  ++table.closed;
  return 0;
}

int __wrap_fcntl(int fd, int command, long argument) {
  World& world = World::Get();
  world.Enter("fcntl", fd, command);
  if (command == F_DUPFD_CLOEXEC && fd < 0) return Answer(EBADF);
  const FileRef file = Open(fd);
  switch (command) {
    case F_GETFL:
      return file->flags;
    case F_SETFL:
      file->flags = (file->flags & O_ACCMODE) | static_cast<int>(argument);
      return 0;
    case F_SETFD:
    case F_GETSIG:
    case F_ADD_SEALS:
      return 0;
    case F_GET_SEALS:
      return F_SEAL_SHRINK;
    case F_DUPFD_CLOEXEC: {
      if (const int error = world.Fault({EMFILE}); error != 0) return Answer(error);
      return Table()->Add(file, true, static_cast<int>(argument));
    }
    case F_GETOWN_EX:
      *reinterpret_cast<f_owner_ex*>(argument) = {};
      return 0;
    default:
      world.Wrong("fcntl command %d", command);
  }
}

int __wrap_ioctl(int fd, unsigned long request, void* argument) {
  World& world = World::Get();
  world.Enter("ioctl", fd, static_cast<long long>(request & 0xff));
  const FileRef file = Open(fd);
  if (const auto listener = std::dynamic_pointer_cast<ListenerFile>(file)) {
    const int result = ListenerCall(*listener, request, argument);
    return result < 0 ? Answer(-result) : result;
  }
  if (request == NS_GET_USERNS) return Answer(EPERM);
  return Answer(ENOTTY);
}

int __wrap_dup3(int fd, int number, int /*flags*/) {
  World::Get().Enter("dup3", fd, number);
  FdTable& table = *Table();
  if (const int error = World::Get().Fault({EBADF, EMFILE}); error != 0) return Answer(error);
  if (table.open.contains(number)) ++table.closed;
  ++table.opened;
  table.open[number] = {Open(fd), true};
  return number;
}

ssize_t __wrap_read(int fd, void* into, size_t size) {
  World::Get().Enter("read", fd);
  const FileRef file = Open(fd);
  if (const auto event = std::dynamic_pointer_cast<EventFd>(file)) {
    if (event->count == 0) return Answer(EAGAIN);
    std::memcpy(into, &event->count, sizeof(event->count));
    event->count = 0;
    return 8;
  }
  const auto give = [&](const std::string& text, size_t& offset) {
    const size_t count = offset < text.size() ? std::min(size, text.size() - offset) : 0;
    std::memcpy(into, text.data() + offset, count);
    offset += count;
    return static_cast<ssize_t>(count);
  };
  if (const int error = World::Get().Fault({ENOMEM}); error != 0) return Answer(error);
  if (const auto text = std::dynamic_pointer_cast<TextFile>(file)) return give(text->text, text->offset);
  if (const auto info = std::dynamic_pointer_cast<FdInfoFile>(file)) {
    const std::string text = info->Text();
    if (text.empty()) return Answer(ENOENT);
    return give(text, info->offset);
  }
  World::Get().Wrong("a %s is read", file->kind());
}

ssize_t __wrap_pread(int fd, void* into, size_t size, off_t /*offset: 0*/) {
  World::Get().Enter("pread", fd);
  const auto info = OpenAs<FdInfoFile>(fd);
  if (info == nullptr) World::Get().Wrong("descriptor %d is no fdinfo", fd);
  if (const int error = World::Get().Fault({ENOMEM}); error != 0) return Answer(error);
  const std::string text = info->Text();
  if (text.empty()) return Answer(ENOENT);
  const size_t count = std::min(size, text.size());
  std::memcpy(into, text.data(), count);
  return static_cast<ssize_t>(count);
}

ssize_t __wrap_write(int fd, const void* from, size_t size) {
  World::Get().Enter("write", fd);
  const auto event = OpenAs<EventFd>(fd);
  if (event == nullptr || size != 8) World::Get().Wrong("descriptor %d is written", fd);
  uint64_t count;
  std::memcpy(&count, from, sizeof(count));
  event->count += count;
  return 8;
}

int __wrap_eventfd(unsigned count, int /*flags*/) {
  World::Get().Enter("eventfd");
  auto event = std::make_shared<EventFd>();
  event->count = count;
  return Table()->Add(std::move(event), true);  // without one nothing starts at all
}

int __wrap_poll(pollfd* fds, nfds_t count, int timeout) {
  World& world = World::Get();
  world.Enter("poll", fds[0].fd, timeout);
  if (count != 1 || timeout != 0) world.Wrong("a poll that waits");
  if (const int error = world.Fault({ENOMEM, EINTR}); error != 0) return Answer(error);
  const int ready = Open(fds[0].fd)->Ready() & (fds[0].events | POLLERR | POLLHUP);
  fds[0].revents = static_cast<short>(ready);
  return ready != 0 ? 1 : 0;
}

int __wrap_epoll_create1(int /*flags*/) {
  World::Get().Enter("epoll_create1");
  return Give(std::make_shared<Epoll>());
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event) {
  World& world = World::Get();
  world.Enter("epoll_ctl", epoll_fd, fd);
  if (epoll_fd < 0 || fd < 0) return Answer(EBADF);
  const auto epoll = OpenAs<Epoll>(epoll_fd);
  if (epoll == nullptr) return Answer(EINVAL);
  const FileRef file = Open(fd);
  Epoll::Watch* const watch = epoll->Find(file, fd);
  switch (operation) {
    case EPOLL_CTL_ADD:
      if (watch != nullptr) return Answer(EEXIST);
      if (const int error = world.Fault({ENOMEM, ENOSPC}); error != 0) return Answer(error);
      epoll->watches.push_back(
          {.file = file, .number = fd, .events = event->events, .data = event->data.u64});
      return 0;
    case EPOLL_CTL_MOD:
      if (watch == nullptr) return Answer(ENOENT);
      *watch = {.file = file, .number = fd, .events = event->events, .data = event->data.u64};
      return 0;
    default:
      if (watch == nullptr) return Answer(ENOENT);
      epoll->watches.erase(epoll->watches.begin() + (watch - epoll->watches.data()));
      return 0;
  }
}

int __wrap_epoll_wait(int epoll_fd, epoll_event* events, int most, int timeout) {
  World& world = World::Get();
  world.Enter("epoll_wait", epoll_fd);
  if (timeout != 0) world.Wrong("an epoll_wait that waits");
  if (const int error = world.Fault({EINTR}); error != 0) return Answer(error);
  int count = 0;
  for (Epoll::Watch& watch : OpenAs<Epoll>(epoll_fd)->watches) {
    const FileRef file = watch.file.lock();
    if (file == nullptr || !watch.armed || count == most) continue;
    const uint32_t ready = static_cast<uint32_t>(file->Ready()) & (watch.events | EPOLLERR | EPOLLHUP);
    if (ready == 0) continue;
    events[count].events = ready;
    events[count++].data.u64 = watch.data;
    if ((watch.events & EPOLLONESHOT) != 0) watch.armed = false;
  }
  return count;
}

int __wrap_socket(int family, int type, int protocol) {
  World::Get().Enter("socket", family);
  const int plain = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (family == AF_NETLINK) {
    auto netlink = std::make_shared<NetlinkFile>();
    netlink->mount = kSocketMount;
    netlink->netns = kHostNetns;
    return Give(std::move(netlink));
  }
  const int its_protocol = plain == SOCK_STREAM && family != AF_UNIX ? IPPROTO_TCP : protocol;
  auto socket = std::make_shared<Socket>(family, plain, its_protocol, kHostNetns);
  if ((type & SOCK_NONBLOCK) != 0) socket->flags |= O_NONBLOCK;
  return Give(std::move(socket));
}

int __wrap_bind(int fd, const sockaddr* address, socklen_t size) {
  World::Get().Enter("bind", fd);
  const auto socket = OpenAs<Socket>(fd);
  if (socket == nullptr) return Answer(ENOTSOCK);
  const auto parsed = shunt::net::SockAddr::Parse({reinterpret_cast<const std::byte*>(address), size});
  if (!parsed) return Answer(parsed.error().code);
  return Answer(Bind(*socket, *parsed));
}

int __wrap_connect(int fd, const sockaddr* address, socklen_t size) {
  World::Get().Enter("connect", fd);
  const auto socket = OpenAs<Socket>(fd);
  if (socket == nullptr) return Answer(ENOTSOCK);
  return Answer(Connect(*socket, address, size, /*by_engine=*/true));
}

int __wrap_listen(int fd, int /*backlog*/) {
  World::Get().Enter("listen", fd);
  const auto socket = OpenAs<Socket>(fd);
  return Answer(socket == nullptr ? ENOTSOCK : Listen(*socket));
}

int __wrap_shutdown(int fd, int /*how*/) {
  World::Get().Enter("shutdown", fd);
  OpenAs<Socket>(fd)->shut_down = true;
  return Answer(ENOTCONN);
}

int __wrap_getsockname(int fd, sockaddr* address, socklen_t* size) {
  World::Get().Enter("getsockname", fd);
  const auto socket = OpenAs<Socket>(fd);
  if (socket == nullptr) return Answer(ENOTSOCK);
  std::memset(address, 0, *size);
  if (!socket->IsTcp()) {
    address->sa_family = static_cast<sa_family_t>(socket->family);
    *size = sizeof(sa_family_t);
    return 0;
  }
  std::memcpy(address, socket->local.data(), socket->local.size());
  *size = socket->local.size();
  return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* size) {
  World::Get().Enter("getsockopt", fd, name);
  const auto socket = OpenAs<Socket>(fd);
  if (socket == nullptr) return Answer(ENOTSOCK);
  if (const int error = World::Get().Fault({ENOMEM, ENOPROTOOPT}); error != 0) return Answer(error);
  return Answer(GetOption(*socket, level, name, value, size));
}

int __wrap_setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  World::Get().Enter("setsockopt", fd, name);
  if (fd < 0) return Answer(EBADF);  // of a socket that could not be made; which nobody else has either
  const auto socket = OpenAs<Socket>(fd);
  if (socket == nullptr) return Answer(ENOTSOCK);
  if (const int error = World::Get().Fault({ENOMEM, EPERM}); error != 0) return Answer(error);
  return Answer(SetOption(Table(), *socket, level, name, value, size));
}

ssize_t __wrap_process_vm_readv(pid_t tid, const iovec* local, unsigned long, const iovec* remote,
                                unsigned long, unsigned long) {
  const shunt::Result<std::span<std::byte>> there = MemoryThere("process_vm_readv", tid, *local, *remote);
  if (!there) return Answer(there.error().code);
  std::memcpy(local->iov_base, there->data(), there->size());
  return static_cast<ssize_t>(there->size());
}

ssize_t __wrap_process_vm_writev(pid_t tid, const iovec* local, unsigned long, const iovec* remote,
                                 unsigned long, unsigned long) {
  const shunt::Result<std::span<std::byte>> there = MemoryThere("process_vm_writev", tid, *local, *remote);
  if (!there) return Answer(there.error().code);
  std::memcpy(there->data(), local->iov_base, there->size());
  return static_cast<ssize_t>(there->size());
}

pid_t __wrap_getpid() {
  return kEnginePid;
}

pid_t __wrap_gettid() {
  return Fiber::Current()->tid;
}

}  // extern "C"
