# What every target of the project shares: warnings, sanitizers, and the two functions that add a library or a test.

add_library(shunt_flags INTERFACE)
target_include_directories(shunt_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(shunt_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>  # GCC 12 sees it in libstdc++'s own strings at -O3
  $<$<BOOL:${SHUNT_WERROR}>:-Werror>)
if(SHUNT_SANITIZE)
  target_compile_options(shunt_flags INTERFACE -fsanitize=${SHUNT_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(shunt_flags INTERFACE -fsanitize=${SHUNT_SANITIZE})
  # With the checks in between, GCC 12 takes the matching operator delete of a coroutine's promise for a stranger.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(shunt_flags INTERFACE -Wno-mismatched-new-delete)
  endif()
endif()

if(SHUNT_FUZZ)
  # clang 14 cannot put the check of function types before a coroutine.
  target_compile_options(shunt_flags INTERFACE -fsanitize=fuzzer-no-link -fno-sanitize=function)
  # For tools/fuzz --coverage.
  target_compile_options(shunt_flags INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(shunt_flags INTERFACE -fprofile-instr-generate)
endif()

# shunt_library(NAME [libraries it stands on...]): all .cc files of the current folder as one static library.
function(shunt_library name)
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC shunt_flags ${ARGN})
endfunction()

# shunt_tests(LABEL [libraries...]): every *_test.cc of the current folder, one binary, one ctest entry per test case.
function(shunt_tests label)
  file(GLOB sources CONFIGURE_DEPENDS *_test.cc)
  if(NOT sources)
    return()
  endif()
  set(target test_${label})
  add_executable(${target} ${sources})
  target_link_libraries(${target} PRIVATE shunt_flags ${ARGN} GTest::gtest GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${target} PROPERTIES LABELS ${label} TIMEOUT 120 DISCOVERY_TIMEOUT 60)
endfunction()
