// SPDX-License-Identifier: Apache-2.0
// What a test's child does in namespaces that it has just made: ids are mapped by writing files, and lo is
// down.
//
// A mistake of the test's or a kernel without user namespaces ends the child (SHUNT_CHECK).

#pragma once

#include <string>

namespace shunt {

void WriteFile(const char* path, const std::string& text);
void BringLoopbackUp();

}  // namespace shunt
