// SPDX-License-Identifier: Apache-2.0
// Runs a command under a seccomp agent, ours or another one, as a container runtime would, with nothing of a
// runtime around it: a filter that notifies of some calls, whose listener is handed to the agent at a socket.
//
//   notified --socket PATH --trap CALL[,CALL...] [--metadata TEXT] [--] COMMAND...
//
// Namespaces are the caller's affair (bench/container, unshare). The agent is told that the command is the
// container's first process. Calls are those of this machine's main architecture; libseccomp knows their
// names. A name that it does not know is wrong usage, exit status 2; if the command could not be started
// under the agent, the exit status is 125 and one line says why; otherwise it is the command's.

#include <getopt.h>
#include <seccomp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "bench/hand_over.h"

namespace shunt::bench {
namespace {

constexpr int kNotStarted = 125;  // as env(1) and others

struct NotifiedOptions {
  const char* socket = nullptr;
  std::vector<int> calls;
  std::string metadata;
  char** command = nullptr;
};

[[noreturn]] void GiveUp(const char* what, int error) {
  std::fprintf(stderr, "notified: %s: %s\n", what, std::strerror(error));
  std::exit(kNotStarted);
}

bool ReadCalls(std::string_view text, std::vector<int>& calls) {
  while (!text.empty()) {
    const std::string name(text.substr(0, text.find(',')));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    const int number = seccomp_syscall_resolve_name(name.c_str());
    if (number < 0) {
      std::fprintf(stderr, "notified: --trap: there is no call %s here\n", name.c_str());
      return false;
    }
    calls.push_back(number);
  }
  return true;
}

// The listener of a filter that is in force from now on.
int TrapCalls(const std::vector<int>& calls) {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr) GiveUp("seccomp_init", ENOMEM);
  for (const int call : calls) {
    if (const int error = seccomp_rule_add(filter, SCMP_ACT_NOTIFY, call, 0); error != 0)
      GiveUp("seccomp_rule_add", -error);
  }
  if (const int error = seccomp_load(filter); error != 0) GiveUp("seccomp_load", -error);
  return seccomp_notify_fd(filter);
}

// The agent does not serve yet when the listener is in the socket, so from the filter on nothing here may
// make a call that could be trapped, or it would wait for itself: the connection is made before, and nothing
// is closed.
[[noreturn]] void RunNotified(const NotifiedOptions& options) {
  const int connection = ConnectToAgent(options.socket);
  if (connection < 0) GiveUp(options.socket, errno);
  const int listener = TrapCalls(options.calls);
  const std::string id = "notified-" + std::to_string(getpid());
  if (!HandOver(connection, id, getpid(), options.metadata, listener))
    GiveUp("hand the listener over", errno);
  execvp(options.command[0], options.command);
  GiveUp(options.command[0], errno);
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  shunt::bench::NotifiedOptions options;
  const option names[] = {{"socket", required_argument, nullptr, 's'},
                          {"trap", required_argument, nullptr, 't'},
                          {"metadata", required_argument, nullptr, 'm'},
                          {}};
  bool wrong = false;
  for (int one; (one = getopt_long(argc, argv, "+", names, nullptr)) != -1;) {
    if (one == 's') options.socket = optarg;
    if (one == 't') wrong = !shunt::bench::ReadCalls(optarg, options.calls) || wrong;
    if (one == 'm') options.metadata = optarg;
    if (one == '?') wrong = true;
  }
  options.command = argv + optind;
  if (wrong || options.socket == nullptr || options.calls.empty() || optind == argc) {
    std::fprintf(stderr,
                 "usage: notified --socket PATH --trap CALL[,CALL...] [--metadata TEXT] [--] COMMAND...\n");
    return 2;
  }
  shunt::bench::RunNotified(options);
}
