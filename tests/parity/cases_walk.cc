// SPDX-License-Identifier: Apache-2.0
// Seeded random walks over socket calls. There is no model of what should happen: the native kernel is the
// model, and the walk prints every result. After each connect the walk waits until it is decided, so that a
// step never depends on time. "safe" walks never copy a descriptor, so every one of their connects can be
// accelerated; "dup" walks do.
#include <stdio.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

constexpr int kSlots = 6;
constexpr int kSteps = 60;

// How a socket speaks: an IPv6 one keeps to either kind of address, see the note in cases_families.cc.
enum Speech { kFour, kSix, kMapped };

struct Slot {
  int fd = -1;
  Speech speech = kFour;
};

struct Walk {
  uint64_t state;
  bool copies;
  Slot slots[kSlots];
  int own;         // The port of a listener of ours on 127.0.0.1,
  int own_six;     // and on ::1.
  int nobody;      // A port of 127.0.0.1 where nobody listens,
  int nobody_six;  // and of ::1.

  uint32_t Next(uint32_t below) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint32_t>(state >> 33) % below;
  }
};

Address At(Speech speech, const char* key, int port) {
  char six_key[16];
  snprintf(six_key, sizeof six_key, "%s6", key);
  const bool loopback = key[0] == 'l';
  switch (speech) {
    case kFour:
      return V4(loopback ? "127.0.0.1" : World(key), port);
    case kMapped:
      return Mapped(loopback ? "127.0.0.1" : World(key), port);
    default:
      return V6(loopback ? "::1" : World(six_key), port);
  }
}

Address Target(Walk* walk, Speech speech, const char** name) {
  switch (walk->Next(8)) {
    case 0:
      *name = "own";
      return At(speech, "loopback", speech == kSix ? walk->own_six : walk->own);
    case 1:
      *name = "nobody";
      return At(speech, "loopback", speech == kSix ? walk->nobody_six : walk->nobody);
    case 2:
      *name = "unspec";
      return Unspecified();
    case 3:
      *name = "closed";
      return At(speech, "peer", Port("closed"));
    case 4:
    case 5:
      *name = "host";
      return At(speech, "host", Port("hold"));
    default:
      *name = "peer";
      return At(speech, "peer", Port("hold"));
  }
}

void StepConnect(Walk* walk, const Slot& slot, char* text, size_t size) {
  const char* name = "";
  const Address address = Target(walk, slot.speech, &name);
  snprintf(text, size, "connect_%s", name);
  const int result = Connect(slot.fd, address);
  const bool started = result == -1 && errno == EINPROGRESS;
  Step(text, result);
  if (started) WaitFor(slot.fd, POLLOUT);
}

void StepOption(Walk* walk, int fd, char* text, size_t size) {
  struct {
    const char* name;
    int level, number, value;
  } const kOptions[] = {
      {"keepalive", SOL_SOCKET, SO_KEEPALIVE, 1},
      {"nodelay", IPPROTO_TCP, TCP_NODELAY, 1},
      {"reuseaddr", SOL_SOCKET, SO_REUSEADDR, 1},
      {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE, 33},
      {"tos", IPPROTO_IP, IP_TOS, 8},
      {"rcvbuf", SOL_SOCKET, SO_RCVBUF, 20000},
      {"linger2", IPPROTO_TCP, TCP_LINGER2, 5},
      {"lowat", SOL_SOCKET, SO_RCVLOWAT, 2},
  };
  const auto& option = kOptions[walk->Next(8)];
  if (walk->Next(2) == 0) {
    snprintf(text, size, "set_%s", option.name);
    Step(text, SetOption(fd, option.level, option.number, option.value));
    return;
  }
  snprintf(text, size, "get_%s", option.name);
  // The size of a buffer that nobody set is the kernel's to tune.
  if (option.number == SO_RCVBUF && option.level == SOL_SOCKET) SetOption(fd, SOL_SOCKET, SO_RCVBUF, 20000);
  Step(text, Option(fd, option.level, option.number));
}

