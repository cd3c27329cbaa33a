// SPDX-License-Identifier: Apache-2.0
// The other doors into the kernel: the 32-bit system calls (also from a 64-bit program by int 0x80),
// socketcall, x32, and io_uring.
#include <string.h>
#include <sys/mman.h>

#include "tests/parity/guest.h"
#include "tests/support/int80.h"

namespace parity {
namespace {

#if defined(__x86_64__) || defined(__i386__)
// The i386 numbers, which are the same from both kinds of program.
constexpr long kSocketcall32 = 102;
constexpr long kBind32 = 361;
constexpr long kConnect32 = 362;

// A 32-bit system call. Its pointers must lie below 4 GiB.
long Int80(long number, long first, long second, long third) {
  if (!shunt::HasInt80()) {
    errno = ENOSYS;
    return -1;
  }
  long result = 0;
#ifdef __x86_64__
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(number), "b"(first), "c"(second), "d"(third)
               : "memory", "r8", "r9", "r10", "r11");
  // The result is a 32-bit value; where the kernel leaves the upper half depends on nothing that we test.
  result = static_cast<int>(result);
#else
  asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
#endif
  if (result < 0 && result > -4096) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

struct LowPage {
  char* bytes = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
#ifdef __x86_64__
                                        MAP_32BIT |
#endif
                                            MAP_PRIVATE | MAP_ANONYMOUS,
                                        -1, 0));
  long at(size_t offset) const {
    return static_cast<long>(reinterpret_cast<uintptr_t>(bytes + offset));
  }
  // The address at the page's start.
  void Put(const Address& address) {
    memcpy(bytes, &address.storage, sizeof address.storage);
  }
};

// socketcall(call, {fd, address, length}) with 32-bit words.
long Socketcall(LowPage* page, uint32_t call, int fd, const Address& address) {
  page->Put(address);
  const uint32_t words[3] = {static_cast<uint32_t>(fd), static_cast<uint32_t>(page->at(0)),
                             static_cast<uint32_t>(address.length)};
  memcpy(page->bytes + 512, words, sizeof words);
  return Int80(kSocketcall32, static_cast<long>(call), page->at(512), 0);
}
#endif

}  // namespace

#if defined(__x86_64__) || defined(__i386__)
PARITY_CASE(abi, int80_connect, kPlain) {
  LowPage page;
  page.Put(PeerAt("echo"));
  const int fd = Tcp();
  Step("connect", Int80(kConnect32, fd, page.at(0), 16));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(abi, int80_refused_and_bad, kPlain) {
  LowPage page;
  page.Put(PeerAt("closed"));
  const int fd = Tcp();
  Step("refused", Int80(kConnect32, fd, page.at(0), 16));
  Step("null", Int80(kConnect32, fd, 0, 16));
  Step("negative", Int80(kConnect32, fd, page.at(0), -1));
  Step("short", Int80(kConnect32, fd, page.at(0), 15));
  Step("minus_one", Int80(kConnect32, -1, page.at(0), 16));
}

PARITY_CASE(abi, int80_bind, kPlain) {
  LowPage page;
  page.Put(V4("127.0.0.1", 0));
  const int fd = Tcp();
  Step("bind", Int80(kBind32, fd, page.at(0), 16));
  Step("listen", listen(fd, 4));
  Where(fd);
  Step("connect", Connect(Tcp(), LocalOf(fd)));
}

PARITY_CASE(abi, socketcall_connect, kPlain) {
  LowPage page;
  const int fd = Tcp();
  Step("connect", Socketcall(&page, 3, fd, PeerAt("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(abi, socketcall_refused_then_ok, kPlain) {
  LowPage page;
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Socketcall(&page, 3, fd, PeerAt("closed")));
  WaitFor(fd, POLLOUT);
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Step("connect", Socketcall(&page, 3, fd, PeerAt("echo")));
  WaitFor(fd, POLLOUT);
  Talk("talk", fd);
}

PARITY_CASE(abi, socketcall_bind_listen, kPlain) {
  LowPage page;
  const int fd = Tcp();
  Step("bind", Socketcall(&page, 2, fd, V4("127.0.0.1", 0)));
  Step("listen", listen(fd, 4));
  Step("connect", Connect(Tcp(), LocalOf(fd)));
}

PARITY_CASE(abi, socketcall_bad, kPlain) {
  LowPage page;
  Step("zero", Int80(kSocketcall32, 0, page.at(512), 0));
  Step("unknown", Int80(kSocketcall32, 99, page.at(512), 0));
  Step("null", Int80(kSocketcall32, 3, 0, 0));
  Step("bad_fd", Socketcall(&page, 3, -1, PeerAt("echo")));
  Step("closed_fd", Socketcall(&page, 3, 150, PeerAt("echo")));
  const uint32_t words[3] = {static_cast<uint32_t>(Tcp()), 0, 16};
  memcpy(page.bytes + 512, words, sizeof words);
  Step("null_address", Int80(kSocketcall32, 3, page.at(512), 0));
}

PARITY_CASE(abi, socketcall_arguments_at_the_edge, kPlain) {
  LowPage page;
  const Address address = PeerAt("echo");
  page.Put(address);
  const int fd = Tcp();
  const uint32_t words[3] = {static_cast<uint32_t>(fd), static_cast<uint32_t>(page.at(0)), 16};
  memcpy(page.bytes + 4096 - 12, words, 12);
  mprotect(page.bytes, 4096, PROT_READ);
  Step("connect", Int80(kSocketcall32, 3, page.at(4096 - 12), 0));
  Talk("talk", fd);
}
#endif

#if defined(__x86_64__) && !defined(__ILP32__)
PARITY_CASE(abi, x32_connect, kPlain) {
  LowPage page;
  page.Put(PeerAt("echo"));
  const int fd = Tcp();
  // ENOSYS on a kernel without x32.
  Step("connect", syscall(0x40000000 + SYS_connect, fd, page.bytes, 16));
}
#endif

PARITY_CASE(abi, sixty_four_after_thirty_two, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("again", syscall(SYS_connect, fd, nullptr, 0));
  Talk("talk", fd);
}

}  // namespace parity
