// SPDX-License-Identifier: Apache-2.0
// What calls cost that a network accelerator has no business with: close, fcntl, setsockopt, getpeername (of
// a socket that is not the network's), read, write, getpid.
//
//   untrapped [--batches N] [--allow-all-filter]
//
// With --allow-all-filter the program first puts itself under a seccomp filter that allows everything: what
// any filter costs.
//
// Each call is timed in batches of 256, so that reading the clock is not what is measured; the batches of the
// different calls take turns, so that a slow moment of the machine meets all of them. Prints one JSON object:
// call -> median, and smallest, nanoseconds per call over the batches; overhead_ns: what no call at all costs
// that way.

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bench/clock.h"

namespace shunt::bench {
namespace {

constexpr int kBatch = 256;

struct Descriptors {
  int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int local = OneOfPair();

 private:
  static int OneOfPair() {
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 ? pair[0] : -1;
  }
};

// Each runs its call kBatch times and returns the nanoseconds of all of them together; a failed call ends the
// program, because the price of failing is another number.
void Must(bool worked, const char* call) {
  if (worked) return;
  std::perror(call);
  std::exit(1);
}

int64_t Close(const Descriptors& fds) {
  std::array<int, kBatch> copies;
  for (int& copy : copies) {
    copy = dup(fds.null);
    Must(copy >= 0, "dup");
  }
  const int64_t begin = Now();
  for (const int copy : copies) Must(close(copy) == 0, "close");
  return Now() - begin;
}

template <typename Call>
int64_t Repeat(const char* name, Call call) {
  const int64_t begin = Now();
  for (int i = 0; i < kBatch; ++i) Must(call() >= 0, name);
  return Now() - begin;
}

int64_t Fcntl(const Descriptors& fds) {
  return Repeat("fcntl", [&] { return fcntl(fds.tcp, F_GETFL); });
}

int64_t SetSockOpt(const Descriptors& fds) {
  const int on = 1;
  return Repeat("setsockopt", [&] { return setsockopt(fds.tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); });
}

int64_t GetPeerName(const Descriptors& fds) {
  sockaddr_storage name;
  socklen_t length = sizeof name;
  return Repeat("getpeername",
                [&] { return getpeername(fds.local, reinterpret_cast<sockaddr*>(&name), &length); });
}

int64_t Read(const Descriptors& fds) {
  char byte;
  return Repeat("read", [&] { return read(fds.zero, &byte, 1); });
}

int64_t Write(const Descriptors& fds) {
  return Repeat("write", [&] { return write(fds.null, "x", 1); });
}

// The loop, the check and the clock around it: part of every figure.
int64_t Nothing(const Descriptors&) {
  return Repeat("nothing", [] {
    int worked = 0;
    asm volatile("" : "+r"(worked));  // or there is no loop either
    return worked;
  });
}

int64_t GetPid(const Descriptors&) {
  return Repeat("getpid", [] { return syscall(SYS_getpid); });
}

void AllowAll() {
  sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_fprog program{1, &allow};
  Must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "prctl(PR_SET_NO_NEW_PRIVS)");
  Must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
}

struct Call {
  const char* name;
  int64_t (*batch)(const Descriptors&);
  std::vector<double> nanoseconds;
};

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  int batches = 2000;
  bool allow_all = false;
  bool understood = true;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--allow-all-filter") == 0) {
      allow_all = true;
    } else if (std::strcmp(argv[i], "--batches") == 0 && i + 1 < argc) {
      batches = std::atoi(argv[++i]);
    } else {
      understood = false;
    }
  }
  if (!understood || batches < 1) {
    std::fprintf(stderr, "usage: untrapped [--batches N] [--allow-all-filter]   (N at least 1)\n");
    return 2;
  }
  if (allow_all) AllowAll();
  const Descriptors fds;
  Must(fds.zero >= 0 && fds.null >= 0 && fds.tcp >= 0 && fds.local >= 0,
       "opening /dev/zero, /dev/null and two sockets");
  Call calls[] = {{"close", Close, {}},
                  {"fcntl", Fcntl, {}},
                  {"setsockopt", SetSockOpt, {}},
                  {"getpeername", GetPeerName, {}},
                  {"read", Read, {}},
                  {"write", Write, {}},
                  {"getpid", GetPid, {}},
                  {"nothing", Nothing, {}}};
  for (Call& call : calls) call.batch(fds);
  for (int i = 0; i < batches; ++i) {
    for (Call& call : calls) call.nanoseconds.push_back(static_cast<double>(call.batch(fds)) / kBatch);
  }
  const char* separator = "{";
  for (Call& call : calls) {
    auto& all = call.nanoseconds;
    std::sort(all.begin(), all.end());
    const double median = all[all.size() / 2];
    if (call.batch == Nothing) {
      std::printf("%s\"overhead_ns\": %.1f", separator, median);
    } else {
      std::printf("%s\"%s\": {\"p50_ns\": %.1f, \"min_ns\": %.1f}", separator, call.name, median, all[0]);
    }
    separator = ", ";
  }
  std::printf("}\n");
}
