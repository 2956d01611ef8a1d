// The mock's model: no weights, a shadow of a cache, tokens from a script, time from a table.
#pragma once
#include "options.hpp"
#include "rows.hpp"
#include "sequences.hpp"
#include "step_check.hpp"
#include "timeline.hpp"

#include <sluice/sdk/backend.hpp>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace sluice::mock {

/// What a step did is settled in submit(); wait() only lets the time pass. So tokens do not depend on how fast the
/// clock runs or when the host looks.
class MockModel final : public sdk::Model {
 public:
  /// device_lost is the backend's, set when lost_at is reached; outlives the model.
  MockModel(const sluice_host_api &host, Options options, std::atomic<bool> &device_lost);

  void info(sluice_model_info &) const override;
  void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const override;
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const override;
  void configure(const sluice_model_setup &, const uint32_t *device_blocks, const uint32_t *host_blocks) override;
  void sample_caps(sluice_sample_caps &) const override;
  sluice_ticket submit(const sluice_step &) override;
  sluice_ticket kv_ops(const sluice_kv_batch &) override;
  bool wait(sluice_ticket, uint64_t timeout_ns, sluice_step_result *out) override;
  void release(sluice_ticket) override;

 private:
  static constexpr size_t kMaxFlights = 8;
  /// A step between submit() and release(). Always: ticket == 0 means free.
  struct Flight {
    std::atomic<uint64_t> ticket{0};
    bool failed = false, lost = false;
    uint64_t n_submit = 0, device_ns = 0, queue_ns = 0;
    RowResults rows;
  };

  uint32_t block_size_of(const sluice_model_setup &) const;
  Flight &free_flight();
  Flight *find(sluice_ticket);
  void check_alive() const;
  [[noreturn]] void fail(const char *where) const;
  void resolve_tokens(const sluice_step &);
  uint64_t check_caches(const sluice_step &);
  void check_slots_once(const sluice_step &);
  void forget(const sluice_step &);
  void store(const sluice_step &);
  void speak(const sluice_step &, RowResults &);
  Choice choice_for(const sluice_step &, uint32_t seq, uint32_t token) const;

  const sluice_host_api &host_;
  const Options options_;
  std::atomic<bool> &device_lost_;
  Timeline timeline_;
  std::array<Flight, kMaxFlights> flights_;
  uint64_t n_submit_ = 0;

  // since configure()
  StepLimits limits_{};
  std::optional<ShadowKv> kv_;
  Sequences sequences_;
  RowDecider rows_;
  std::vector<int32_t> last_drawn_;  // by row of the last step
  // of the step being submitted
  std::vector<int32_t> tokens_;       // [n_tokens], fed ones resolved
  std::vector<uint64_t> context_;     // [n_tokens] after each token
  std::vector<Sequence *> sequence_;  // [n_seqs]
  std::vector<uint64_t> written_;     // [slots] submission that last wrote here
};

}  // namespace sluice::mock
