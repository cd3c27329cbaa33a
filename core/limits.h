// SPDX-License-Identifier: Apache-2.0
// Every capacity of the engine, in one place, with the reason for its size.

#pragma once

#include <cstddef>
#include <cstdint>

namespace shunt::limits {

// Submissions that one turn of a reactor may queue before they are handed over early: a poll to re-arm for
// each listener that was served in the turn (kCompletionsPerTurn at most), and as many again for tasks'
// operations.
inline constexpr unsigned kRingEntries = 512;

// Room for one completion of each listener of a busy reactor at once. The kernel keeps what does not fit.
inline constexpr unsigned kRingCompletions = 4096;

// Completions that are acted upon before the ring is asked again: bounds how long a listener that became
// readable waits behind those before it.
inline constexpr size_t kCompletionsPerTurn = 256;

// Calls that wait inside the engine (a timer, a socket from the container's network, a migration), per
// reactor. When they are gone, the next one gets its handler's defined answer instead of waiting.
inline constexpr size_t kTaskSlots = 256;

// Bytes of one slot: the largest coroutine frame. Checked when a frame is made.
inline constexpr size_t kTaskSlotBytes = 2048;

// Slots that one container may hold: a quarter, so that it takes four hostile ones to make others wait.
inline constexpr size_t kTaskSlotsPerListener = kTaskSlots / 4;

// A container whose targets get no CPU when something is to be installed in them, or whose memory cannot be
// read while its mappings are changed, costs its reactor a wait for each (core/patience.h). It may cost this
// share of the reactor's time, 1 / N, after having cost this many nanoseconds at once; then the reactor rests
// from it. The share is small enough not to show in the 99th percentile of others, and the start large enough
// for a machine that is only busy.
inline constexpr int64_t kStallShare = 64;
inline constexpr int64_t kStallBurst = 16'000'000;

// What one wait is charged at most, in nanoseconds. A longer one is more likely an engine that was stopped or
// frozen itself, for which no container shall rest for hours.
inline constexpr int64_t kLongestStall = 1'000'000'000;

// How often a call is tried whose target gets no CPU before the kernel is left to deal with it.
inline constexpr uint32_t kStallsPerCall = 64;

// How many engines in a row may die in the middle of one and the same call before the next one answers it
// with EIO instead of handling it.
inline constexpr uint32_t kResumptions = 5;

// Series of request times (handlers/request_times.h) that a reactor has room for: a quarter of a megabyte. An
// agent with forty handlers' worth of calls and outcomes in each of fifty namespaces needs that many.
inline constexpr size_t kTimedSeries = 2048;

// Of these one namespace may use an eighth, so that a container that makes its calls fail in every way there
// is takes them from nobody else.
inline constexpr size_t kTimedSeriesPerNamespace = kTimedSeries / 8;

// Namespaces that an engine tells apart in them, the unknown one included. Kubernetes runs about a hundred
// pods on a node.
inline constexpr size_t kTimedNamespaces = 512;

// Connections of runtimes that an engine keeps at once. Some runtimes (runc 1.1) keep theirs for the
// container's whole life, most for milliseconds; nobody loses anything when one that has brought its
// container goes.
inline constexpr size_t kRuntimeConnections = 256;

// How many more are held while they are on their way to an engine, which then chooses which of them go:
// enough for all containers of a node that start at once, and few beside the descriptors that containers
// need.
inline constexpr size_t kConnectionsUnderWay = 64;

// Targets whose pidfd a reactor keeps open, direct-mapped by tid.
inline constexpr size_t kCachedTargets = 128;

// Bytes of a file of backends (net/discovery/file_source.h): 20,000 of them with zones and labels. It is read
// into memory as a whole, by the thread that decides about backends, which has no time for anything else
// then.
inline constexpr size_t kBackendFileBytes = size_t{2} << 20;

// Questions of one service to DNS servers under way at once (net/discovery/dns_source.h): an SRV answer can
// name thousands of hosts, and a server's socket has room for some hundred datagrams.
inline constexpr size_t kDnsQuestions = 32;

// Backends of one service that DNS may name: more than an answer of 64 KiB can hold, and fewer than all the
// hosts of such an answer with 64 KiB each.
inline constexpr size_t kDnsBackends = 16384;

// Health checks under way at once (net/balancer/connect_checks.h). Each takes a descriptor while it lasts,
// which is a second at most as a rule, of the 1024 that a process may have where nobody has raised that.
inline constexpr size_t kConnectChecks = 256;

// Backends that an agent remembers for services with affinity and a timeout (net/balancer/affinity_memory.h),
// of 16 bytes each: a megabyte, of which pages that nobody uses take no memory. Two hundred containers that
// use three hundred such services each find room.
inline constexpr size_t kRememberedBackends = 65536;

}  // namespace shunt::limits
