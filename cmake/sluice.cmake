# Warnings, sanitizers, and the functions that declare a core library and a test.

add_compile_options(-Wall -Wextra -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>)
if(SLUICE_WERROR)
  add_compile_options(-Werror)
endif()

if(SLUICE_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(SLUICE_SANITIZE STREQUAL "thread")
  # Asio has fences, which the sanitizer does not model and gcc says so of each.
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-tsan>)
  add_link_options(-fsanitize=thread)
elseif(SLUICE_SANITIZE)
  message(FATAL_ERROR "SLUICE_SANITIZE is '${SLUICE_SANITIZE}'; it must be empty, 'address' or 'thread'")
endif()

# sluice_core_library(kv SOURCES block_pool.cpp DEPS sluice_core_base)
# A room of core/ is a static library of its own: what it links is what it may include.
function(sluice_core_library name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_library(sluice_core_${name} STATIC ${A_SOURCES})
  target_include_directories(sluice_core_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(sluice_core_${name} PUBLIC ${A_DEPS})
endfunction()

# The tests that are worth running under ThreadSanitizer: those with the label `threads`.
add_custom_target(sluice_thread_tests)

# sluice_test(core_kv SOURCES block_pool_test.cpp LIBS sluice_core_kv [LABELS e2e])
function(sluice_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  add_executable(${name}_test ${A_SOURCES})
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name}_test PRIVATE ${A_LIBS} GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE
    SLUICE_SHARED_DATA="${PROJECT_SOURCE_DIR}/../shared/data"
    SLUICE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    SLUICE_PLUGIN_DIR="${PROJECT_BINARY_DIR}/lib/sluice/plugins")
  if("threads" IN_LIST A_LABELS)
    add_dependencies(sluice_thread_tests ${name}_test)
  endif()
  set(properties TIMEOUT ${A_TIMEOUT})
  if(A_LABELS)
    list(APPEND properties LABELS "${A_LABELS}")
  endif()
  gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST PROPERTIES ${properties})
endfunction()
