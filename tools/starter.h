// SPDX-License-Identifier: Apache-2.0
// Starter: the small process that makes engines and workers for the keeper, so that the keeper needs no right
// to fork or to execute anything.
//
// It is forked before the keeper confines itself, leaves the terminal, if there is one, and does one thing:
// on a request it makes a packet socket pair, forks, and executes the program as `PROGRAM engine --link 3
// ARGUMENTS...`; it answers with the keeper's end and a pidfd. What is executed is fixed when it is made: the
// very file, by a descriptor, or for an upgrade whatever lies at that file's path by then. Nothing that comes
// over a link names a program. In the same way it makes workers (core/worker.h) as `PROGRAM worker --link 3`,
// whose other end an engine has.
//
// Nobody outlives the keeper: the starter gets SIGKILL when the keeper ends, engines when the starter does,
// and an engine's link closes at the same time. An engine starts with no descriptors but 0, 1, 2 and its
// link, an empty signal mask, and SIGTERM, SIGINT, SIGHUP and SIGUSR2 ignored: those are meant for the
// keeper, even where a service manager or a terminal sends them to everybody.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt {

struct StarterRequest {
  enum class Kind : uint32_t {
    kStart = 1,  // from the file that is current
    kStartNew,   // from what lies at the path now
    kKeepNew,    // the file of the last kStartNew is the current one from now on; no report
    kWorker,     // from the current file, at the descriptor that comes along; no report
  };
  Kind kind{};
  uint32_t sequence = 0;  // comes back in the report
};

struct StarterReport {
  enum class Kind : uint32_t {
    kStarted = 1,  // `pid`; with the link and the pidfd
    kFailed,       // `detail`: the errno
    kEnded,        // `pid`, `detail`: its wait status. Unasked, of every engine and worker
  };
  Kind kind{};
  uint32_t sequence = 0;
  int32_t pid = 0;
  int32_t detail = 0;
};

struct StarterOptions {
  std::vector<std::string> arguments;      // for engines, after `engine --link 3`
  std::string program = "/proc/self/exe";  // what is executed
};

// The keeper's handle.
class Starter {
 public:
  // Forks. Call it while the process has one thread, and not under a filter of its own.
  static absl::StatusOr<Starter> Fork(const StarterOptions& options);

  Starter(Starter&&) = default;
  Starter& operator=(Starter&&) = delete;
  // Ends it and, through it, every engine.
  ~Starter();

  // Readable when there is a report, or when the starter has ended.
  int fd() const { return link_.get(); }

  // With the descriptor of a kWorker.
  Result<void> Send(StarterRequest request, std::span<const int> fds = {}) const;

  struct Arrival {
    StarterReport report;
    std::vector<Fd> fds;  // kStarted: the link, the pidfd
  };
  // EAGAIN: nothing there. Any other error: it has ended, and no engine can be made any more.
  Result<Arrival> Receive() const;

 private:
  Starter(Fd link, pid_t pid) : link_(std::move(link)), pid_(pid) {}

  Fd link_;
  pid_t pid_;
};

}  // namespace shunt
