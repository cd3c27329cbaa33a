// SPDX-License-Identifier: Apache-2.0
// The parity guest: runs named cases of socket use, each in a process of its own, and prints one line for
// each.
//
//   guest --list [--flags]         the names (and what each needs)
//   guest [--jobs N] all|CASE...   runs them; the lines come in the order of the names
// A case that hangs for 25 s or dies by a signal says so on its line; the exit status is 0 whenever all lines
// were printed.
#include "tests/parity/guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

namespace parity {
namespace {

// Where a case's steps go; far above every number that a case uses, and kept by exec.
constexpr int kReport = 200;
constexpr int64_t kCaseMs = 25000;
constexpr size_t kMaxCases = 512;
constexpr size_t kMaxLine = 32 * 1024;

Case* g_cases = nullptr;

struct Run {
  const Case* what = nullptr;
  pid_t pid = -1;
  int report = -1;
  int64_t started_ms = 0;
  bool hung = false;
  size_t size = 0;
  char* line = nullptr;
};

Run g_runs[kMaxCases];

int ByName(const void* left, const void* right) {
  return strcmp(static_cast<const Run*>(left)->what->name, static_cast<const Run*>(right)->what->name);
}

bool Start(Run* run) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  run->pid = fork();
  if (run->pid == 0) {
    // A group of its own, so that whatever the case leaves running can be ended with it.
    setpgid(0, 0);
    dup2(ends[1], kReport);
    // The case starts with the standard three only: which descriptor numbers it gets is the same in every
    // run.
    syscall(SYS_close_range, 3U, static_cast<unsigned>(kReport - 1), 0U);
    run->what->body();
    _exit(0);
  }
  setpgid(run->pid, run->pid);
  close(ends[1]);
  run->report = ends[0];
  run->started_ms = NowMs();
  run->line = static_cast<char*>(calloc(1, kMaxLine));
  return run->pid > 0 && run->line != nullptr;
}

// Reads what has come; true when the case is over.
bool Collect(Run* run) {
  const size_t room = kMaxLine - 64 - run->size;
  const ssize_t got = room > 0 ? read(run->report, run->line + run->size, room) : 0;
  if (got > 0) {
    run->size += static_cast<size_t>(got);
    return false;
  }
  if (got < 0 && errno == EINTR) return false;
  close(run->report);
  int status = 0;
  // The report is over when the last holder is gone; the case itself may need a moment more, or be cut off.
  if (room == 0) kill(-run->pid, SIGKILL);
  while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR) {
  }
  kill(-run->pid, SIGKILL);
  if (run->hung) {
    snprintf(run->line + run->size, 64, " HUNG");
  } else if (WIFSIGNALED(status)) {
    snprintf(run->line + run->size, 64, " DIED/signal %d", WTERMSIG(status));
  }
  return true;
}

// Runs all, at most `jobs` at a time, the slow ones (which only wait) all at once and first.
int RunAll(size_t count, size_t jobs) {
  size_t order[kMaxCases];
  size_t filled = 0;
  for (int slow = 1; slow >= 0; --slow) {
    for (size_t i = 0; i < count; ++i) {
      if (((g_runs[i].what->flags & kSlow) != 0) == (slow == 1)) order[filled++] = i;
    }
  }
  size_t next = 0;
  size_t done = 0;
  size_t busy = 0;
  pollfd polls[kMaxCases];
  while (done < count) {
    while (next < count) {
      Run* run = &g_runs[order[next]];
      const bool slow = (run->what->flags & kSlow) != 0;
      if (!slow && busy >= jobs) break;
      if (!Start(run)) {
        perror("guest: cannot start a case");
        return 1;
      }
      if (!slow) ++busy;
      ++next;
    }
    size_t watched = 0;
    for (size_t i = 0; i < next; ++i) {
      if (g_runs[order[i]].report >= 0) polls[watched++] = {g_runs[order[i]].report, POLLIN, 0};
    }
    if (poll(polls, watched, 1000) < 0 && errno != EINTR) return 1;
    for (size_t i = 0, at = 0; i < next; ++i) {
      Run* run = &g_runs[order[i]];
      if (run->report < 0) continue;
      const short events = polls[at++].revents;
      if (NowMs() - run->started_ms > kCaseMs && !run->hung) {
        run->hung = true;
        kill(-run->pid, SIGKILL);
      }
      if (events == 0 || !Collect(run)) continue;
      run->report = -1;
      if ((run->what->flags & kSlow) == 0) --busy;
      ++done;
    }
  }
  for (size_t i = 0; i < count; ++i) printf("%s:%s\n", g_runs[i].what->name, g_runs[i].line);
  return fflush(stdout) == 0 ? 0 : 1;
}

