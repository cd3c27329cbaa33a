// SPDX-License-Identifier: Apache-2.0
// Confinement: what the engine and the keeper give up, so that whoever takes one of them over gets little.
//
// Three measures, each for good: capabilities that nothing here needs are dropped, no_new_privs is set, and a
// seccomp filter lets through the system calls that serving takes and no others. Landlock is not among them:
// a confined process may not look into programs outside its domain, and to do that is our work.
//
// Calls that the filter does not know fail with ENOSYS and a line in the kernel's log, as on an old kernel:
// libraries know how to live with that, so that a rare path costs a feature and not the engine. In the engine
// those that only an intruder makes (execve, ptrace, mount ...) kill: its containers do not notice, if a
// keeper watches it. The keeper is never killed, because nobody is behind it.
//
// The hot path pays next to nothing: the kernel keeps a bitmap of the calls that a filter allows whatever
// their arguments are, and calls of the hot path are judged by their number alone.
//
// For one thread at the start of a process. Sanitized builds allow what the sanitizers call as well.

#pragma once

#include <fcntl.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shunt {

// What a thread of the engine is for. A process that it forks has what it has. kClient asks servers of others
// (tools/kube_client.h), and keeps nothing.
enum class EngineThread : uint8_t { kControl, kReactor, kSide, kClient };

// Drops the capabilities that such a thread has no use for (the table is in confinement.cc), in all sets of
// the calling thread only: so each thread calls it as it begins. One that has none keeps none.
absl::Status KeepCapabilities(EngineThread thread);

// The calling thread is one of that kind from now on: it has this name, the capabilities of its kind, and no
// signals, which are for the others. Without a capability less can be read, and nothing else is lost: what
// fails then says so by itself. Where a reactor wants the same CPU, it goes first.
void BeginThread(EngineThread thread, const char* name);

// Confines the engine's whole process, once, when it serves or is about to: its threads exist and have
// dropped their capabilities, its rings exist, and it has nothing left to start. For the control thread,
// whose capabilities it drops.
//
// Returns one line for people about what is in force. An error says what is not, and leaves what is; to go on
// is safe, since none of this is what keeps containers apart.
absl::StatusOr<std::string> ConfineEngine();

// Confines a process that only waits, reads, writes, accepts connections, passes descriptors on, answers
// notifications, and ends or reaps other processes of its user: it keeps no capability, and the only requests
// of ioctl that it can make are those of a seccomp listener. For a process with one thread; returns as
// ConfineEngine().
absl::StatusOr<std::string> ConfineKeeper();

// Confines the process that opens files of cgroups (core/cgroup.h), as ConfineKeeper(): it can open files
// with kCgroupOpenerFlags only, and pass them on.
absl::StatusOr<std::string> ConfineCgroupOpener();
inline constexpr int kCgroupOpenerFlags = O_WRONLY | O_CLOEXEC | O_NOFOLLOW;

// Confines a worker (core/worker.h) to what deeds do. It keeps its capabilities, which it has in the
// container's user namespace. `mounts`: some of its deeds are about mounts and devices.
absl::Status ConfineWorker(bool mounts);

// Confines the companion that builds mounts (handlers/mount_builder.h), when it is where it builds. It keeps
// its capabilities.
absl::Status ConfineMountBuilder();

}  // namespace shunt
