// SPDX-License-Identifier: Apache-2.0
// What the attacks on mounts have in common: the places, the tally, and the calls in all their forms.

#pragma once

#include <sched.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "tests/support/int80.h"

namespace shunt {

inline constexpr char kProc[] = "/root";  // where what is attacked is mounted
inline const std::string kA = "/tmp/a", kB = "/tmp/b", kC = "/tmp/c";
extern const dev_t kZero;

// What is attacked: a proc, or a sysfs; and what is masked in it.
extern const char* type_attacked;
extern std::array<const char*, 3> masks;
bool IsSysfs();

// What all processes of this program count together.
struct Tally {
  std::atomic<long> tries = 0, through = 0, failures = 0;
};
extern Tally* tally;

// The attack could not be made, so it has shown nothing.
void Fail(const char* what);
// The line of what was counted since the last one.
void Report(const char* name);

void Write(const char* path, const std::string& text);
// In a child; returns its exit status.
int InChild(const std::function<void()>& body);
// In user, mount and (unless told otherwise) pid namespaces of its own, with a tmpfs to work in.
void InNest(const std::function<void()>& body, int namespaces = CLONE_NEWNS | CLONE_NEWPID,
            const char* root = "/");
void DropCapabilities();

// What of the masked is seen: in a proc or sysfs, and in what is at a path if that is a directory.
void LookAt(int proc);
void Look(const std::string& path);
bool IsProc(int fd);
bool IsProc(const std::string& path);

// Calls by int 0x80. Their strings have to be below 4 GiB. Not every machine has them (nor every hypervisor).
long Int80(long number, uintptr_t a = 0, uintptr_t b = 0, uintptr_t c = 0, uintptr_t d = 0, uintptr_t e = 0);
uintptr_t LowNumber(const char* text);
int Mount32(const char* source, const char* target, const char* type, unsigned flags);
// What is attacked.
int MountProc(const std::string& at, const char* data = nullptr);

// The attacks; each file has a comment.
void Unmask(bool nests);
void Swap(long tries, const char* host);
void Walk();
void MountOverParent(long tries);
void Devices();
void Types();
void OtherPids();
void FlipType(long tries);
void Refused(long result, const char* what);
void WhoseIsIt();
void TooMany();
void Errnos();
void OnShared(const std::string& volume, const std::string& own);

}  // namespace shunt
