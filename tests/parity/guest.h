// SPDX-License-Identifier: Apache-2.0
// What the cases of the parity guest are written with.
//
// The guest runs twice, natively and under shunt, and both outputs must be the same lines. A case therefore
// prints only facts that do not differ between two native runs: results, errnos, bytes, addresses; never
// ports, pids or times (a time only as a class, see Waited). C++20 without the C++ library, so that the same
// sources build against musl, static, and as a 32-bit program.
#ifndef TESTS_PARITY_GUEST_H_
#define TESTS_PARITY_GUEST_H_

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace parity {

// What a case needs, or costs.
enum Flags : unsigned {
  kPlain = 0,
  kSlow = 1,  // Waits for half a second or more: such cases run side by side.
  kOrdinary =
      2,  // May stay on the ordinary path, and then has the container's own address instead of the host's.
};

struct Case {
  const char* name;  // "theme.case"
  void (*body)();
  unsigned flags;
  Case* next;
  Case(const char* case_name, void (*case_body)(), unsigned case_flags);
};

#define PARITY_CASE(theme, name, flags)                                                    \
  static void theme##_##name();                                                            \
  static ::parity::Case theme##_##name##_case(#theme "." #name, &theme##_##name, (flags)); \
  static void theme##_##name()

// --- Printing: one step per call, in the order of the calls, all on the line of the running case. ---

// `name=RESULT`, or `name=-1/ERRNO` where the result is -1. Returns the result; errno is kept.
long Step(const char* name, long result);
// As Step, for results whose value means nothing to the reader (descriptors): `name=ok` or `name=-1/ERRNO`.
int Made(const char* name, int result);
// `name=text`, formatted as by printf.
void Fact(const char* name, const char* format, ...) __attribute__((format(printf, 2, 3)));
// The symbolic name of an errno ("ECONNREFUSED"); 0 is "0".
const char* ErrnoName(int error);
// `name=about N ms`, if between 0.9 N and N + slack passed since `start`; what was measured, if not.
void Waited(const char* name, int64_t start_ms, int64_t expected_ms, int64_t slack_ms = 700);
int64_t NowMs();

// --- Addresses. The driver says by $PARITY_WORLD who lives where. ---

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// The value of a key of $PARITY_WORLD: "host", "peer", "void" ... are addresses, the names of services are
// ports. Valid until the same thread asks again.
const char* World(const char* key);
int Port(const char* service);
Address V4(const char* address, int port);
Address V6(const char* address, int port);
Address Mapped(const char* address_v4, int port);  // ::ffff:address_v4
Address HostAt(const char* service);               // the host's own address
Address PeerAt(const char* service);               // another machine
Address HostAt6(const char* service);
Address PeerAt6(const char* service);
Address VoidAt(int port);  // an address that never answers
Address Unspecified();     // AF_UNSPEC
Address LocalOf(int fd);   // getsockname
Address RemoteOf(int fd);  // getpeername
int PortOf(const Address& address);

// --- Sockets. ---

int Tcp(int family = AF_INET, int flags = 0);  // Ends the case when it cannot be made.
int Connect(int fd, const Address& address);
int Bind(int fd, const Address& address);
// A listening socket at `address` (port 0: a free one); where it listens comes from LocalOf.
int Listener(const Address& address, int backlog = 16);
// Waits at most 5 s for `events` on fd; what poll(2) returned in revents, 0 on a timeout.
short WaitFor(int fd, short events);
int TakeError(int fd);                    // SO_ERROR
int Option(int fd, int level, int name);  // an int option's value, or -1 and errno
int SetOption(int fd, int level, int name, int value);
// Reads exactly `size` bytes, waiting at most 5 s for each part; how many came.
ssize_t ReadFully(int fd, void* buffer, size_t size);
// Sends a few bytes and expects them back: `name=echoed`, or what went wrong.
void Talk(const char* name, int fd);
// `local=A peer=B`: the addresses without ports, and the errno where there is none.
void Where(int fd);
// Connects without blocking and waits until it is decided: prints the start and SO_ERROR.
void ConnectAndWait(int fd, const Address& address);
// Asks the driver's server for a port on the other machine that starts to answer in `after_ms` milliseconds.
int Gate(int after_ms);
// The name of a socket's TCP state; the two FIN_WAIT states are one, because the peer's ACK decides which.
const char* StateOf(int fd);

// --- Processes and threads. ---

// A child that runs `body` and exits with what it returns. Ends the case if there is none.
template <typename Body>
pid_t Child(Body body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  return pid;
}
int WaitChild(pid_t pid);  // The exit status, or 1000 + the signal that ended it.
// Starts this program again with a special entry: `guest --entry NAME ARGUMENT`. Does not return.
[[noreturn]] void ExecSelf(const char* entry, const char* argument);
// What ExecSelf started.
int Entry(const char* name, const char* argument);
// A second program would not share our fds: threads do.
struct Thread {
  void* (*body)(void*);
  void* argument;
  unsigned long handle = 0;
  void Start();
  void Join();
};
void SleepMs(int milliseconds);
int SendFd(int channel, int fd);
int ReceiveFd(int channel);
// Handles `signal` by counting it; `flags` as SA_RESTART.
void Count(int signal, int flags);
int Counted();
// One SIGALRM in `milliseconds`.
void AlarmIn(int milliseconds);

}  // namespace parity

#endif  // TESTS_PARITY_GUEST_H_
