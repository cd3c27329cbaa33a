# What every target of the project shares: warnings, sanitizers, and the two functions that add a library or a test.

add_library(shunt_flags INTERFACE)
target_include_directories(shunt_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(shunt_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>  # GCC 12 sees it in libstdc++'s own strings at -O3
  $<$<BOOL:${SHUNT_WERROR}>:-Werror>)
if(SHUNT_SANITIZE)
  target_compile_options(shunt_flags INTERFACE -fsanitize=${SHUNT_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(shunt_flags INTERFACE -fsanitize=${SHUNT_SANITIZE})
  # With the checks in between, GCC 12 takes the matching operator delete of a coroutine's promise for a stranger.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(shunt_flags INTERFACE -Wno-mismatched-new-delete)
  else()
    # clang 14 cannot put the check of function types before a coroutine. The check of virtual tables opens a pipe, which
    # fails where tests take the descriptors or the right to open any.
    target_compile_options(shunt_flags INTERFACE -fno-sanitize=function,vptr)
  endif()
  # Fuzzers tell theirs on standard error.
  if(NOT SHUNT_FUZZ)
    # Reports are files here, written by whoever finds something; tests/reports.cmake looks for them.
    set(SHUNT_REPORTS ${CMAKE_BINARY_DIR}/reports)
    file(MAKE_DIRECTORY ${SHUNT_REPORTS})
    file(CHMOD ${SHUNT_REPORTS} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_WRITE GROUP_EXECUTE
      WORLD_READ WORLD_WRITE WORLD_EXECUTE)
    add_library(shunt_sanitizer_options OBJECT ${CMAKE_CURRENT_LIST_DIR}/sanitizer_options.cc)
    target_compile_definitions(shunt_sanitizer_options PRIVATE SHUNT_REPORTS="${SHUNT_REPORTS}")
    # The object itself: the sanitizers' own functions are weak, and no archive would be asked for better ones.
    target_link_libraries(shunt_flags INTERFACE $<TARGET_OBJECTS:shunt_sanitizer_options>)
  endif()
endif()

if(SHUNT_FUZZ)
  target_compile_options(shunt_flags INTERFACE -fsanitize=fuzzer-no-link)
  # For tools/fuzz --coverage.
  target_compile_options(shunt_flags INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(shunt_flags INTERFACE -fprofile-instr-generate)
endif()

# shunt_library(NAME [libraries it stands on...]): all .cc files of the current folder and of the folders in it as one
# static library.
function(shunt_library name)
  file(GLOB sources CONFIGURE_DEPENDS *.cc */*.cc)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC shunt_flags ${ARGN})
  shunt_compile_together(${name})
endfunction()

# With SHUNT_COMPILE_TOGETHER, headers and what is instantiated from them are compiled once for several sources. A source
# that has a name in common with another, in their unnamed namespaces, is compiled alone (SKIP_UNITY_BUILD_INCLUSION): when
# the compiler finds such a pair, that is the place to say so, the names need not change.
function(shunt_compile_together name)
  if(SHUNT_COMPILE_TOGETHER)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 24)
    # To GCC every source that is compiled with others is a header, in which unnamed namespaces are suspicious.
    target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
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
  shunt_compile_together(${target})
  gtest_discover_tests(${target} PROPERTIES LABELS ${label} TIMEOUT 120 DISCOVERY_TIMEOUT 60)
endfunction()
