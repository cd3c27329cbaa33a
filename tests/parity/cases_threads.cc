// SPDX-License-Identifier: Apache-2.0
// Threads that share a descriptor table, threads that do not, and processes that all connect at once.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

struct Worker {
  int fd = -1;
  int good = 0;
  int error = 0;
};

// Connects, sends a byte and reads it back, `count` times; counts what went well.
int Closed(int count) {
  int good = 0;
  for (int i = 0; i < count; ++i) {
    const int fd = Tcp(AF_INET, SOCK_CLOEXEC);
    char byte = static_cast<char>('a' + i % 26);
    char back = 0;
    good += Connect(fd, PeerAt("echo")) == 0 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1 &&
            recv(fd, &back, 1, 0) == 1 && back == byte;
    close(fd);
  }
  return good;
}

void* ConnectOwn(void* argument) {
  auto* worker = static_cast<Worker*>(argument);
  const int fd = Tcp();
  worker->good = Connect(fd, PeerAt("echo")) == 0;
  worker->error = errno;
  worker->fd = fd;
  return nullptr;
}

void* ConnectGiven(void* argument) {
  auto* worker = static_cast<Worker*>(argument);
  worker->good = Connect(worker->fd, PeerAt("echo")) == 0;
  worker->error = errno;
  return nullptr;
}

}  // namespace

PARITY_CASE(threads, other_thread_connects, kPlain) {
  Worker worker;
  Thread thread{ConnectOwn, &worker};
  thread.Start();
  thread.Join();
  Fact("good", "%d", worker.good);
  Talk("talk", worker.fd);
}

PARITY_CASE(threads, socket_of_the_main_thread, kPlain) {
  Worker worker;
  worker.fd = Tcp();
  Thread thread{ConnectGiven, &worker};
  thread.Start();
  thread.Join();
  Fact("good", "%d", worker.good);
  Talk("talk", worker.fd);
}

PARITY_CASE(threads, unshared_table, kPlain) {
  static int outer;
  outer = Tcp();
  static int inner_talks;
  Thread thread{[](void*) -> void* {
                  if (unshare(CLONE_FILES) != 0) return nullptr;
                  close(outer);
                  const int fd = Tcp();
                  inner_talks = fd == outer && Connect(fd, PeerAt("echo")) == 0;
                  return nullptr;
                },
                nullptr};
  thread.Start();
  thread.Join();
  Fact("inner", "%d", inner_talks);
  Step("outer_peer", RemoteOf(outer).length == 0 ? -1 : 0);
  Step("connect", Connect(outer, PeerAt("echo")));
  Talk("talk", outer);
}

PARITY_CASE(threads, unshared_table_shares_the_socket, kOrdinary) {
  Worker worker;
  worker.fd = Tcp();
  Thread thread{[](void* argument) -> void* {
                  if (unshare(CLONE_FILES) != 0) return nullptr;
                  return ConnectGiven(argument);
                },
                &worker};
  thread.Start();
  thread.Join();
  Fact("good", "%d", worker.good);
  Talk("talk", worker.fd);
}

PARITY_CASE(threads, eight_times_hundred, kPlain) {
  static int good[8];
  Thread threads[8];
  for (int i = 0; i < 8; ++i) {
    threads[i] = {[](void* argument) -> void* {
                    *static_cast<int*>(argument) = Closed(100);
                    return nullptr;
                  },
                  &good[i]};
  }
  for (Thread& thread : threads) thread.Start();
  int sum = 0;
  for (int i = 0; i < 8; ++i) {
    threads[i].Join();
    sum += good[i];
  }
  Fact("good", "%d", sum);
}

PARITY_CASE(threads, eight_processes, kPlain) {
  pid_t pids[8];
  for (pid_t& pid : pids) pid = Child([] { return Closed(50) == 50 ? 0 : 1; });
  int failed = 0;
  for (const pid_t pid : pids) failed += WaitChild(pid) != 0;
  Fact("failed", "%d", failed);
}

