// SPDX-License-Identifier: Apache-2.0
// What keeper_test and scripted_engine say to each other.

#pragma once

#include <sys/stat.h>

#include <cstring>
#include <string>

#include "tools/keeper_protocol.h"

namespace shunt {

struct ScriptLine {
  char text[600] = {};
};

inline ScriptLine MakeLine(const std::string& text) {
  ScriptLine line;
  std::strncpy(line.text, text.c_str(), sizeof(line.text) - 1);
  return line;
}

// The file that a path leads to, whatever it is called: "DEVICE:INODE".
inline std::string Identity(const char* path) {
  struct stat info = {};
  if (stat(path, &info) != 0) return "none";
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
}

inline std::string MessageName(uint32_t message) {
  switch (static_cast<KeeperMessage>(message)) {
    case KeeperMessage::kGive:
      return "give";
    case KeeperMessage::kGiven:
      return "given";
    case KeeperMessage::kStart:
      return "start";
    case KeeperMessage::kStop:
      return "stop";
    case KeeperMessage::kLeave:
      return "leave";
    case KeeperMessage::kReload:
      return "reload";
    case KeeperMessage::kPing:
      return "ping";
    case KeeperMessage::kUpgradeDone:
      return "upgrade-done";
    case KeeperMessage::kUpgradeFailed:
      return "upgrade-failed";
    case KeeperMessage::kFailed:
      return "failed";
    default:
      return "message " + std::to_string(message);
  }
}

}  // namespace shunt
