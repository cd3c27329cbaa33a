// SPDX-License-Identifier: Apache-2.0
// Blocking connects that wait: timeouts, signals with and without SA_RESTART, and what other threads do to
// the socket meanwhile. The address that never answers (VoidAt) keeps a connect waiting for minutes; a gate
// answers the second SYN, about a second after the first.
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

constexpr int kMeanwhileMs = 150;

void SetSendTimeout(int fd, int milliseconds) {
  timeval limit = {milliseconds / 1000, (milliseconds % 1000) * 1000};
  Step("sndtimeo", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
}

int FdOf(void* argument) {
  return *static_cast<int*>(argument);
}

void* ShutDownLater(void* argument) {
  SleepMs(kMeanwhileMs);
  shutdown(FdOf(argument), SHUT_RDWR);
  return nullptr;
}

void* CloseLater(void* argument) {
  SleepMs(kMeanwhileMs);
  close(FdOf(argument));
  return nullptr;
}

void* DisconnectLater(void* argument) {
  SleepMs(kMeanwhileMs);
  Connect(FdOf(argument), Unspecified());
  return nullptr;
}

void* ReplaceLater(void* argument) {
  SleepMs(kMeanwhileMs);
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return nullptr;
  dup2(pipe_ends[0], FdOf(argument));
  return nullptr;
}

struct Second {
  int fd;
  Address address;
  int result;
  int error;
};

void* ConnectLater(void* argument) {
  auto* second = static_cast<Second*>(argument);
  SleepMs(kMeanwhileMs);
  second->result = Connect(second->fd, second->address);
  second->error = errno;
  return nullptr;
}

void* CloseOnExecLater(void* argument) {
  SleepMs(kMeanwhileMs);
  fcntl(FdOf(argument), F_SETFD, FD_CLOEXEC);
  return nullptr;
}

void* NonblockLater(void* argument) {
  SleepMs(kMeanwhileMs);
  fcntl(FdOf(argument), F_SETFL, O_NONBLOCK);
  return nullptr;
}

}  // namespace

PARITY_CASE(blocking, sndtimeo, kSlow) {
  const int fd = Tcp();
  SetSendTimeout(fd, 300);
  const int64_t start = NowMs();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, 300);
  Fact("state", "%s", StateOf(fd));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Step("again", Connect(fd, VoidAt(80)));
  Waited("waited", start, 600);
}

PARITY_CASE(blocking, sndtimeo_long_enough, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  const int fd = Tcp();
  SetSendTimeout(fd, 4000);
  const int64_t start = NowMs();
  Step("connect", Connect(fd, gate));
  Waited("waited", start, 1030, 900);
  timeval limit{};
  socklen_t size = sizeof limit;
  Step("get", getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size));
  Fact("sndtimeo", "%ld", static_cast<long>(limit.tv_sec));
}

PARITY_CASE(blocking, sndtimeo_then_completes, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  const int fd = Tcp();
  SetSendTimeout(fd, 300);
  Step("connect", Connect(fd, gate));
  Fact("events", "%#x", WaitFor(fd, POLLOUT));
  Step("connect", Connect(fd, gate));
  Step("connect", Connect(fd, gate));
  Where(fd);
}

PARITY_CASE(blocking, sndtimeo_refused, kPlain) {
  const int fd = Tcp();
  SetSendTimeout(fd, 3000);
  Step("connect", Connect(fd, PeerAt("closed")));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(blocking, sndtimeo_and_restarting_signal, kSlow) {
  Count(SIGALRM, SA_RESTART);
  const int fd = Tcp();
  SetSendTimeout(fd, 1500);
  AlarmIn(200);
  const int64_t start = NowMs();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, 200);
  Fact("signals", "%d", Counted());
}

PARITY_CASE(blocking, slow_answer, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  const int fd = Tcp();
  const int64_t start = NowMs();
  Step("connect", Connect(fd, gate));
  Waited("waited", start, 1030, 900);
  Where(fd);
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(blocking, signal_is_eintr, kSlow) {
  Count(SIGALRM, 0);
  const int fd = Tcp();
  AlarmIn(200);
  const int64_t start = NowMs();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, 200);
  Fact("signals", "%d", Counted());
  Fact("state", "%s", StateOf(fd));
  Step("fcntl", fcntl(fd, F_SETFL, O_NONBLOCK));
  Step("again", Connect(fd, VoidAt(80)));
}

