// SPDX-License-Identifier: Apache-2.0
// An answer of the API server, with any bytes: it is the pod that was asked for, or an error; and what a
// container waits with for such an answer comes back from the text that is held of it.

#include <string>

#include "core/check.h"
#include "tools/pod_record.h"
#include "tools/undecided.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const shunt::PodQuery queries[] = {{"prod", "web-1", ""}, {"prod", "web-1", "u1"}, {"", "", "u1"}};
  for (const shunt::PodQuery& query : queries) {
    const absl::StatusOr<shunt::PodRecord> record = shunt::ReadPod(text, query);
    if (!record.ok()) continue;
    SHUNT_CHECK(!record->pod.empty() && !record->pod_namespace.empty() && !record->uid.empty());
    if (query.has_names())
      SHUNT_CHECK(record->pod == query.pod && record->pod_namespace == query.pod_namespace);
    if (!query.uid.empty()) SHUNT_CHECK(record->uid == query.uid || record->mirror_of == query.uid);
    shunt::ContainerOrigin origin;
    shunt::AddRecord(*record, "0123", origin);
    SHUNT_CHECK(origin.identity.pod == record->pod && origin.labels == record->labels);
    shunt::Undecided container;
    container.origin = origin;
    container.state.annotations = record->annotations;
    const absl::StatusOr<shunt::Undecided> again = shunt::UndecidedFrom(shunt::ToText(container));
    SHUNT_CHECK(again.ok() && again->origin.labels == origin.labels);
    SHUNT_CHECK(again->state.annotations == record->annotations);
  }
  (void)shunt::RefusalIn(text);
  (void)shunt::UndecidedFrom(text);
  return 0;
}
