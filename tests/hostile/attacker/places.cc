// SPDX-License-Identifier: Apache-2.0
// Words that have the rest of the script done elsewhere: in another process, with another identity, in other
// namespaces, by another program.

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>

#include "tests/hostile/attacker/attacker.h"

namespace attacker {
namespace {

constexpr int kNotesMs = 4000;

std::string ReadAll(int pipe_fd) {
  std::string text;
  std::array<char, 1024> buffer;
  pollfd readable{.fd = pipe_fd, .events = POLLIN, .revents = 0};
  while (poll(&readable, 1, kNotesMs) == 1) {
    const ssize_t got = read(pipe_fd, buffer.data(), buffer.size());
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.back() == '\n') break;
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool OwnNamespaces(Attack& attack) {
  return Note(attack, "unshare", unshare(CLONE_NEWUSER | CLONE_NEWNET));
}

bool OwnUsers(Attack& attack) {
  return Note(attack, "unshare", unshare(CLONE_NEWUSER));
}

bool OtherUser(Attack& attack) {
  return Note(attack, "setresuid", setresgid(1000, 1000, 1000) == 0 ? setresuid(1000, 1000, 1000) : -1);
}

bool Undumpable(Attack& attack) {
  return Note(attack, "undumpable", prctl(PR_SET_DUMPABLE, 0));
}

sockaddr_un Path(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

struct VforkedScript {
  Attack* attack;
  size_t rest;
};

int RunVforked(void* argument) {
  const auto* const script = static_cast<VforkedScript*>(argument);
  Run(*script->attack, script->rest);
  _exit(0);
}

// In a child that shares our memory and stops us until it is through; it has our descriptors' numbers for
// itself.
void RunVfork(Attack& attack, size_t rest) {
  static std::array<char, 1 << 18> stack;
  VforkedScript script{.attack = &attack, .rest = rest};
  const pid_t child =
      clone(RunVforked, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD, &script);
  if (child > 0) waitpid(child, nullptr, 0);
  Note(attack, "vfork", child);
}

// In a thread that has a descriptor table of its own, where the number means what it meant; here it means a
// pipe then.
void RunApart(Attack& attack, size_t rest) {
  std::thread apart([&] {
    if (!Note(attack, "apart", unshare(CLONE_FILES))) return;
    Run(attack, rest);
  });
  apart.join();
}

std::string ScriptFrom(const Attack& attack, size_t rest) {
  std::string text;
  for (size_t i = rest; i < attack.script.size(); ++i) text += (text.empty() ? "" : " ") + attack.script[i];
  return text;
}

}  // namespace

void RunInChild(Attack& attack, size_t rest, unsigned long fork_flags, bool (*before)(Attack&)) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  const auto child =
      static_cast<pid_t>(syscall(SYS_clone, fork_flags | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (child == 0) {
    attack.notes.clear();
    if (before == nullptr || before(attack)) Run(attack, rest);
    attack.notes += "\n";
    if (write(ends[1], attack.notes.data(), attack.notes.size()) < 0) _exit(1);
    while (true) pause();
  }
  if (child > 0) attack.notes += ReadAll(ends[0]);
}

void Execute(Attack& attack, size_t rest, const std::string& program) {
  fcntl(attack.fd, F_SETFD, 0);
  const std::string number = std::to_string(attack.fd);
  const std::string target(reinterpret_cast<const char*>(&attack.target), sizeof(attack.target));
  std::string hex;
  for (const char c : target) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  const std::string script = ScriptFrom(attack, rest);
  int ends[2];
  if (pipe(ends) != 0) return;
  const std::string out = std::to_string(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    execl(program.c_str(), "attacker", "go-on", number.c_str(), hex.c_str(), script.c_str(), out.c_str(),
          nullptr);
    const std::string failure = " exec=" + std::to_string(errno) + "\n";
    if (write(ends[1], failure.data(), failure.size()) < 0) _exit(1);
    _exit(1);
  }
  attack.notes += ReadAll(ends[0]);
}

bool PlaceWord(Attack& attack, const std::string& word, size_t rest) {
  if (word == "child") {
    RunInChild(attack, rest, 0, nullptr);
  } else if (word == "netns") {
    RunInChild(attack, rest, 0, OwnNamespaces);
  } else if (word == "files-netns") {
    RunInChild(attack, rest, CLONE_FILES, OwnNamespaces);
  } else if (word == "userns") {
    RunInChild(attack, rest, 0, OwnUsers);
  } else if (word == "nobody") {
    RunInChild(attack, rest, 0, OtherUser);
  } else if (word == "undumpable") {
    RunInChild(attack, rest, 0, Undumpable);
  } else if (word == "vfork") {
    RunVfork(attack, rest);
  } else if (word == "apart") {
    RunApart(attack, rest);
  } else if (word.rfind("exec:", 0) == 0) {
    Execute(attack, rest, word.substr(5));
  } else if (word.rfind("pass:", 0) == 0) {
    Pass(attack, rest, word.substr(5));
  } else {
    return false;
  }
  return true;
}

void Pass(Attack& attack, size_t rest, const std::string& path) {
  const int channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const sockaddr_un address = Path(path);
  if (!Note(attack, "pass", connect(channel, reinterpret_cast<const sockaddr*>(&address), sizeof(address))))
    return;
  std::string letter(reinterpret_cast<const char*>(&attack.target), sizeof(attack.target));
  letter += ScriptFrom(attack, rest);
  iovec data{.iov_base = letter.data(), .iov_len = letter.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &attack.fd, sizeof(int));
  if (!Note(attack, "sendmsg", sendmsg(channel, &message, 0))) return;
  attack.notes += ReadAll(channel);
}

namespace {

// Serves one sender until it closes.
void ReceiveOne(int channel) {
  std::array<char, 4096> letter;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec data{.iov_base = letter.data(), .iov_len = letter.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(channel, &message, 0);
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  Attack attack;
  if (got < static_cast<ssize_t>(sizeof(attack.target)) || header == nullptr) return;
  memcpy(&attack.fd, CMSG_DATA(header), sizeof(int));
  memcpy(&attack.target, letter.data(), sizeof(attack.target));
  std::string word;
  for (ssize_t i = sizeof(attack.target); i <= got; ++i) {
    const char c = i < got ? letter[static_cast<size_t>(i)] : ' ';
    if (c != ' ') {
      word += c;
    } else if (!word.empty()) {
      attack.script.push_back(word);
      word.clear();
    }
  }
  Run(attack, 0);
  attack.notes += "\n";
  send(channel, attack.notes.data(), attack.notes.size(), MSG_NOSIGNAL);
  char end;
  while (recv(channel, &end, 1, 0) > 0) {
  }
}

}  // namespace

int Receive(const std::string& path) {
  signal(SIGCHLD, SIG_IGN);
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const sockaddr_un address = Path(path);
  unlink(path.c_str());
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return 1;
  if (listen(listener, 8) != 0) return 1;
  while (true) {
    const int channel = accept(listener, nullptr, nullptr);
    if (channel < 0) continue;
    if (fork() == 0) {
      close(listener);
      ReceiveOne(channel);
      _exit(0);
    }
    close(channel);
  }
}

}  // namespace attacker
