// SPDX-License-Identifier: Apache-2.0
// The program: a server of attacks for the test, the receiver of sockets, and the bystander that attacks
// nobody.
//
//   attacker serve                 reads "TARGET WORD..." from its input, answers with one line of notes, and
//   keeps
//                                  what the attack holds until it reads the next line
//   attacker receive PATH          does what comes with a socket by a message
//   attacker bystander PORT        connects in a loop, and serves on PORT, if that is not 0; says at the end
//   of its
//                                  input how many calls it has made and what became of them

#include "tests/hostile/attacker/attacker.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <thread>

namespace attacker {

bool Note(Attack& attack, const std::string& word, long result) {
  attack.notes += " " + word + "=" + (result < 0 ? strerrorname_np(errno) : "ok");
  return result >= 0;
}

void Run(Attack& attack, size_t at) {
  for (size_t i = at; i < attack.script.size(); ++i) {
    const std::string word = attack.script[i];
    if (PlaceWord(attack, word, i + 1)) return;
    if (IdentityWord(attack, word, i + 1) || SocketWord(attack, word) || TakingWord(attack, word) ||
        AimingWord(attack, word)) {
      continue;
    }
    attack.notes += " UNKNOWN-WORD:" + word;
    return;
  }
}

namespace {

constexpr int kAttackMs = 15'000;

std::vector<std::string> Words(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// Does one attack in a process group of its own and prints the notes. The group's leader.
pid_t Start(const std::vector<std::string>& words) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t leader = fork();
  if (leader == 0) {
    setpgid(0, 0);
    close(ends[0]);
    Attack attack{.target = ParseAddress(words[0]), .script = {words.begin() + 1, words.end()}};
    Run(attack, 0);
    attack.notes += "\n";
    if (write(ends[1], attack.notes.data(), attack.notes.size()) < 0) _exit(1);
    while (true) pause();
  }
  setpgid(leader, leader);
  close(ends[1]);
  std::string notes;
  std::array<char, 4096> buffer;
  pollfd readable{.fd = ends[0], .events = POLLIN, .revents = 0};
  while (notes.empty() || notes.back() != '\n') {
    const ssize_t got = poll(&readable, 1, kAttackMs) == 1 ? read(ends[0], buffer.data(), buffer.size()) : 0;
    if (got <= 0) {
      notes += " HANGS-OR-DIED\n";
      break;
    }
    notes.append(buffer.data(), static_cast<size_t>(got));
  }
  close(ends[0]);
  std::cout << notes << std::flush;
  return leader;
}

int Serve() {
  std::cout << "ready\n" << std::flush;
  for (std::string line; std::getline(std::cin, line);) {
    const pid_t leader = Start(Words(line));
    std::getline(std::cin, line);
    if (leader > 0) {
      kill(-leader, SIGKILL);
      waitpid(leader, nullptr, 0);
    }
    // As pid 1 of a container we inherit the others.
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    std::cout << "done\n" << std::flush;
  }
  return 0;
}

// What Execute() has started.
int GoOn(char** arguments) {
  Attack attack{.fd = atoi(arguments[0])};
  auto* const bytes = reinterpret_cast<unsigned char*>(&attack.target);
  for (size_t i = 0; i < sizeof(attack.target); ++i) {
    const char digits[3] = {arguments[1][2 * i], arguments[1][2 * i + 1], '\0'};
    bytes[i] = static_cast<unsigned char>(strtoul(digits, nullptr, 16));
  }
  attack.script = Words(arguments[2]);
  Run(attack, 0);
  attack.notes += "\n";
  if (write(atoi(arguments[3]), attack.notes.data(), attack.notes.size()) < 0) return 1;
  while (true) pause();
}

// 0, or what went wrong with one call.
int Call(const Address& peer) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = 5, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  errno = 0;
  const auto token = static_cast<uint64_t>(getpid()) << 32 | static_cast<uint32_t>(random());
  uint64_t answer = 0;
  int error = 0;
  if (connect(fd, peer.get(), peer.size) != 0 || write(fd, &token, sizeof(token)) != sizeof(token) ||
      recv(fd, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer)) {
    error = errno == 0 ? EPIPE : errno;
  } else if (answer != token) {
    error = EBADMSG;
  }
  close(fd);
  return error;
}

// In a group of which it is the only member.
int ListenOn(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
  const Address address = ParseAddress("0.0.0.0:" + std::to_string(port));
  if (bind(listener, address.get(), address.size) != 0 || listen(listener, 128) != 0) {
    std::printf("cannot serve: %s\n", strerror(errno));
    exit(1);
  }
  return listener;
}

// Answers whoever comes.
void Answer(int listener) {
  while (true) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    if (write(client, "served\n", 7) < 0) continue;
    close(client);
  }
}

int Bystand(int port) {
  const Address peer = ParseAddress(getenv("ALLOWED4"));
  if (port != 0) std::thread(Answer, ListenOn(port)).detach();
  std::printf("ready\n");
  std::fflush(stdout);
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  int calls = 0, lost = 0, last_error = 0;
  // Every call by a process of its own, whose number somebody else may have had a moment ago.
  while (poll(&input, 1, 2) == 0) {
    const pid_t child = fork();
    if (child == 0) _exit(Call(peer));
    int status = 0;
    waitpid(child, &status, 0);
    ++calls;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    ++lost;
    last_error = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::printf("calls %d lost %d last %s\n", calls, lost,
              last_error < 0 ? "killed" : strerrorname_np(last_error));
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  signal(SIGPIPE, SIG_IGN);
  if (what == "serve") return Serve();
  if (what == "nothing") return 0;
  if (what == "receive" && argc == 3) return Receive(argv[2]);
  if (what == "bystander" && argc == 3) return Bystand(atoi(argv[2]));
  if (what == "go-on" && argc == 6) return GoOn(argv + 2);
  std::fprintf(stderr, "attacker: see the top of attacker.cc for how it is used\n");
  return 2;
}

}  // namespace
}  // namespace attacker

int main(int argc, char** argv) {
  return attacker::Main(argc, argv);
}