PARITY_CASE(threads, two_connect_one_socket, kPlain) {
  static Worker workers[2];
  workers[0].fd = workers[1].fd = Tcp();
  Thread threads[2] = {{ConnectGiven, &workers[0]}, {ConnectGiven, &workers[1]}};
  for (Thread& thread : threads) thread.Start();
  for (Thread& thread : threads) thread.Join();
  int connected = 0;
  // Whoever loses the race waits for the same connection or finds it made.
  for (const Worker& worker : workers) connected += worker.good == 1 || worker.error == EISCONN;
  Fact("connected", "%d", connected);
  Talk("talk", workers[0].fd);
}

PARITY_CASE(threads, close_races_connect, kPlain) {
  static int fd;
  int odd = 0;
  for (int i = 0; i < 50; ++i) {
    fd = Tcp();
    Thread closer{[](void*) -> void* {
                    close(fd);
                    return nullptr;
                  },
                  nullptr};
    closer.Start();
    const int result = Connect(fd, PeerAt("hold"));
    // Won or lost: connected, or no descriptor any more.
    odd += result != 0 && errno != EBADF;
    closer.Join();
    close(fd);
  }
  Fact("odd", "%d", odd);
  const int last = Tcp();
  Step("connect", Connect(last, PeerAt("echo")));
  Talk("talk", last);
}

PARITY_CASE(threads, killed_in_a_crowd, kPlain) {
  for (int i = 0; i < 10; ++i) {
    const pid_t pid = Child([] {
      for (int round = 0; round < 100000; ++round) Closed(1);
      return 0;
    });
    SleepMs(10);
    kill(pid, SIGKILL);
    if (WaitChild(pid) != 1000 + SIGKILL) Fact("child", "not killed");
  }
  Fact("good", "%d", Closed(20));
}

PARITY_CASE(threads, short_lived, kPlain) {
  int good = 0;
  for (int i = 0; i < 100; ++i) {
    Worker worker;
    Thread thread{ConnectOwn, &worker};
    thread.Start();
    thread.Join();
    good += worker.good;
    close(worker.fd);
  }
  Fact("good", "%d", good);
}

PARITY_CASE(threads, raw_clone_sharing_files, kPlain) {
  const int fd = Tcp();
  // CLONE_FILES without CLONE_VM: another process, the same descriptor table.
  const pid_t pid = static_cast<pid_t>(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
  if (pid == 0) _exit(Connect(fd, PeerAt("echo")) == 0 ? 0 : 1);
  Fact("child", "%d", WaitChild(pid));
  Talk("talk", fd);
}

PARITY_CASE(threads, signal_storm, kPlain) {
  Count(SIGUSR1, SA_RESTART);
  const pid_t parent = getpid();
  const pid_t pid = Child([&] {
    for (int i = 0; i < 2000; ++i) {
      kill(parent, SIGUSR1);
      if (i % 20 == 0) SleepMs(1);
    }
    return 0;
  });
  Fact("good", "%d", Closed(200));
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(threads, signal_storm_without_restart, kPlain) {
  Count(SIGUSR1, 0);
  const pid_t parent = getpid();
  const pid_t pid = Child([&] {
    for (int i = 0; i < 2000; ++i) {
      kill(parent, SIGUSR1);
      if (i % 20 == 0) SleepMs(1);
    }
    return 0;
  });
  int odd = 0;
  for (int i = 0; i < 200; ++i) {
    const int fd = Tcp();
    if (Connect(fd, PeerAt("hold")) != 0 && errno == EINTR) {
      WaitFor(fd, POLLOUT);
      if (Connect(fd, PeerAt("hold")) != 0 && errno != EISCONN && errno != EINTR) ++odd;
    } else if (RemoteOf(fd).length == 0) {
      ++odd;
    }
    close(fd);
  }
  Fact("odd", "%d", odd);
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(threads, exec_from_a_thread, kPlain) {
  const pid_t pid = Child([] {
    static int fd;
    fd = Tcp();
    Thread thread{[](void*) -> void* {
                    if (Connect(fd, PeerAt("echo")) != 0) _exit(1);
                    ExecSelf("fresh-socket", "0");
                  },
                  nullptr};
    thread.Start();
    thread.Join();
    return 2;
  });
  Fact("child", "%d", WaitChild(pid));
}

}  // namespace parity
