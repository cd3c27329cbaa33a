// SPDX-License-Identifier: Apache-2.0
#include "tools/agent_settings.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "core/result.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

Json ToJson(const NodeIdentity& node) {
  return {{"device", node.device}, {"inode", node.inode}};
}

NodeIdentity NodeFrom(const Json& json) {
  return {.device = json.at("device").get<dev_t>(), .inode = json.at("inode").get<ino_t>()};
}

}  // namespace

absl::StatusOr<Fd> HeldText(const std::string& text) {
  Fd file(memfd_create("shunt-settings", MFD_CLOEXEC));
  if (!file.valid() || write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return ToStatus({errno}, "keep the settings");
  return file;
}

absl::StatusOr<std::string> ReadHeldText(int fd) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return ToStatus({errno}, "look at the settings");
  std::string text(static_cast<size_t>(info.st_size), '\0');
  if (pread(fd, text.data(), text.size(), 0) != info.st_size) return ToStatus({errno}, "read the settings");
  return text;
}

absl::StatusOr<Fd> AgentSettings::ToFile() const {
  const std::string text = Json({{"configuration", configuration},
                                 // Engines that would accept themselves know another name, and fail.
                                 {"accepted_from", socket},
                                 {"socket_node", ToJson(socket_node)},
                                 {"control", control},
                                 {"control_node", ToJson(control_node)},
                                 {"metrics", metrics},
                                 {"orders", orders}})
                               .dump(-1, ' ', false, Json::error_handler_t::replace);
  return HeldText(text);
}

absl::StatusOr<AgentSettings> AgentSettings::FromFile(int fd) try {
  const absl::StatusOr<std::string> text = ReadHeldText(fd);
  if (!text.ok()) return text.status();
  const Json json = Json::parse(*text);
  const bool accepts = json.contains("accepted_from");
  return AgentSettings{.configuration = json.at("configuration").get<std::string>(),
                       .socket = json.at(accepts ? "accepted_from" : "socket").get<std::string>(),
                       .socket_node = NodeFrom(json.at("socket_node")),
                       .accepts = accepts,
                       .control = json.at("control").get<std::string>(),
                       .control_node = NodeFrom(json.at("control_node")),
                       .metrics = json.value("metrics", ""),
                       .orders = json.value("orders", Json::array())};
} catch (const Json::exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("the settings that are held: ", error.what()));
}

}  // namespace shunt