PARITY_CASE(blocking, signal_then_completes, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  Count(SIGALRM, 0);
  const int fd = Tcp();
  AlarmIn(200);
  Step("connect", Connect(fd, gate));
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
  Fact("events", "%#x", WaitFor(fd, POLLOUT));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Step("connect", Connect(fd, gate));
}

PARITY_CASE(blocking, restarting_signal, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  Count(SIGALRM, SA_RESTART);
  const int fd = Tcp();
  AlarmIn(200);
  const int64_t start = NowMs();
  Step("connect", Connect(fd, gate));
  Waited("waited", start, 1030, 900);
  Fact("signals", "%d", Counted());
}

PARITY_CASE(blocking, many_restarting_signals, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  Count(SIGALRM, SA_RESTART);
  itimerval every{};
  every.it_value.tv_usec = 50000;
  every.it_interval.tv_usec = 50000;
  const int fd = Tcp();
  setitimer(ITIMER_REAL, &every, nullptr);
  Step("connect", Connect(fd, gate));
  Fact("signals", "%s", Counted() >= 8 ? "many" : "few");
}

PARITY_CASE(blocking, ignored_signal, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  signal(SIGALRM, SIG_IGN);
  const int fd = Tcp();
  AlarmIn(200);
  Step("connect", Connect(fd, gate));
}

PARITY_CASE(blocking, blocked_signal, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  Count(SIGALRM, 0);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const int fd = Tcp();
  AlarmIn(200);
  Step("connect", Connect(fd, gate));
  Fact("signals", "%d", Counted());
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  Fact("signals", "%d", Counted());
}

PARITY_CASE(blocking, killed, kSlow) {
  const pid_t pid = Child([] { return Connect(Tcp(), VoidAt(80)); });
  SleepMs(300);
  const int64_t start = NowMs();
  Step("kill", kill(pid, SIGKILL));
  Fact("child", "%d", WaitChild(pid));
  Waited("waited", start, 0);
}

