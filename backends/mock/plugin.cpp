// A backend without a model: it says what a script says, takes the time that a table says, fails when told to, and
// watches that every token in the cache belongs where the host thinks it does.
#include "model.hpp"

#include <chrono>
#include <cstdio>
#include <thread>

namespace sluice::mock {
namespace {

class MockBackend final : public sdk::Backend {
 public:
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const sdk::Config &) {
    sluice_device_info device{};
    device.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    device.device_type = SLUICE_DEV_CPU, device.score = 1;
    device.mem_total = device.mem_free = uint64_t{1} << 30;
    std::snprintf(device.name, sizeof device.name, "mock");
    return {device};
  }

  MockBackend(const sluice_host_api &host, const sdk::Config &config, const sluice_backend_open &open)
      : host_(host), options_(read_options(config)) {
    for (uint32_t i = 0; i < open.n_devices; ++i)
      if (open.device_ids[i] != 0)
        throw sdk::Error(SLUICE_E_NOT_FOUND,
                         "device " + std::to_string(open.device_ids[i]) + "; the mock has device 0");
    if (options_.faults.leak_threads)
      std::thread([] {
        for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
      }).detach();
  }

  /// The path is of no interest: nothing is read.
  std::unique_ptr<sdk::Model> load(const sluice_model_source &source, const sdk::Config &config) override {
    if (source.n_attach > 0) throw sdk::Error(SLUICE_E_UNSUPPORTED, "the mock attaches no draft heads");
    return std::make_unique<MockModel>(host_, source.config == nullptr ? options_ : read_options(config), device_lost_);
  }

  void health() override {
    if (device_lost_.load()) throw sdk::Error(SLUICE_E_DEVICE_LOST, "injected fault: the device is lost (lost_at)");
  }

 private:
  const sluice_host_api &host_;
  Options options_;
  std::atomic<bool> device_lost_{false};
};

}  // namespace
}  // namespace sluice::mock

SLUICE_BACKEND_PLUGIN(sluice::mock::MockBackend, "mock", "0.1.0", sluice::mock::kFields, "");
