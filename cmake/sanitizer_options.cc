// SPDX-License-Identifier: Apache-2.0
// What the sanitizers do in every program of a sanitized build: the first report ends the process by SIGABRT,
// so that no test can pass over it, and goes to a file, because tests read the standard error of some
// programs and throw that of others away. Functions and not the environment, which sudo and containers'
// runtimes drop; ASAN_OPTIONS and friends still come after.

#define SHUNT_REPORT_OPTIONS "halt_on_error=1:abort_on_error=1:print_stacktrace=1:log_path=" SHUNT_REPORTS

extern "C" {
const char* __asan_default_options();
const char* __lsan_default_options();
const char* __tsan_default_options();
const char* __tsan_default_suppressions();
const char* __ubsan_default_options();

const char* __asan_default_options() {
  return SHUNT_REPORT_OPTIONS "/address";
}
const char* __lsan_default_options() {
  return "exitcode=23:print_suppressions=0";
}
const char* __tsan_default_options() {
  return SHUNT_REPORT_OPTIONS "/thread";
}
// ThreadSanitizer takes descriptor numbers for the process's; a side thread has a table of its own, so its 5
// is another.
const char* __tsan_default_suppressions() {
  return "race_top:close\nrace_top:__interceptor_close\nrace_top:epoll_wait\n";
}
const char* __ubsan_default_options() {
  return SHUNT_REPORT_OPTIONS "/undefined";
}
}
