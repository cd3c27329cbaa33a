// SPDX-License-Identifier: Apache-2.0
// Reply: what to answer to a trapped call. A value, so that a handler decides and only the reactor acts.

#pragma once

#include <cstdint>

#include "core/result.h"

namespace shunt {

class [[nodiscard]] Reply {
 public:
  enum class Kind : uint8_t {
    kReturn,    // the call returns value()
    kFail,      // the call fails with errno value()
    kContinue,  // the kernel runs the call as if it had not been trapped
    kSent,      // answered already, together with a descriptor (Listener::InstallAndAnswer)
    kGone,      // the caller has left: there is nobody to answer
    kLater,     // a task of the reactor's holds the call now and answers it
    kAgain,     // the target got no CPU in time and nothing has happened: the handler is to be called again
  };

  static constexpr Reply Return(int64_t value) { return {Kind::kReturn, value}; }
  static constexpr Reply Fail(Errno error) { return {Kind::kFail, error.code}; }
  static constexpr Reply Fail(int error) { return {Kind::kFail, error}; }
  // Never a security decision: other threads of the target can rewrite what its pointers point at before the
  // kernel reads it again. Right only where the kernel alone, with the target's own privilege, decides.
  static constexpr Reply Continue() { return {Kind::kContinue, 0}; }
  // `error`: the errno that was sent; 0: none.
  static constexpr Reply Sent(int error = 0) { return {Kind::kSent, error}; }
  static constexpr Reply Gone() { return {Kind::kGone, 0}; }
  static constexpr Reply Later() { return {Kind::kLater, 0}; }
  // `error`: with which the call fails if it cannot be put off any longer; 0: the kernel runs it then.
  static constexpr Reply Again(int error = 0) { return {Kind::kAgain, error}; }
  constexpr Reply otherwise() const { return value_ == 0 ? Continue() : Fail(static_cast<int>(value_)); }

  constexpr Kind kind() const { return kind_; }
  constexpr int64_t value() const { return value_; }
  // With which the call fails; 0: it does not.
  constexpr int error() const {
    return kind_ == Kind::kFail || kind_ == Kind::kSent ? static_cast<int>(value_) : 0;
  }

 private:
  constexpr Reply(Kind kind, int64_t value) : kind_(kind), value_(value) {}

  Kind kind_;
  int64_t value_;
};
static_assert(sizeof(Reply) == 16);  // travels in two registers

}  // namespace shunt
