// SPDX-License-Identifier: Apache-2.0
// Words that make it doubtful who has made a call: the caller dies, becomes another program, or its number is
// given to somebody else while the call is being decided.

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "tests/hostile/attacker/attacker.h"

namespace attacker {
namespace {

constexpr int kRounds = 150;
constexpr int kExecRounds = 40;

// Kills a child somewhere in its script, makes the next one at once, which with luck has its number, and so
// on.
void Churn(Attack& attack, size_t rest) {
  unsigned random = 1;
  for (int i = 0; i < kRounds; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Run(attack, rest);
      _exit(0);
    }
    if (child < 0) break;
    random = random * 1103515245 + 12345;
    usleep(random / 65536 % 1500);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  Note(attack, "churn", 0);
}

// A thread connects while the process becomes another program, whose descriptors are others.
void ExecWhileConnecting(Attack& attack) {
  for (int i = 0; i < kExecRounds; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      fcntl(attack.fd, F_SETFD, FD_CLOEXEC);
      // The caller is the leader: the other thread takes over its number.
      std::thread successor([i] {
        usleep(static_cast<useconds_t>(i) * 7);
        execl("/proc/self/exe", "attacker", "nothing", nullptr);
        _exit(1);
      });
      while (true) connect(attack.fd, attack.target.get(), attack.target.size);
    }
    if (child > 0) waitpid(child, nullptr, 0);
  }
  Note(attack, "exec-while-connecting", 0);
}

}  // namespace

bool IdentityWord(Attack& attack, const std::string& word, size_t rest) {
  if (word == "churn") {
    Churn(attack, rest);
    attack.script.resize(rest);
  } else if (word == "exec-while-connecting") {
    ExecWhileConnecting(attack);
  } else {
    return false;
  }
  return true;
}

}  // namespace attacker