// Natively the guest is an ordinary user; in a container it is that container's root. What root may do there
// says nothing about shunt, so the guest gives up every capability and is an ordinary program in both.
void DropCapabilities() {
  struct {
    uint32_t version;
    int pid;
  } header = {0x20080522, 0};
  uint32_t none[6] = {};
  if (syscall(SYS_capset, &header, none) != 0) perror("guest: cannot drop the capabilities");
}

bool Wanted(const char* name, int count, char** names) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(names[i], "all") == 0 || strcmp(names[i], name) == 0) return true;
    const size_t length = strlen(names[i]);
    // "theme." stands for all cases of the theme.
    if (length > 0 && names[i][length - 1] == '.' && strncmp(names[i], name, length) == 0) return true;
  }
  return false;
}

int Main(int argc, char** argv) {
  DropCapabilities();
  signal(SIGPIPE, SIG_DFL);
  if (argc == 4 && strcmp(argv[1], "--entry") == 0) return Entry(argv[2], argv[3]);
  size_t count = 0;
  size_t jobs = 1;
  int first = 1;
  const bool list = argc > 1 && strcmp(argv[1], "--list") == 0;
  if (list) {
    for (Case* it = g_cases; it != nullptr && count < kMaxCases; it = it->next) g_runs[count++].what = it;
    qsort(g_runs, count, sizeof g_runs[0], ByName);
    for (size_t i = 0; i < count; ++i) {
      const unsigned flags = g_runs[i].what->flags;
      printf("%s%s%s\n", g_runs[i].what->name, (flags & kSlow) != 0 ? " slow" : "",
             (flags & kOrdinary) != 0 ? " ordinary" : "");
    }
    return 0;
  }
  if (argc > 2 && strcmp(argv[1], "--jobs") == 0) {
    jobs = static_cast<size_t>(atoi(argv[2]));
    first = 3;
  }
  if (first >= argc || jobs == 0) {
    fprintf(stderr, "usage: guest --list | guest [--jobs N] all|THEME.|CASE...\n");
    return 2;
  }
  for (Case* it = g_cases; it != nullptr && count < kMaxCases; it = it->next) {
    if (Wanted(it->name, argc - first, argv + first)) g_runs[count++].what = it;
  }
  if (count == 0) {
    fprintf(stderr, "guest: no such case: %s (guest --list shows them)\n", argv[first]);
    return 2;
  }
  qsort(g_runs, count, sizeof g_runs[0], ByName);
  return RunAll(count, jobs);
}

void Emit(const char* text) {
  const int saved = errno;
  if (write(kReport, text, strlen(text)) < 0) _exit(99);
  errno = saved;
}

}  // namespace

Case::Case(const char* case_name, void (*case_body)(), unsigned case_flags)
    : name(case_name), body(case_body), flags(case_flags), next(g_cases) {
  g_cases = this;
}

long Step(const char* name, long result) {
  const int saved = errno;
  char text[160];
  if (result == -1) {
    snprintf(text, sizeof text, " %s=-1/%s", name, ErrnoName(saved));
  } else {
    snprintf(text, sizeof text, " %s=%ld", name, result);
  }
  Emit(text);
  errno = saved;
  return result;
}

int Made(const char* name, int result) {
  const int saved = errno;
  if (result < 0) return static_cast<int>(Step(name, -1));
  Fact(name, "ok");
  errno = saved;
  return result;
}

void Fact(const char* name, const char* format, ...) {
  const int saved = errno;
  char text[512];
  const int used = snprintf(text, sizeof text, " %s=", name);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + used, sizeof text - static_cast<size_t>(used), format, arguments);
  va_end(arguments);
  Emit(text);
  errno = saved;
}

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
}

void Waited(const char* name, int64_t start_ms, int64_t expected_ms, int64_t slack_ms) {
  const int saved = errno;
  const int64_t passed = NowMs() - start_ms;
  if (passed >= expected_ms - expected_ms / 10 && passed <= expected_ms + slack_ms) {
    Fact(name, "about %lld ms", static_cast<long long>(expected_ms));
  } else {
    Fact(name, "%lld ms", static_cast<long long>(passed));
  }
  errno = saved;
}

}  // namespace parity

int main(int argc, char** argv) {
  return parity::Main(argc, argv);
}
