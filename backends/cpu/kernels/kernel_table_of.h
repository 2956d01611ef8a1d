/* The table over the lanes that were included before. */
#pragma once
#include "backends/cpu/kernels/attention_kernels.h"
#include "backends/cpu/kernels/product_kernels.h"
#include "backends/cpu/kernels/row_kernels.h"

#define SLUICE_KERNEL_TABLE(symbol, name)                                                                      \
  namespace sluice::cpu {                                                                                      \
  const KernelTable symbol = {name,                                                                            \
                              {product<F32Layout>, product<F16Layout>, product<BF16Layout>, product<Q8Layout>, \
                               product<Q4Layout>, product<Q4KLayout>, product<Q6KLayout>},                     \
                              quantise,                                                                        \
                              rms_norm,                                                                        \
                              silu_mul,                                                                        \
                              silu_add,                                                                        \
                              to_f16,                                                                          \
                              attend,                                                                          \
                              merge};                                                                          \
  }
