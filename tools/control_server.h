// SPDX-License-Identifier: Apache-2.0
// ControlServer: the engine's end of `shunt ctl`. A client sends one line, a command, and gets one line of
// JSON.
//
// Only root and our own user may ask (core/peer.h). What they may say is bounded, and how many there are; the
// oldest goes when there are too many. An answer that is longer than the socket's buffer goes out as the
// client reads it. Control thread, and nothing blocks.

#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/peer.h"

namespace shunt {

class ControlServer {
 public:
  // Returns the answer to a command, or nothing if it comes later, by AnswerWaiting().
  using Answer = std::function<std::string(const std::string& command)>;

  static absl::StatusOr<std::unique_ptr<ControlServer>> Start(Fd socket, Answer answer);

  int event_fd() const { return epoll_.get(); }
  void HandleEvents();

  // To all whose command had no answer yet.
  void AnswerWaiting(const std::string& text);

 private:
  struct Connection {
    Fd socket;
    std::string command;
    bool waiting = false;  // for its answer
    std::string answer;    // all of it, as long as some is to be sent
    size_t sent = 0;
  };
  using Connections = std::list<Connection>;  // the oldest first

  ControlServer(Fd socket, Answer answer) : socket_(std::move(socket)), answer_(std::move(answer)) {}
  void Accept();
  void Read(Connections::iterator connection);
  // Each may erase the connection.
  void Begin(Connections::iterator connection, std::string answer);
  void Send(Connections::iterator connection);

  Fd socket_;
  const Answer answer_;
  Fd epoll_;
  Connections connections_;
};

}  // namespace shunt
