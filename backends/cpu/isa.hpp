#pragma once
#include "backends/cpu/kernels/kernel_table.h"

#include <string>
#include <vector>

namespace sluice::cpu {

/// The tables that this machine can run, the fastest first. Never empty. [any]
std::vector<const KernelTable *> usable_kernels();

/// The table to use: the one that `wanted` or, when that is empty, the environment's SLUICE_CPU_ISA names; else the
/// fastest.
/// errors  throws sdk::Error UNSUPPORTED: the machine lacks it, or there is none of that name
const KernelTable &choose_kernels(const std::string &wanted);

}  // namespace sluice::cpu
