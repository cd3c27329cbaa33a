// SPDX-License-Identifier: Apache-2.0
// The simulated kernel's objects: open files, descriptor tables, tasks, seccomp filters with their trapped
// calls, TCP sockets.
//
// As much of Linux as the engine can tell apart, and no more. tests/facts pins on the real kernel what is
// imitated here.

#pragma once

#include <linux/seccomp.h>
#include <poll.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "net/sock_addr.h"

namespace shunt::sim {

// An open file. It goes when its last descriptor goes, wherever that is.
struct File {
  File();
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  virtual const char* kind() const = 0;
  virtual short Ready() const { return POLLIN | POLLOUT; }

  const uint64_t inode;
  int mount = 1;
  int flags = 0;  // as F_GETFL gives them
};
using FileRef = std::shared_ptr<File>;

struct Descriptor {
  FileRef file;
  bool cloexec = false;
};

struct FdTable {
  explicit FdTable(int first) : first_free(first) {}

  int Add(FileRef file, bool cloexec, int from = -1);  // the lowest free number
  FileRef Get(int number) const;
  template <typename T>
  std::shared_ptr<T> GetAs(int number) const {
    return std::dynamic_pointer_cast<T>(Get(number));
  }

  // The engine's numbers begin high, so that none of them means anything to the real kernel.
  const int first_free;
  std::map<int, Descriptor> open;
  uint64_t opened = 0;
  uint64_t closed = 0;
};
inline constexpr int kEngineFirstFd = 1 << 20;
inline constexpr pid_t kEnginePid = 1000;
inline constexpr int kSocketMount = 9;

struct EventFd final : File {
  const char* kind() const override { return "eventfd"; }
  short Ready() const override { return static_cast<short>(POLLOUT | (count > 0 ? POLLIN : 0)); }
  uint64_t count = 0;
};

struct Epoll final : File {
  struct Watch {
    std::weak_ptr<File> file;  // an entry goes with its file
    int number;
    uint32_t events;
    uint64_t data;
    bool armed = true;
    uint64_t since = 0;  // it is older than the trapped calls from this one on
  };
  const char* kind() const override { return "epoll"; }
  short Ready() const override;
  Watch* Find(const FileRef& file, int number);
  std::vector<Watch> watches;
};

// What /proc and a few others are: bytes.
struct TextFile final : File {
  explicit TextFile(std::string its_text) : text(std::move(its_text)) {}
  const char* kind() const override { return "text"; }
  const std::string text;
  size_t offset = 0;
};

// A memfd. Zeroed, and aligned as a mapping is.
struct MemoryFile final : File {
  struct Freer {
    void operator()(void* at) const { std::free(at); }
  };
  const char* kind() const override { return "memory"; }
  void Resize(size_t bytes);
  size_t size = 0;
  std::unique_ptr<void, Freer> bytes;
};

// Something that the engine has no business with: a file that can take for ever to close.
struct OtherFile final : File {
  const char* kind() const override { return "other"; }
};
struct LockProgramFile final : File {
  const char* kind() const override { return "lock program"; }
};
struct RouteMonitorFile final : File {
  const char* kind() const override { return "route monitor"; }
  short Ready() const override { return changed ? POLLIN : 0; }
  uint64_t netns = 0;
  bool changed = false;
};
// A netlink socket: routes, or sock_diag with the answer to the last question.
struct NetlinkFile final : File {
  const char* kind() const override { return "netlink"; }
  uint64_t netns = 0;
  std::deque<std::vector<std::byte>> answers;
};

enum class TcpState : uint8_t { kEstablished = 1, kSynSent = 2, kClosed = 7, kListening = 10 };

struct Socket final : File {
  Socket(int its_family, int its_type, int its_protocol, uint64_t its_netns);
  ~Socket() override;
  const char* kind() const override { return "socket"; }
  short Ready() const override;
  bool IsTcp() const;
  // In the host's network a socket that a container can reach must be one of these.
  bool locked() const { return (has_program && filter_locked) || device != 0; }

