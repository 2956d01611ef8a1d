#include "backends/cpu/cpu_device.hpp"
#include "backends/cpu/isa.hpp"
#include "backends/graph/graph_model.hpp"

#include <sluice/sdk/backend.hpp>

#include <cstdio>

namespace sluice::cpu {
namespace {

const sluice_config_field kFields[] = {
    sdk::bool_field("deterministic",
                    "logits of a row do not depend on the batch, on chunking or on the number of threads", "true"),
    sdk::str_field("isa", "instruction set of the kernels; auto takes the best, or SLUICE_CPU_ISA", "\"auto\"",
                   "auto|generic|avx2|avx512"),
};

const KernelTable &kernels_for(const sdk::Config &config) {
  const std::string isa = config.str("isa", "auto");
  return choose_kernels(isa == "auto" ? std::string() : isa);
}

class CpuBackend final : public sdk::Backend {
 public:
  CpuBackend(const sluice_host_api &host, const sdk::Config &config, const sluice_backend_open &)
      : host_(host), kernels_(kernels_for(config)), options_{graph::KvType::kF16, config.flag("deterministic", true)} {
    const std::string line = std::string("kernels: ") + kernels_.name;
    host.log(host.host, SLUICE_LOG_INFO, "backend.cpu", line.data(), line.size());
  }

  static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &config) {
    const graph::DeviceMemory memory = graph::host_memory();
    sluice_device_info d{};
    d.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    d.device_type = SLUICE_DEV_CPU;
    d.score = 10;
    d.mem_total = memory.total_bytes;
    d.mem_free = memory.available_bytes;
    std::snprintf(d.name, sizeof d.name, "CPU, %s kernels", kernels_for(config).name);
    return {d};
  }

  std::unique_ptr<sdk::Model> load(const sluice_model_source &source, const sdk::Config &) override {
    return std::make_unique<graph::GraphModel>(host_, std::make_unique<CpuDevice>(host_, kernels_), source, options_);
  }

 private:
  const sluice_host_api &host_;
  const KernelTable &kernels_;
  graph::ModelOptions options_;
};

}  // namespace
}  // namespace sluice::cpu

SLUICE_BACKEND_PLUGIN(sluice::cpu::CpuBackend, "cpu", "0.1.0", sluice::cpu::kFields, "");
