# Does what plugins/sdk/README.md tells an author to do: installs the headers, takes the two files from the page, builds
# them out of tree, and looks at the library. Also the line without CMake.
#   cmake -DREADME=... -DBUILD=<top build folder> -DWORK=<scratch> -DCXX=<compiler> -P readme_test.cmake
cmake_minimum_required(VERSION 3.25)

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${what} failed (${code}):\n${out}")
  endif()
  set(run_output "${out}" PARENT_SCOPE)
endfunction()

# The one block of the page that is fenced with ```LANGUAGE.
function(take_block language file)
  file(READ ${README} page)
  string(FIND "${page}" "```${language}\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "the README has no ${language} block")
  endif()
  string(LENGTH "```${language}\n" fence)
  math(EXPR begin "${begin} + ${fence}")
  string(SUBSTRING "${page}" ${begin} -1 rest)
  string(FIND "${rest}" "\n```" end)
  string(SUBSTRING "${rest}" 0 ${end} block)
  file(WRITE ${file} "${block}\n")
endfunction()

# What a library exports, one symbol a line.
function(check_exports library)
  run("nm" nm -D --defined-only ${library})
  string(STRIP "${run_output}" symbols)
  if(NOT symbols MATCHES "^[0-9a-f]+ T sluice_plugin_entry_v0$")
    message(FATAL_ERROR "${library} exports\n${symbols}\nand not the entry symbol alone")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run("installing the headers" ${CMAKE_COMMAND} --install ${BUILD}/plugins/sdk --prefix ${WORK}/sluice)
take_block(cpp ${WORK}/epsilon/epsilon.cpp)
take_block(cmake ${WORK}/epsilon/CMakeLists.txt)

run("configuring" ${CMAKE_COMMAND} -S ${WORK}/epsilon -B ${WORK}/epsilon/build -DCMAKE_CXX_COMPILER=${CXX}
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH=${WORK}/sluice)
run("building" ${CMAKE_COMMAND} --build ${WORK}/epsilon/build)
check_exports(${WORK}/epsilon/build/libsluice_sampler_epsilon.so)

run("the line without CMake" ${CXX} -std=c++17 -O2 -shared -fPIC -fvisibility=hidden -I ${WORK}/sluice/include
  ${WORK}/epsilon/epsilon.cpp -o ${WORK}/libsluice_sampler_epsilon.so)
run("pkg-config" ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${WORK}/sluice/lib/pkgconfig pkg-config --cflags sluice)
if(NOT run_output MATCHES "-I${WORK}/sluice/.*include")
  message(FATAL_ERROR "pkg-config names ${run_output}")
endif()

run("installing the plugin" ${CMAKE_COMMAND} --install ${WORK}/epsilon/build --prefix ${WORK}/sluice)
if(NOT EXISTS ${WORK}/sluice/lib/sluice/plugins/libsluice_sampler_epsilon.so)
  message(FATAL_ERROR "the plugin was not installed where the server looks")
endif()
