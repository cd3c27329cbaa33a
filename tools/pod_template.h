// SPDX-License-Identifier: Apache-2.0
// The part of Go's text/template that says who a container is: "-{{.Namespace}}-{{ .Pod }}", with the blanks
// and the trim markers ("{{- .Pid -}}") that Go takes. There are .Namespace, .Pod, .Container, .Pid (the
// process that came under the filter) and .Pid1 (the container's first), both as the runtime counts them. All
// else of the language is refused.

#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "handlers/policy.h"

namespace shunt {

// What templates can say.
struct PodContext {
  PodIdentity identity;
  pid_t pid = 0;
  pid_t pid1 = 0;
};

// What `text` says in `context`. The error quotes the action that is refused.
absl::StatusOr<std::string> ExpandPodTemplate(absl::string_view text, const PodContext& context);

}  // namespace shunt
