#include "backends/cpu/kernels/lanes_avx512.h"

// After the lanes that it works on.
#include "backends/cpu/kernels/kernel_table_of.h"

SLUICE_KERNEL_TABLE(kAvx512Kernels, "avx512")
