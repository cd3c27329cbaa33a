// SPDX-License-Identifier: Apache-2.0
#include "handlers/remarks.h"

#include "absl/strings/str_format.h"

namespace shunt {

std::string TextOf(Remark remark, std::string_view about) {
  switch (remark) {
    case Remark::kNone:
      break;
    case Remark::kDeviceRefused:
      return absl::StrFormat(
          "the device %s, which it may make, cannot be opened in it: its cgroup forbids that; let the "
          "runtime allow the device (linux.resources.devices; --device-cgroup-rule='%s rwm')",
          about, about);
    case Remark::kNoNetAdmin:
      return "/dev/net/tun was made for a program without CAP_NET_ADMIN, which can make a device by it in a "
             "network namespace of its own only; let the runtime give the capability if it shall be in the "
             "container's";
    case Remark::kMayNotMount:
      return absl::StrFormat(
          "mount of %s refused: the caller has no CAP_SYS_ADMIN in its user namespace; "
          "MOUNT_NEED_CAP_ADMIN=false lets it",
          about);
    case Remark::kSharedPlace:
      return absl::StrFormat(
          "mount of %s refused: its place is shared with other mount namespaces, where it would show as "
          "well, and the caller has no CAP_SYS_ADMIN; let the runtime make the volume rslave or rprivate",
          about);
  }
  return "a worker has remarked something that this version does not know";
}

}  // namespace shunt
