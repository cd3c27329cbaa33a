// SPDX-License-Identifier: Apache-2.0
// The log of the tools: spdlog behind five names. Only tools log; what lies below returns errors or counts.
//
// Lines go to standard error. Everything in them is made harmless (harmless.h) at this one door, whatever a
// container or a runtime puts into a name. Start() comes first; the rest may be called from any thread.

#pragma once

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "tools/harmless.h"

namespace shunt::log {

enum class Level { kDebug, kInfo, kWarning, kError };

inline void SetLevel(Level level) {
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                   spdlog::level::warn, spdlog::level::err};
  spdlog::set_level(kLevels[static_cast<int>(level)]);
}

inline void Start(Level level) {
  auto logger =
      std::make_shared<spdlog::logger>("shunt", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  // The journal writes the time itself.
  logger->set_pattern(std::getenv("JOURNAL_STREAM") != nullptr ? "%l: %v"
                                                               : "%Y-%m-%dT%H:%M:%S.%e%z %^%l%$: %v");
  spdlog::set_default_logger(std::move(logger));
  SetLevel(level);
}

// What a Status says, in a form that the functions below can print.
inline std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

// One argument of a line as it is printed: texts are cut, so that none pushes the others out of it.
template <typename T>
decltype(auto) Printed(T&& argument) {
  if constexpr (std::is_convertible_v<T, std::string_view>) {
    return Shortened(argument, kLongestText);
  } else {
    return std::forward<T>(argument);
  }
}

template <typename... Args>
void Write(spdlog::level::level_enum level, fmt::format_string<Args...> format, Args&&... args) {
  if (!spdlog::should_log(level)) return;
  const std::string line = fmt::format(fmt::runtime(format), Printed(std::forward<Args>(args))...);
  spdlog::default_logger_raw()->log(level, spdlog::string_view_t(Harmless(line)));
}

template <typename... Args>
void Debug(fmt::format_string<Args...> format, Args&&... args) {
  Write(spdlog::level::debug, format, std::forward<Args>(args)...);
}
template <typename... Args>
void Info(fmt::format_string<Args...> format, Args&&... args) {
  Write(spdlog::level::info, format, std::forward<Args>(args)...);
}
template <typename... Args>
void Warning(fmt::format_string<Args...> format, Args&&... args) {
  Write(spdlog::level::warn, format, std::forward<Args>(args)...);
}
template <typename... Args>
void Error(fmt::format_string<Args...> format, Args&&... args) {
  Write(spdlog::level::err, format, std::forward<Args>(args)...);
}

}  // namespace shunt::log
