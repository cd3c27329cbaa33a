// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fresh_namespace.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "core/check.h"
#include "core/fd.h"

namespace shunt {

pid_t ForkInto(int namespaces) {
  const auto child =
      static_cast<pid_t>(syscall(SYS_clone, namespaces | SIGCHLD, nullptr, nullptr, nullptr, 0));
  SHUNT_CHECK(child >= 0);
  return child;
}

void WriteFile(const char* path, const std::string& text) {
  const Fd file(open(path, O_WRONLY | O_CLOEXEC));
  SHUNT_CHECK(file.valid() &&
              write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

void BringLoopbackUp() {
  const Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  SHUNT_CHECK(ioctl(any.get(), SIOCSIFFLAGS, &request) == 0);
}

}  // namespace shunt
