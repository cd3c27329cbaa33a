// SPDX-License-Identifier: Apache-2.0
// What a test's child does in namespaces that it has just made: ids are mapped by writing files, and lo is
// down.
//
// A mistake of the test's or a kernel without user namespaces ends the child (SHUNT_CHECK).

#pragma once

#include <sys/types.h>

#include <string>

namespace shunt {

// fork() into new namespaces (CLONE_NEW...). Not fork() and unshare(): ThreadSanitizer's fork() starts a
// thread, and a process that has two cannot enter a user namespace.
pid_t ForkInto(int namespaces);
void WriteFile(const char* path, const std::string& text);
void BringLoopbackUp();

}  // namespace shunt
