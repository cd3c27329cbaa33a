// SPDX-License-Identifier: Apache-2.0
// The hostile program that tests/hostile/attack_test.py runs inside containers, and natively to see that its
// attacks are some.
//
// An attack is a script: words that are done one after the other to one socket. A word that leads elsewhere
// (another thread, another program, another process that gets the socket by a message) has the rest done
// there. So every way to get a loose socket of the host's meets every way to aim it, and every place to do
// that in.
//
// What comes back is a note for each word: its name, and "ok" or the errno. Whether an attack got through is
// not for the attacker to say: the test counts at the victim's end.

#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

namespace attacker {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "192.0.2.1:80" or "[2001:db8::1]:80".
Address ParseAddress(const std::string& text);

// One attack that is going on.
struct Attack {
  Address target;
  std::vector<std::string> script;
  int fd = -1;  // the socket that it is about
  std::string notes;
};

// Adds " WORD=RESULT". `result` as system calls give it: -1 and errno, or success. True for success.
bool Note(Attack& attack, const std::string& word, long result);

// Does the words from `at` on.
void Run(Attack& attack, size_t at);

// One file each for the words: false if `word` is none of its own. `rest` is where the script goes on.
bool SocketWord(Attack& attack, const std::string& word);  // makes a socket, moves it, gets it loose
bool AimingWord(Attack& attack, const std::string& word);  // ways to connect
bool TakingWord(Attack& attack, const std::string& word);  // ways to bind, to listen, to set what is not ours
bool PlaceWord(Attack& attack, const std::string& word, size_t rest);  // elsewhere
bool IdentityWord(Attack& attack, const std::string& word, size_t rest);

// The rest of a script in a process that `fork_flags` of clone(2) make; `before` runs in it first. It stays
// there, holding what it has, until the attack is over.
void RunInChild(Attack& attack, size_t rest, unsigned long fork_flags, bool (*before)(Attack&));

// Executes `program`, this one under another name, with the rest of the script.
void Execute(Attack& attack, size_t rest, const std::string& program);

// Receives sockets and scripts on an AF_UNIX path, and does them. For ever.
int Receive(const std::string& path);
// Sends the socket and the rest of the script there, and waits for the notes.
void Pass(Attack& attack, size_t rest, const std::string& path);

// What calls of a 32-bit program and of io_uring come to; -1 and errno like any.
long Int80(long number, long first, long second, long third, long fourth = 0, long fifth = 0, long sixth = 0);

// A copy of `bytes` that the program can read and others cannot: in memory that is mapped for writing only.
void* BlindCopy(const void* bytes, size_t size);
// A copy below 4 GiB, for 32-bit calls.
uint32_t LowCopy(const void* bytes, size_t size);

// The peers that every container may reach, from the environment (ALLOWED4, ALLOWED6), by the target's
// family.
Address Allowed(const Attack& attack);

}  // namespace attacker