void StepSocket(Walk* walk, const Slot& slot, char* text, size_t size) {
  const int fd = slot.fd;
  char bytes[8] = {};
  switch (walk->Next(20)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
      StepConnect(walk, slot, text, size);
      return;
    case 5:
      Step("bind", Bind(fd, slot.speech == kFour  ? V4("0.0.0.0", 0)
                            : slot.speech == kSix ? V6("::", 0)
                                                  : Mapped("0.0.0.0", 0)));
      return;
    case 6:
      Step("bind_foreign", Bind(fd, V4("198.51.100.9", 0)));
      return;
    case 7:
      // Mostly refused: a connected socket does not listen. A free one does, on a port of its own.
      Step("listen", listen(fd, 4));
      return;
    case 8:
      // A copied socket is on the ordinary path, where slirp4netns resets a connection that was half closed.
      Step("shutdown", shutdown(fd, walk->copies ? SHUT_RD : static_cast<int>(walk->Next(3))));
      return;
    case 9:
    case 10:
      Step("send", send(fd, "bytes", 5, MSG_NOSIGNAL | MSG_DONTWAIT));
      return;
    case 11:
    case 12:
      Step("recv", recv(fd, bytes, sizeof bytes, MSG_DONTWAIT));
      return;
    case 13:
      Fact("so_error", "%s", ErrnoName(TakeError(fd)));
      return;
    case 14:
      StepOption(walk, fd, text, size);
      return;
    case 15: {
      pollfd one = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
      poll(&one, 1, 0);
      Fact("poll", "%#x", one.revents);
      return;
    }
    case 16: {
      const int flags = fcntl(fd, F_GETFL);
      Step("nonblock", fcntl(fd, F_SETFL, flags ^ O_NONBLOCK));
      Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
      return;
    }
    case 17:
      Where(fd);
      return;
    case 18:
      Fact("state", "%s", StateOf(fd));
      return;
    default:
      // On a listening socket only: accept of a blocking one would wait.
      Step("acceptconn", Option(fd, SOL_SOCKET, SO_ACCEPTCONN));
      return;
  }
}

// A port where nobody listens.
int FreePort(const Address& address) {
  const int fd = Listener(address);
  const int port = PortOf(LocalOf(fd));
  close(fd);
  return port;
}

void StepSlot(Walk* walk, uint32_t at) {
  Slot& slot = walk->slots[at];
  char text[48];
  if (slot.fd < 0) {
    // A copied socket stays on the ordinary path, and slirp4netns has no IPv6 to offer there.
    const Speech kSpeeches[] = {kFour, kMapped, kSix};
    slot.speech = kSpeeches[walk->Next(walk->copies ? 2 : 3)];
    const int flags = (walk->Next(2) == 0 ? SOCK_NONBLOCK : 0) | (walk->Next(2) == 0 ? SOCK_CLOEXEC : 0);
    slot.fd = Tcp(slot.speech == kFour ? AF_INET : AF_INET6, flags);
    Fact("socket", "%u/%d", at, slot.speech);
    return;
  }
  Fact("slot", "%u", at);
  const uint32_t rare = walk->Next(12);
  if (rare == 0) {
    Step("close", close(slot.fd));
    slot.fd = -1;
  } else if (rare == 1 && walk->copies) {
    Slot& other = walk->slots[walk->Next(kSlots)];
    if (&other != &slot) {
      if (other.fd >= 0) close(other.fd);
      other = {dup(slot.fd), slot.speech};
    }
    Fact("dup", "%d", static_cast<int>(&other - walk->slots));
  } else {
    StepSocket(walk, slot, text, sizeof text);
  }
}

void Stroll(uint64_t seed, bool copies) {
  Walk walk{seed, copies, {}, 0, 0, 0, 0};
  for (int i = 0; i < 8; ++i) walk.Next(2);  // Close seeds begin alike.
  walk.own = PortOf(LocalOf(Listener(V4("127.0.0.1", 0), 1000)));
  walk.own_six = PortOf(LocalOf(Listener(V6("::1", 0), 1000)));
  walk.nobody = FreePort(V4("127.0.0.1", 0));
  walk.nobody_six = FreePort(V6("::1", 0));
  for (int step = 0; step < kSteps; ++step) StepSlot(&walk, walk.Next(kSlots));
}

}  // namespace

#define PARITY_WALK(number)                    \
  PARITY_CASE(walk, safe_##number, kPlain) {   \
    Stroll(number, false);                     \
  }                                            \
  PARITY_CASE(walk, dup_##number, kOrdinary) { \
    Stroll(1000 + number, true);               \
  }

PARITY_WALK(11)
PARITY_WALK(12)
PARITY_WALK(13)
PARITY_WALK(14)
PARITY_WALK(15)
PARITY_WALK(16)
PARITY_WALK(17)
PARITY_WALK(18)
PARITY_WALK(19)
PARITY_WALK(20)

}  // namespace parity
