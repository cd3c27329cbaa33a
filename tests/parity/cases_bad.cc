// SPDX-License-Identifier: Apache-2.0
// Every length, family, pointer and descriptor that a program can pass to connect and bind: the native errno,
// every time.
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

long RawConnect(int fd, const void* address, long length) {
  return syscall(SYS_connect, fd, address, length);
}
long RawBind(int fd, const void* address, long length) {
  return syscall(SYS_bind, fd, address, length);
}

constexpr long kLengths[] = {0,  1,  2,   3,   8,   15,  16,   17,         20,        23, 24, 27,
                             28, 29, 110, 127, 128, 129, 4096, 0x7fffffff, INT32_MIN, -1, -2, -128};

// Three pages, the last one not there.
char* PagesWithAHole() {
  auto* pages =
      static_cast<char*>(mmap(nullptr, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  munmap(pages + 2 * 4096, 4096);
  return pages;
}

void EachLength(int family, const Address& address) {
  for (const long length : kLengths) {
    char name[32];
    char buffer[256] = {};
    memcpy(buffer, &address.storage, sizeof address.storage);
    const int fd = Tcp(family, SOCK_NONBLOCK);
    snprintf(name, sizeof name, "length_%ld", length);
    Step(name, RawConnect(fd, buffer, length));
    close(fd);
  }
}

}  // namespace

PARITY_CASE(bad, connect_lengths, kPlain) {
  EachLength(AF_INET, PeerAt("hold"));
}
PARITY_CASE(bad, connect_lengths_six, kPlain) {
  EachLength(AF_INET6, PeerAt6("hold"));
}
PARITY_CASE(bad, connect_lengths_four_on_six, kPlain) {
  EachLength(AF_INET6, PeerAt("hold"));
}
PARITY_CASE(bad, connect_lengths_six_on_four, kPlain) {
  EachLength(AF_INET, PeerAt6("hold"));
}
PARITY_CASE(bad, connect_lengths_unspec, kPlain) {
  EachLength(AF_INET, Unspecified());
}

PARITY_CASE(bad, bind_lengths, kPlain) {
  for (const long length : kLengths) {
    char name[32];
    char buffer[256] = {};
    const Address address = V4("0.0.0.0", 0);
    memcpy(buffer, &address.storage, sizeof address.storage);
    const int fd = Tcp();
    snprintf(name, sizeof name, "length_%ld", length);
    Step(name, RawBind(fd, buffer, length));
    close(fd);
  }
}

PARITY_CASE(bad, bind_lengths_six, kPlain) {
  for (const long length : kLengths) {
    char name[32];
    char buffer[256] = {};
    const Address address = V6("::", 0);
    memcpy(buffer, &address.storage, sizeof address.storage);
    const int fd = Tcp(AF_INET6);
    snprintf(name, sizeof name, "length_%ld", length);
    Step(name, RawBind(fd, buffer, length));
    close(fd);
  }
}

PARITY_CASE(bad, families, kPlain) {
  constexpr int kFamilies[] = {0, 1, 2, 3, 10, 16, 17, 40, 46, 255, 1000, 65535};
  for (const int family : kFamilies) {
    char name[32];
    Address address = PeerAt("hold");
    address.storage.ss_family = static_cast<sa_family_t>(family);
    const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
    snprintf(name, sizeof name, "four_%d", family);
    Step(name, RawConnect(fd, &address.storage, 28));
    close(fd);
    const int six = Tcp(AF_INET6, SOCK_NONBLOCK);
    snprintf(name, sizeof name, "six_%d", family);
    // Only the families of other address forms: what AF_INET6 makes of these bytes is an address like any
    // other.
    if (family != 10) Step(name, RawConnect(six, &address.storage, 28));
    close(six);
  }
}

PARITY_CASE(bad, bind_families, kPlain) {
  constexpr int kFamilies[] = {0, 1, 2, 3, 10, 16, 255, 65535};
  for (const int family : kFamilies) {
    char name[32];
    Address address = V4("0.0.0.0", 0);
    address.storage.ss_family = static_cast<sa_family_t>(family);
    const int fd = Tcp();
    snprintf(name, sizeof name, "four_%d", family);
    Step(name, RawBind(fd, &address.storage, 28));
    close(fd);
    const int six = Tcp(AF_INET6);
    snprintf(name, sizeof name, "six_%d", family);
    Step(name, RawBind(six, &address.storage, 28));
    close(six);
  }
}

PARITY_CASE(bad, pointers, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  char* pages = PagesWithAHole();
  char* edge = pages + 2 * 4096;
  const Address address = PeerAt("hold");
  Step("null", RawConnect(fd, nullptr, 16));
  Step("null_zero", RawConnect(fd, nullptr, 0));
  Step("low", RawConnect(fd, reinterpret_cast<void*>(8), 16));
  Step("kernel", RawConnect(fd, reinterpret_cast<void*>(~uintptr_t{0} - 4095), 16));
  Step("last", RawConnect(fd, reinterpret_cast<void*>(~uintptr_t{0}), 16));
  Step("hole", RawConnect(fd, edge, 16));
  Step("hole_zero", RawConnect(fd, edge, 0));
  memcpy(edge - 8, &address.storage, 8);
  Step("crossing", RawConnect(fd, edge - 8, 16));
  Step("crossing_long", RawConnect(fd, edge - 16, 28));
  memcpy(edge - 16, &address.storage, 16);
  Step("long_over_the_edge", RawConnect(fd, edge - 16, 17));
  Step("at_the_edge", RawConnect(fd, edge - 16, 16));
  Fact("events", "%#x", WaitFor(fd, POLLOUT));
}

PARITY_CASE(bad, pointers_unaligned_and_readonly, kPlain) {
  char* pages = PagesWithAHole();
  const Address address = PeerAt("echo");
  memcpy(pages + 4096 - 7, &address.storage, 16);  // Over the border of two pages that are there.
  mprotect(pages, 2 * 4096, PROT_READ);
  const int fd = Tcp();
  Step("connect", RawConnect(fd, pages + 4096 - 7, 16));
  Talk("talk", fd);
  mprotect(pages, 2 * 4096, PROT_NONE);
  Step("no_access", RawConnect(Tcp(), pages + 4096 - 7, 16));
}

PARITY_CASE(bad, pointer_never_touched, kPlain) {
  // A page that exists but was never faulted in: all zero, so AF_UNSPEC.
  auto* page =
      static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  Step("connect", RawConnect(Tcp(), page, 16));
  Step("bind", RawBind(Tcp(), page, 16));
}

PARITY_CASE(bad, pointer_into_a_file, kPlain) {
  const int file = memfd_create("address", 0);
  const Address address = PeerAt("echo");
  Step("write", write(file, &address.storage, 16));
  void* page = mmap(nullptr, 8192, PROT_READ, MAP_SHARED, file, 0);
  const int fd = Tcp();
  Step("connect", RawConnect(fd, page, 16));
  Talk("talk", fd);
  Step("beyond_the_end", RawConnect(Tcp(), static_cast<char*>(page) + 4096, 16));
}

PARITY_CASE(bad, bind_pointers, kPlain) {
  const int fd = Tcp();
  char* edge = PagesWithAHole() + 2 * 4096;
  Step("null", RawBind(fd, nullptr, 16));
  Step("hole", RawBind(fd, edge, 16));
  Step("crossing", RawBind(fd, edge - 8, 16));
  Step("negative", RawBind(fd, nullptr, -1));
}

PARITY_CASE(bad, unmapped_by_another_thread, kPlain) {
  static char* page;
  static volatile bool stop;
  page = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const Address address = PeerAt("hold");
  Thread flipper{[](void*) -> void* {
                   while (!stop) {
                     mprotect(page, 4096, PROT_NONE);
                     mprotect(page, 4096, PROT_READ | PROT_WRITE);
                   }
                   return nullptr;
                 },
                 nullptr};
  memcpy(page, &address.storage, sizeof(sockaddr_in));
  flipper.Start();
  int odd = 0;
  for (int i = 0; i < 200; ++i) {
    const int fd = Tcp();
    odd += RawConnect(fd, page, 16) != 0 && errno != EFAULT;
    close(fd);
  }
  stop = true;
  flipper.Join();
  Fact("odd", "%d", odd);
}

PARITY_CASE(bad, descriptors, kPlain) {
  const Address address = PeerAt("echo");
  int ends[2];
  Step("pipe", pipe(ends));
  Step("minus_one", Connect(-1, address));
  Step("closed", Connect(150, address));
  Step("huge", Connect(0x7fffffff, address));
  Step("smallest", Connect(-0x7fffffff - 1, address));
  Step("a_pipe", Connect(ends[0], address));
  Step("a_file", Connect(open("/proc/self/stat", O_RDONLY), address));
  Step("a_directory", Connect(open("/", O_RDONLY | O_DIRECTORY), address));
  Step("dev_null", Connect(open("/dev/null", O_RDWR), address));
  Step("an_eventfd", Connect(eventfd(0, 0), address));
  Step("an_epoll", Connect(epoll_create1(0), address));
  Step("stdin", Connect(0, address) == -1 && (errno == ENOTSOCK || errno == EBADF) ? 0 : 1);
}

PARITY_CASE(bad, bind_descriptors, kPlain) {
  const Address address = V4("0.0.0.0", 0);
  int ends[2];
  Step("pipe", pipe(ends));
  Step("minus_one", Bind(-1, address));
  Step("closed", Bind(150, address));
  Step("a_pipe", Bind(ends[0], address));
  Step("a_file", Bind(open("/proc/self/stat", O_RDONLY), address));
  Step("listen_pipe", listen(ends[0], 1));
  Step("listen_closed", listen(150, 1));
}

PARITY_CASE(bad, bad_descriptor_and_bad_pointer, kPlain) {
  Step("closed_null", RawConnect(150, nullptr, 16));
  Step("closed_negative", RawConnect(150, nullptr, -1));
  int ends[2];
  Step("pipe", pipe(ends));
  Step("pipe_null", RawConnect(ends[0], nullptr, 16));
  Step("pipe_negative", RawConnect(ends[0], nullptr, -1));
}

PARITY_CASE(bad, high_bits_of_the_arguments, kPlain) {
  const int fd = Tcp();
  const Address address = PeerAt("echo");
  if (sizeof(long) < 8) {
    Step("connect", Connect(fd, address));
    Talk("talk", fd);
    return;
  }
  // The kernel takes the low 32 bits of the descriptor and of the length.
  const auto high = static_cast<long>(uint64_t{1} << (8 * sizeof(long) - 2));
  Step("connect", syscall(SYS_connect, high | fd, address.get(), high | 16));
  Talk("talk", fd);
}

PARITY_CASE(bad, address_changes_meanwhile, kPlain) {
  static Address shared;
  static volatile bool stop;
  static uint16_t ports[2];
  shared = PeerAt("hold");
  auto* in = reinterpret_cast<sockaddr_in*>(&shared.storage);
  ports[0] = in->sin_port;
  ports[1] = htons(static_cast<uint16_t>(Port("echo")));
  Thread flipper{[](void*) -> void* {
                   auto* volatile port = &reinterpret_cast<sockaddr_in*>(&shared.storage)->sin_port;
                   for (unsigned i = 0; !stop; ++i) *port = ports[i % 2];
                   return nullptr;
                 },
                 nullptr};
  flipper.Start();
  int odd = 0;
  for (int i = 0; i < 200; ++i) {
    const int fd = Tcp();
    // Either address is right; the one that getpeername names must be one of them.
    if (Connect(fd, shared) != 0) ++odd;
    const int port = PortOf(RemoteOf(fd));
    odd += port != ntohs(ports[0]) && port != ntohs(ports[1]);
    close(fd);
  }
  stop = true;
  flipper.Join();
  Fact("odd", "%d", odd);
}

PARITY_CASE(bad, same_number_another_kind, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  close(fd);
  const int file = open("/dev/null", O_RDWR);
  Fact("number", "%s", file == fd ? "reused" : "other");
  Step("connect", Connect(file, PeerAt("hold")));
  close(file);
  const int local = socket(AF_UNIX, SOCK_STREAM, 0);
  Step("connect", Connect(local, PeerAt("hold")));
}

PARITY_CASE(bad, sockname_pointers, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  socklen_t length = 16;
  char buffer[32];
  Step("peer_null", syscall(SYS_getpeername, fd, nullptr, &length));
  Step("peer_no_length", syscall(SYS_getpeername, fd, buffer, nullptr));
  Step("name_null", syscall(SYS_getsockname, fd, nullptr, &length));
  Step("name_no_length", syscall(SYS_getsockname, fd, buffer, nullptr));
  Step("name_closed", syscall(SYS_getsockname, 150, buffer, &length));
}

PARITY_CASE(bad, seccomp_like_repetition, kPlain) {
  // A thousand wrong calls leave the next right one as it was.
  for (int i = 0; i < 1000; ++i) {
    RawConnect(-1, nullptr, i);
    RawConnect(150, reinterpret_cast<void*>(static_cast<uintptr_t>(i)), 16);
    RawBind(0, nullptr, -i);
  }
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

}  // namespace parity
