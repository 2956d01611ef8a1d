#include "backends/graph/graph_model.hpp"
#include "backends/reference/reference_device.hpp"

#include <sluice/sdk/backend.hpp>

#include <cstdio>

namespace sluice::reference {
namespace {

class ReferenceBackend final : public sdk::Backend {
 public:
  ReferenceBackend(const sluice_host_api &host, const sdk::Config &, const sluice_backend_open &) : host_(host) {}

  static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &) {
    const graph::DeviceMemory memory = graph::host_memory();
    sluice_device_info d{};
    d.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    d.device_type = SLUICE_DEV_CPU;
    d.score = 1;  // works everywhere, and is never the default where anything else does
    d.mem_total = memory.total_bytes;
    d.mem_free = memory.available_bytes;
    std::snprintf(d.name, sizeof d.name, "scalar reference, one thread");
    return {d};
  }

  std::unique_ptr<sdk::Model> load(const sluice_model_source &source, const sdk::Config &) override {
    return std::make_unique<graph::GraphModel>(host_, std::make_unique<ReferenceDevice>(), source,
                                               graph::ModelOptions{graph::KvType::kF32, true});
  }

 private:
  const sluice_host_api &host_;
};

}  // namespace
}  // namespace sluice::reference

SLUICE_BACKEND_PLUGIN(sluice::reference::ReferenceBackend, "reference", "0.1.0", sluice::sdk::kNoFields, "");
