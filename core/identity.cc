// SPDX-License-Identifier: Apache-2.0
#include "core/identity.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/proc_text.h"

namespace shunt {
namespace {

// What follows `label` on the line that begins with it.
std::optional<std::string_view> LineOf(std::string_view text, std::string_view label) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.substr(0, label.size()) == label) return line.substr(label.size());
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return {};
}

// Takes the next number off `line`.
bool NextNumber(std::string_view& line, uint32_t& into) {
  const size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return false;
  line.remove_prefix(begin);
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), into);
  if (error != std::errc()) return false;
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  return true;
}

bool ReadIds(std::string_view status, std::string_view label, Identity::Ids& into) {
  std::optional<std::string_view> line = LineOf(status, label);
  return line && NextNumber(*line, into.real) && NextNumber(*line, into.effective) &&
         NextNumber(*line, into.saved) && NextNumber(*line, into.filesystem);
}

// The last of the numbers on a line.
bool ReadLast(std::string_view status, std::string_view label, pid_t& into) {
  std::optional<std::string_view> line = LineOf(status, label);
  uint32_t number = 0;
  bool found = false;
  while (line && NextNumber(*line, number)) found = true;
  into = static_cast<pid_t>(number);
  return found;
}

Result<uint64_t> PermittedCapabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets = {};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return FailErrno();
  return uint64_t{sets[1].permitted} << 32 | sets[0].permitted;
}

}  // namespace

Result<void> ParseIdentity(std::string_view status, Identity& into) {
  if (!ReadIds(status, "Uid:", into.user) || !ReadIds(status, "Gid:", into.group)) return Fail(EINVAL);
  const std::optional<uint64_t> umask = NumberBehind(status, "Umask:", 8);
  const std::optional<uint64_t> capabilities = NumberBehind(status, "CapEff:", 16);
  std::optional<std::string_view> groups = LineOf(status, "Groups:");
  if (!umask || !capabilities || !groups) return Fail(EINVAL);
  into.umask = static_cast<uint32_t>(*umask);
  into.capabilities = *capabilities;
  into.group_count = 0;
  for (uint32_t group = 0; NextNumber(*groups, group);) {
    if (into.group_count == Identity::kGroups) return Fail(E2BIG);
    into.groups[into.group_count++] = group;
  }
  return {};
}

Result<PidNumbers> ParsePidNumbers(std::string_view status) {
  PidNumbers pids;
  if (!ReadLast(status, "Tgid:", pids.process) || !ReadLast(status, "NStgid:", pids.inner_process) ||
      !ReadLast(status, "NSpid:", pids.inner_thread))
    return Fail(EINVAL);
  return pids;
}

// The ids shall not touch the capabilities: what is effective is set here, and the permitted ones are how we
// get back.
Result<Guise> Guise::Take() {
  const Result<uint64_t> permitted = PermittedCapabilities();
  if (!permitted) return tl::unexpected(permitted.error());
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS) !=
      0)
    return FailErrno();
  Guise guise(*permitted);
  guise.in_force_ = 0;
  const int groups = getgroups(Identity::kGroups, guise.last_.groups.data());
  if (groups < 0) return FailErrno();
  guise.last_.group_count = static_cast<size_t>(groups);
  if (Result<void> own = guise.TakeOff(); !own) return tl::unexpected(own.error());
  return guise;
}

Result<void> Guise::TakeOff() {
  return SetEffective(own_);
}

Result<void> Guise::PutOn(const Identity& identity) {
  if (Result<void> ids = SetIds(identity); !ids) return ids;
  last_.capabilities = identity.capabilities;
  return PutOnAgain();
}

Result<void> Guise::SetEffective(uint64_t capabilities) {
  if (capabilities == in_force_) return {};
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets = {};
  for (size_t word = 0; word < sets.size(); ++word) {
    sets[word].permitted = static_cast<uint32_t>(own_ >> (32 * word));
    sets[word].effective = static_cast<uint32_t>(capabilities >> (32 * word));
  }
  if (syscall(SYS_capset, &header, sets.data()) != 0) return FailErrno();
  in_force_ = capabilities;
  return {};
}

// Raw calls: those of the C library stop threads that we have not got.
Result<void> Guise::SetIds(const Identity& identity) {
  const bool alike = std::ranges::equal(identity.supplementary(), last_.supplementary());
  if (!alike || !groups_known_) {
    if (Result<void> own = TakeOff(); !own) return own;
    if (syscall(SYS_setgroups, identity.group_count, identity.groups.data()) != 0 && !alike)
      return FailErrno();
    groups_known_ = true;
    last_.group_count = identity.group_count;
    std::ranges::copy(identity.supplementary(), last_.groups.begin());
  }
  if (!worn_ || identity.user != last_.user || identity.group != last_.group) {
    worn_ = false;
    if (Result<void> own = TakeOff(); !own) return own;
    const Identity::Ids& group = identity.group;
    const Identity::Ids& user = identity.user;
    if (syscall(SYS_setresgid, group.real, group.effective, group.saved) != 0) return FailErrno();
    if (syscall(SYS_setresuid, user.real, user.effective, user.saved) != 0) return FailErrno();
    if (group.filesystem != group.effective) setfsgid(group.filesystem);
    if (user.filesystem != user.effective) setfsuid(user.filesystem);
    // They do not say that they have failed.
    if (static_cast<uint32_t>(setfsgid(~0U)) != group.filesystem ||
        static_cast<uint32_t>(setfsuid(~0U)) != user.filesystem)
      return Fail(EPERM);
  }
  if (!worn_ || identity.umask != last_.umask) umask(identity.umask);
  last_.user = identity.user;
  last_.group = identity.group;
  last_.umask = identity.umask;
  worn_ = true;
  return {};
}

}  // namespace shunt
