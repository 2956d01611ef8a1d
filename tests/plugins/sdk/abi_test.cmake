# Compares the types that cross the boundary, as the debug information of a plugin has them, with those of abi.xml.
#   cmake -DSUBJECT=FILE.so -DKNOWN=abi.xml -P abi_test.cmake
# After an intended change: abidw --drop-undefined-syms --no-corpus-path --no-comp-dir-path --no-show-locs SUBJECT > abi.xml
find_program(ABIDIFF abidiff)
if(NOT ABIDIFF)
  message("SKIPPED: abidiff is not installed (Debian: abigail-tools)")
  return()
endif()
execute_process(COMMAND ${ABIDIFF} --no-show-locs --harmless ${KNOWN} ${SUBJECT} RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "the ABI is not that of ${KNOWN} (abidiff says ${code}):\n${said}\n"
    "If the change is meant, follow the rules of sluice/abi/base.h (append, raise MINOR; in major 0 a break raises FLOOR) "
    "and write ${KNOWN} anew:\n  abidw --drop-undefined-syms --no-corpus-path --no-comp-dir-path --no-show-locs ${SUBJECT}")
endif()
