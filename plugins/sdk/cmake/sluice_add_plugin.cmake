# sluice_add_plugin(TARGET KIND sampler NAME greedy SOURCES a.c b.cpp [LIBS x y] [OUTPUT_DIRECTORY dir] [NO_INSTALL])
#
# Builds libsluice_<kind>_<name>.so. The library exports the entry symbol alone (so two plugins never see each other's
# code), has no undefined symbol left (found at link time instead of at load), and is installed where the server looks.
# KIND  backend, engine, scheduler, sampler or decoder
# NAME  what TOML calls it; the same as in the plugin's descriptor
# LIBS  static or system libraries; Sluice::sdk comes by itself
#
# With find_package(Sluice) and enable_testing(), ctest tries the library with `sluice plugins check`.
function(sluice_add_plugin target)
  cmake_parse_arguments(A "NO_INSTALL" "KIND;NAME;OUTPUT_DIRECTORY" "SOURCES;LIBS" ${ARGN})
  if(A_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "sluice_add_plugin(${target}): unknown argument '${A_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT A_KIND MATCHES "^(backend|engine|scheduler|sampler|decoder)$")
    message(FATAL_ERROR "sluice_add_plugin(${target}): KIND is '${A_KIND}'; it must be backend, engine, scheduler, "
                        "sampler or decoder")
  endif()
  if(NOT A_NAME MATCHES "^[a-z0-9_-]+$")
    message(FATAL_ERROR "sluice_add_plugin(${target}): NAME is '${A_NAME}'; it must consist of a-z, 0-9, _ and -")
  endif()
  if(NOT A_SOURCES)
    message(FATAL_ERROR "sluice_add_plugin(${target}): SOURCES is empty")
  endif()

  set(map "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/sluice_plugin.map")
  add_library(${target} MODULE ${A_SOURCES})
  target_link_libraries(${target} PRIVATE Sluice::sdk ${A_LIBS})
  set_target_properties(${target} PROPERTIES
    PREFIX "" SUFFIX ".so" OUTPUT_NAME "libsluice_${A_KIND}_${A_NAME}"
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON LINK_DEPENDS "${map}")
  # Unique symbols are shared by all libraries of a process, hidden or not, and pin a library for good.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)
  target_link_options(${target} PRIVATE "-Wl,--version-script=${map}" -Wl,--exclude-libs,ALL)
  # Clang leaves the sanitizer's symbols to the executable.
  get_directory_property(directory_link_options LINK_OPTIONS)
  if(NOT ("${directory_link_options} ${CMAKE_CXX_FLAGS}" MATCHES "-fsanitize" AND CMAKE_CXX_COMPILER_ID MATCHES "Clang"))
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()

  get_property(shared_output GLOBAL PROPERTY SLUICE_PLUGIN_OUTPUT_DIRECTORY)
  if(A_OUTPUT_DIRECTORY)
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${A_OUTPUT_DIRECTORY}")
  elseif(shared_output)
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${shared_output}")
    set_property(GLOBAL APPEND PROPERTY SLUICE_PLUGIN_TARGETS ${target})
  endif()
  # In Sluice's own tree the program does not exist yet here; tests/core/conformance does the same there.
  if(Sluice_EXECUTABLE)
    add_test(NAME ${target}_check COMMAND ${Sluice_EXECUTABLE} plugins check $<TARGET_FILE:${target}>)
  endif()
  if(NOT A_NO_INSTALL)
    install(TARGETS ${target} LIBRARY DESTINATION lib/sluice/plugins)
  endif()
endfunction()
