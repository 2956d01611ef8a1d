#include "backends/cpu/kernels/lanes_avx2.h"

// After the lanes that it works on.
#include "backends/cpu/kernels/kernel_table_of.h"

SLUICE_KERNEL_TABLE(kAvx2Kernels, "avx2")
