// SPDX-License-Identifier: Apache-2.0
// Whether this is a build with a sanitizer, which keeps freed memory for a while, takes its time, and is
// confined less.

#pragma once

namespace shunt {

#if defined(__has_feature)  // clang
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // GCC
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace shunt
