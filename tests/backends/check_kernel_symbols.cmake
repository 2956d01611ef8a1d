# Fails when a kernel object defines a global or weak symbol besides its table.
#   cmake -DNM=nm -DOBJECT=kernels_avx2.o -P check_kernel_symbols.cmake
execute_process(COMMAND ${NM} -C --defined-only --extern-only ${OBJECT} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "\n$" "" symbols "${symbols}")
string(REPLACE "\n" ";" symbols "${symbols}")
list(LENGTH symbols count)
if(NOT count EQUAL 1 OR NOT symbols MATCHES "sluice::cpu::k[A-Za-z0-9]+Kernels$")
  message(FATAL_ERROR "${OBJECT} must define one table and nothing else; it defines: ${symbols}")
endif()
