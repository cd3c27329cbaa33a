// SPDX-License-Identifier: Apache-2.0
// mkdir(2), mkdirat(2): makes the directory under a name to which the policy has added something.
//
// Without such a policy the kernel makes it.

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/workers.h"

namespace shunt {
namespace {

// A name that the kernel will refuse in any case ("/", "a/..") stays as it is, for the sake of its errno.
bool CanBeMade(std::string_view path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string_view::npos) return false;
  path = path.substr(0, end + 1);
  const size_t slash = path.find_last_of('/');
  const std::string_view last = slash == std::string_view::npos ? path : path.substr(slash + 1);
  return last != "." && last != "..";
}

std::optional<Reply> PrepareDirectory(Call& call, WorkRequest& request, uint64_t path, int directory,
                                      uint64_t mode) {
  char* const text = request.text.data();
  const Result<size_t> read = ReadPath(call, path, request.text);
  if (!read) return Reply::Fail(read.error());
  if (CanBeMade({text, *read})) {
    size_t size = *read;
    while (text[size - 1] == '/') --size;
    const std::string& suffix = *ContainerOf(call).policy.mkdir_suffix;
    if (size + suffix.size() >= PATH_MAX) return Reply::Fail(ENAMETOOLONG);
    std::memcpy(text + size, suffix.c_str(), suffix.size() + 1);
    request.text_size = static_cast<uint32_t>(size + suffix.size());
  } else {
    request.text_size = static_cast<uint32_t>(*read);
  }
  request.offsets[0] = 0;
  request.directory = directory;
  request.values[0] = mode;
  return {};
}

}  // namespace

Reply Mkdir(Call& call) {
  if (!ContainerOf(call).policy.mkdir_suffix) return Default(call);
  return DoInside(call, DeedName::kMakeDirectory, [](Call& of, WorkRequest& request) {
    return PrepareDirectory(of, request, of.arg(0), AT_FDCWD, of.arg(1));
  });
}

Reply MkdirAt(Call& call) {
  if (!ContainerOf(call).policy.mkdir_suffix) return Default(call);
  return DoInside(call, DeedName::kMakeDirectory, [](Call& of, WorkRequest& request) {
    return PrepareDirectory(of, request, of.arg(1), of.int_arg(0), of.arg(2));
  });
}

int64_t MakeDirectory(Inside& inside) {
  const WorkRequest& request = inside.request();
  const Result<Inside::Place> place = inside.Find(request.string(0));
  if (!place) return -place.error().code;
  if (!inside.Begin()) return -ENOENT;
  if (mkdirat(place->directory(), place->last, static_cast<mode_t>(request.values[0])) == 0) return 0;
  return errno == EEXIST && request.may_be_done ? 0 : -errno;
}

}  // namespace shunt