  const int family, type, protocol;
  const uint64_t netns;
  const uint64_t cookie;
  TcpState state = TcpState::kClosed;
  net::SockAddr local, peer;
  bool bound = false;  // by bind(2), not by a connect
  bool shut_down = false;
  int pending_error = 0;
  bool has_program = false, filter_locked = false;
  int device = 0;
  std::map<std::pair<int, int>, std::vector<std::byte>> options;
};

struct Task;

struct Process {
  Process(pid_t its_pid, pid_t its_parent, uint64_t its_netns)
      : pid(its_pid), parent(its_parent), netns(its_netns) {}
  const pid_t pid, parent;
  const uint64_t netns;
  std::shared_ptr<FdTable> table = std::make_shared<FdTable>(0);
  std::vector<std::shared_ptr<Task>> tasks;
  uint64_t disturbed =
      0;  // how often something happened to its descriptors that a waiting call does not know of
};

// The engine's wish that a task puts a file into its own table.
struct Install {
  FileRef file;
  int number;  // -1: the lowest free
  bool cloexec;
  bool answers;
  bool done = false;
  int result = 0;
};

struct Trapped {
  enum class State : uint8_t { kWaiting, kReceived, kAnswered, kLeft };
  uint64_t id = 0;
  seccomp_data data{};
  State state = State::kWaiting;
  Install* install = nullptr;
  seccomp_notif_resp answer{};
  // For the checks.
  int sends = 0;  // that were not interrupted
  int installs = 0;
  std::weak_ptr<File> first;  // what was there before anything was installed
  std::weak_ptr<File> twin;   // what was installed last
  uint64_t disturbed_before = 0;
};

struct Filter {
  std::vector<std::shared_ptr<Trapped>> waiting;  // in order; answered and left ones are taken out
  std::map<uint64_t, std::shared_ptr<Trapped>> all;
  int wakeups = 0;  // the semaphore that RECV sleeps on: once for each call, whatever became of it
  int tasks = 0;
  std::string name;
};

struct ListenerFile final : File {
  const char* kind() const override { return "listener"; }
  short Ready() const override;
  std::shared_ptr<Filter> filter;
};

struct Task {
  Task(pid_t its_tid, std::shared_ptr<Process> its_process, std::shared_ptr<Filter> its_filter)
      : tid(its_tid), process(std::move(its_process)), filter(std::move(its_filter)) {}
  const pid_t tid;
  const std::shared_ptr<Process> process;
  const std::shared_ptr<Filter> filter;
  bool alive = true;
  bool hidden = false;              // nobody may look into it, as while a runtime is still at work
  std::shared_ptr<Trapped> inside;  // the call that it waits in
  std::array<std::byte, 256> memory{};
};
inline constexpr uint64_t kMemoryBase = 0x7f0000;

struct PidFd final : File {
  const char* kind() const override { return "pidfd"; }
  std::shared_ptr<Task> task;  // nullptr: the engine itself
};
struct FdInfoDirectory final : File {
  const char* kind() const override { return "fdinfo"; }
  std::shared_ptr<Task> task;  // nullptr: of the fiber that has opened it
  std::shared_ptr<FdTable> table;
  bool listed = false;
};
struct FdInfoFile final : File {
  const char* kind() const override { return "fdinfo file"; }
  std::string Text() const;
  std::shared_ptr<Task> task;
  std::shared_ptr<FdTable> table;
  int number = -1;
  size_t offset = 0;
};
struct ProcDirectory final : File {
  const char* kind() const override { return "/proc"; }
  bool listed = false;
};
struct NamespaceFile final : File {
  const char* kind() const override { return "namespace"; }
  uint64_t number = 0;
};

// Everything that is there. One for each run.
struct Kernel {
  Kernel();
  ~Kernel();
  static Kernel& Get();

  std::shared_ptr<Task> FindTask(pid_t tid) const;
  void EndTask(const std::shared_ptr<Task>& task);
  // The task leaves its call without an answer.
  void LeaveCall(Task& task);
  // SIGKILL for the engine: its descriptors and mappings go, and what it has asked of tasks.
  void EngineDies();
  // Carries out what the engine has asked of it. False: nothing to do.
  bool CarryOutInstall(Task& task);

  std::shared_ptr<FdTable> engine_table = std::make_shared<FdTable>(kEngineFirstFd);
  std::map<pid_t, std::shared_ptr<Task>> tasks;
  std::multimap<void*, std::shared_ptr<MemoryFile>> mappings;
  std::map<uint64_t, Socket*> sockets;  // all that are open, by inode
  uint64_t next_inode = 100;
  uint64_t next_cookie = 1;
  uint64_t next_call = 1;
  uint16_t next_port = 32768;
  bool may_load_programs = true;
  bool ignores = false;  // the operator has named a network that stays on the ordinary path
  uint64_t now = 1;      // nanoseconds
  // For the checks.
  uint64_t engines_killed = 0;
  uint64_t received = 0, answered = 0, failed_receives = 0, failed_sends = 0;
};

inline constexpr uint64_t kHostNetns = 1;

// The system calls that both sides make. Positive errno, or 0; a connect in progress is EINPROGRESS.
int Bind(Socket& socket, const net::SockAddr& address);
int Connect(Socket& socket, const void* address, size_t size, bool by_engine);
int Listen(Socket& socket);
int SetOption(const std::shared_ptr<FdTable>& table, Socket& socket, int level, int name, const void* value,
              size_t size);
int GetOption(const Socket& socket, int level, int name, void* value, unsigned* size);

// Listener ioctls; the result, or a negative errno. The first may pause.
int InstallInTask(Filter& filter, const seccomp_notif_addfd& request);
int ReceiveCall(Filter& filter, seccomp_notif& into);
int SendAnswer(Filter& filter, const seccomp_notif_resp& answer);

}  // namespace shunt::sim
