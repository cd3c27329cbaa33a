// SPDX-License-Identifier: Apache-2.0
// What the command of `shunt run` sees as its files: the host's, or a root filesystem.
//
// Everything here happens in the mount namespace of the calling process, which must be the container's own,
// as must be its network and pid namespaces: /proc and /sys show the namespaces of whoever mounts them. The
// host sees none of it.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shunt {

// The host's files, with /proc and /sys of the container. Returns what the kernel did not let us do, as a
// sentence for people, or "": a container that itself hides parts of /proc does not get a fresh one.
absl::StatusOr<std::string> MountHostView();

// Makes `rootfs` the root directory, with its own /proc, /dev and, if the kernel lets, a read-only /sys.
// `tty_path`, unless it is empty, is the host's name of the terminal that the command uses; it is called
// /dev/console in there. The working directory becomes /.
absl::Status EnterRootfs(const std::string& rootfs, const std::string& tty_path);

// Makes /etc/resolv.conf (or what it is a link to) read `content`; nothing if there is no such file.
absl::Status ReplaceResolvConf(const std::string& content);

}  // namespace shunt