PARITY_CASE(blocking, ended_by_default_action, kSlow) {
  const pid_t pid = Child([] { return Connect(Tcp(), VoidAt(80)); });
  SleepMs(300);
  Step("kill", kill(pid, SIGTERM));
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(blocking, stopped_and_continued, kSlow) {
  const Address gate = V4(World("peer"), Gate(700));
  const pid_t pid = Child([&] { return Connect(Tcp(), gate) == 0 ? 0 : errno; });
  SleepMs(200);
  Step("stop", kill(pid, SIGSTOP));
  int status = 0;
  waitpid(pid, &status, WUNTRACED);
  Fact("stopped", "%d", WIFSTOPPED(status));
  Step("continue", kill(pid, SIGCONT));
  Fact("child", "%s", ErrnoName(WaitChild(pid)));
}

PARITY_CASE(blocking, shutdown_meanwhile, kSlow) {
  int fd = Tcp();
  Thread other{ShutDownLater, &fd};
  const int64_t start = NowMs();
  other.Start();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, kMeanwhileMs);
  Fact("state", "%s", StateOf(fd));
  other.Join();
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(blocking, close_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  int fd = Tcp();
  Thread other{CloseLater, &fd};
  const int64_t start = NowMs();
  other.Start();
  Step("connect", Connect(fd, gate));
  Waited("waited", start, 1030, 900);
  Fact("fd", "%s", ErrnoName(fcntl(fd, F_GETFD) < 0 ? errno : 0));
  other.Join();
}

PARITY_CASE(blocking, number_reused_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  int fd = Tcp();
  Thread other{ReplaceLater, &fd};
  other.Start();
  Step("connect", Connect(fd, gate));
  other.Join();
  Step("type", Option(fd, SOL_SOCKET, SO_TYPE));
}

PARITY_CASE(blocking, disconnect_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  int fd = Tcp();
  Thread other{DisconnectLater, &fd};
  const int64_t start = NowMs();
  other.Start();
  Step("connect", Connect(fd, gate));
  Waited("waited", start, kMeanwhileMs);
  other.Join();
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(blocking, second_connect_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  const int fd = Tcp();
  Second second = {fd, gate, 0, 0};
  Thread other{ConnectLater, &second};
  other.Start();
  Step("connect", Connect(fd, gate));
  other.Join();
  // Both are woken by the same event, and which one then takes the socket is a race; the other sees it
  // connected.
  Fact("second", "%s", second.result == 0 || second.error == EISCONN ? "connected" : ErrnoName(second.error));
}

PARITY_CASE(blocking, cloexec_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  int fd = Tcp();
  Thread other{CloseOnExecLater, &fd};
  other.Start();
  Step("connect", Connect(fd, gate));
  other.Join();
  Step("fd_flags", fcntl(fd, F_GETFD));
}

PARITY_CASE(blocking, nonblock_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  int fd = Tcp();
  Thread other{NonblockLater, &fd};
  other.Start();
  Step("connect", Connect(fd, gate));
  other.Join();
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
}

PARITY_CASE(blocking, flags_look_blocking_meanwhile, kSlow) {
  const Address gate = V4(World("peer"), Gate(400));
  static int fd;
  static int seen;
  fd = Tcp();
  Thread other{[](void*) -> void* {
                 SleepMs(kMeanwhileMs);
                 seen = fcntl(fd, F_GETFL) & ~O_LARGEFILE;
                 return nullptr;
               },
               nullptr};
  other.Start();
  Step("connect", Connect(fd, gate));
  other.Join();
  Fact("flags", "%#x", seen);
}

PARITY_CASE(blocking, sixteen_threads_wait, kSlow) {
  static int waiting[16];
  Thread threads[16];
  const Address gate = V4(World("peer"), Gate(400));
  static Address address;
  address = gate;
  for (int i = 0; i < 16; ++i) {
    waiting[i] = i < 15 ? -1 : 0;
    threads[i] = {[](void* index) -> void* {
                    const int fd = Tcp();
                    timeval limit = {1, 0};
                    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
                    auto* result = static_cast<int*>(index);
                    *result = Connect(fd, *result == 0 ? PeerAt("hold") : VoidAt(80)) == 0 ? 0 : errno;
                    return nullptr;
                  },
                  &waiting[i]};
  }
  for (Thread& thread : threads) thread.Start();
  for (Thread& thread : threads) thread.Join();
  int in_progress = 0;
  for (int i = 0; i < 15; ++i) in_progress += waiting[i] == EINPROGRESS;
  Fact("in_progress", "%d", in_progress);
  Fact("ok", "%s", ErrnoName(waiting[15]));
}

PARITY_CASE(blocking, unreachable, kSlow) {
  const int fd = Tcp();
  const int64_t start = NowMs();
  Step("connect", Connect(fd, V4(World("nobody"), 80)));
  Waited("waited", start, 3000, 1500);
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Step("connect", Connect(fd, PeerAt("echo")));
}

PARITY_CASE(blocking, exit_while_another_thread_waits, kSlow) {
  const int64_t start = NowMs();
  const pid_t pid = Child([] {
    int fd = Tcp();
    Thread other{[](void* argument) -> void* {
                   Connect(FdOf(argument), VoidAt(80));
                   return nullptr;
                 },
                 &fd};
    other.Start();
    SleepMs(200);
    return 7;
  });
  Fact("child", "%d", WaitChild(pid));
  Waited("waited", start, 200);
}

PARITY_CASE(blocking, syncnt_gives_up, kSlow) {
  const int fd = Tcp();
  Step("syncnt", SetOption(fd, IPPROTO_TCP, TCP_SYNCNT, 1));
  const int64_t start = NowMs();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, 3000, 3500);
  Step("connect", Connect(fd, PeerAt("echo")));
}

PARITY_CASE(blocking, user_timeout_gives_up, kSlow) {
  const int fd = Tcp();
  Step("user_timeout", SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1500));
  const int64_t start = NowMs();
  Step("connect", Connect(fd, VoidAt(80)));
  Waited("waited", start, 1500, 2500);
}

}  // namespace parity
