#include "backends/cpu/isa.hpp"

#include <sluice/sdk/error.hpp>

#include <cstdlib>

namespace sluice::cpu {

// __builtin_cpu_supports looks at CPUID and at what the system saves of the registers (XCR0).
std::vector<const KernelTable *> usable_kernels() {
  std::vector<const KernelTable *> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
    tables.push_back(&kAvx512Kernels);
  if (avx2) tables.push_back(&kAvx2Kernels);
#endif
  tables.push_back(&kGenericKernels);
  return tables;
}

const KernelTable &choose_kernels(const std::string &wanted) {
  const char *environment = std::getenv("SLUICE_CPU_ISA");
  const std::string name = !wanted.empty() ? wanted : environment != nullptr ? environment : "";
  const std::vector<const KernelTable *> usable = usable_kernels();
  if (name.empty() || name == "auto") return *usable.front();
  std::string names;
  for (const KernelTable *t : usable) {
    if (name == t->name) return *t;
    names += (names.empty() ? "" : ", ") + std::string(t->name);
  }
  throw sdk::Error(SLUICE_E_UNSUPPORTED, "instruction set '" + name + "' cannot be used on this machine; there is " +
                                             names + " (option isa or environment SLUICE_CPU_ISA)");
}

}  // namespace sluice::cpu
