// SPDX-License-Identifier: Apache-2.0
#include "tools/pod_template.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace shunt {
namespace {

constexpr absl::string_view kBlanks = " \t\r\n";  // what Go's template lexer takes for blanks
constexpr absl::string_view kLeft = "{{";
constexpr absl::string_view kRight = "}}";

bool IsBlank(char c) {
  return kBlanks.find(c) != absl::string_view::npos;
}

absl::string_view WithoutBlanksBefore(absl::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  return first == absl::string_view::npos ? absl::string_view() : text.substr(first);
}

absl::string_view WithoutBlanksBehind(absl::string_view text) {
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

std::optional<std::string> FieldOf(const PodContext& context, absl::string_view name) {
  if (name == ".Namespace") return context.identity.pod_namespace;
  if (name == ".Pod") return context.identity.pod;
  if (name == ".Container") return context.identity.container;
  if (name == ".Pid") return std::to_string(context.pid);
  if (name == ".Pid1") return std::to_string(context.pid1);
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::string> ExpandPodTemplate(absl::string_view text, const PodContext& context) {
  std::string result;
  while (true) {
    const size_t left = text.find(kLeft);
    if (left == absl::string_view::npos) return result.append(text.data(), text.size());
    absl::string_view before = text.substr(0, left);
    const size_t right = text.find(kRight, left);
    if (right == absl::string_view::npos)
      return absl::InvalidArgumentError(absl::StrCat("\"", text.substr(left), "\" has no closing }}"));
    const absl::string_view whole = text.substr(left, right + kRight.size() - left);
    absl::string_view action = text.substr(left + kLeft.size(), right - left - kLeft.size());
    text.remove_prefix(right + kRight.size());
    // A marker is a minus with a blank on its inner side; without the blank, Go takes it for something else.
    if (action.size() >= 2 && action[0] == '-' && IsBlank(action[1])) {
      action.remove_prefix(2);
      before = WithoutBlanksBehind(before);
    }
    if (action.size() >= 2 && action.back() == '-' && IsBlank(action[action.size() - 2])) {
      action.remove_suffix(2);
      text = WithoutBlanksBefore(text);
    }
    const std::optional<std::string> field =
        FieldOf(context, WithoutBlanksBehind(WithoutBlanksBefore(action)));
    if (!field) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", whole,
                       "\" cannot be expanded: there are {{.Namespace}}, {{.Pod}}, {{.Container}}, {{.Pid}} "
                       "and {{.Pid1}}, and nothing else of the template language"));
    }
    result.append(before.data(), before.size());
    result += *field;
  }
}

}  // namespace shunt
