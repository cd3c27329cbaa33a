// SPDX-License-Identifier: Apache-2.0
#include "core/user_namespaces.h"

#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <utility>

namespace shunt {

uint64_t InodeOf(int fd) {
  struct stat info {};
  return fstat(fd, &info) == 0 ? info.st_ino : 0;
}

Result<std::vector<Fd>> UserNamespacesDownTo(Fd innermost, uint64_t ours) {
  std::vector<Fd> chain;
  while (InodeOf(innermost.get()) != ours) {
    Fd parent(ioctl(innermost.get(), NS_GET_PARENT));
    const int error = errno;
    chain.insert(chain.begin(), std::move(innermost));
    if (!parent.valid()) return Fail(error);
    innermost = std::move(parent);
  }
  return chain;
}

}  // namespace shunt
