// SPDX-License-Identifier: Apache-2.0
#include "tools/ctl_link.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/fd.h"
#include "core/result.h"
#include "tools/harmless.h"

namespace shunt {

absl::StatusOr<nlohmann::json> AskAgent(const std::string& path, std::string command) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return absl::InvalidArgumentError(path + ": too long for a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // An engine that is being replaced answers late, one that hangs is replaced.
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return ToStatus({errno}, absl::StrCat("reach an agent on ", path, " (choose another with --socket)"));
  command += '\n';
  if (send(socket.get(), command.data(), command.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(command.size()))
    return ToStatus({errno}, absl::StrCat("ask the agent on ", path));
  std::string answer;
  std::array<char, 65536> chunk;
  ssize_t got;
  while ((got = recv(socket.get(), chunk.data(), chunk.size(), 0)) > 0)
    answer.append(chunk.data(), static_cast<size_t>(got));
  if (got < 0) return ToStatus({errno}, absl::StrCat("wait for the answer of the agent on ", path));
  nlohmann::json json = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return absl::UnavailableError("the engine has ended instead of answering; ask again");
  return json;
}

uint64_t NumberIn(const nlohmann::json& object, const char* key) {
  return object.value(key, uint64_t{0});
}

std::string TextIn(const nlohmann::json& object, const char* key) {
  return Harmless(object.value(key, std::string()));
}

int FailCtl(int exit_status, const absl::Status& why) {
  std::fprintf(stderr, "shunt ctl: %s\n", std::string(why.message()).c_str());
  return exit_status;
}

int CommandAgent(const std::string& socket, const std::string& command) {
  const absl::StatusOr<nlohmann::json> answer = AskAgent(socket, command);
  if (!answer.ok()) return FailCtl(kCtlNoAgent, answer.status());
  if (answer->contains("error")) return FailCtl(kCtlFailed, absl::UnavailableError(TextIn(*answer, "error")));
  return 0;
}

}  // namespace shunt
