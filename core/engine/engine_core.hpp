#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>
#include <sluice/abi/kinds/scheduler.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/clock.hpp"
#include "core/engine/abi_call.hpp"
#include "core/engine/branch_group.hpp"
#include "core/engine/draft_control.hpp"
#include "core/engine/drafting.hpp"
#include "core/engine/plan.hpp"
#include "core/engine/sampler_chain.hpp"
#include "core/engine/sched_table.hpp"
#include "core/engine/sequence.hpp"
#include "core/engine/step_batch.hpp"
#include "core/engine/step_cost.hpp"
#include "core/engine/swap_cost.hpp"
#include "core/engine/transfer.hpp"
#include "core/engine/walk.hpp"
#include "core/kv/block_pool.hpp"
#include "core/request/generator.hpp"

namespace sluice::engine {

/// What an engine is made of. Everything is borrowed and outlives the core.
struct EngineParts {
  const sluice_host_api *host = nullptr;
  const Clock *clock = nullptr;

  std::string backend_name;
  const sluice_backend_vtbl *backend = nullptr;
  sluice_model *model = nullptr;  ///< configured
  std::optional<sluice_model_info> info;  ///< of the model, as it was checked; without it the model is asked

  std::string scheduler_name;
  const sluice_scheduler_vtbl *scheduler = nullptr;  ///< the core creates and destroys its instance
  const sluice_config *scheduler_options = nullptr;  ///< for the call of create() only

  std::vector<SamplerPort> samplers;

  std::string decoder_name;
  const sluice_decoder_vtbl *decoder = nullptr;
  sluice_decoder *decoder_instance = nullptr;
  std::optional<DraftModelParts> draft_model;  ///< for a decoder that needs one
};

struct EngineLimits {
  uint32_t max_seqs = 16;        ///< sequences in one step
  uint32_t token_budget = 512;   ///< tokens in one step
  uint32_t max_live = 1024;      ///< sequences that run or wait
  uint32_t waiting_window = 256; ///< waiting sequences that a view shows
  uint32_t max_context = 0;      ///< tokens
  uint32_t vocab_size = 0;       ///< create() fills it in
  uint32_t max_branches = 1;     ///< of one request, as the decoder says; create() fills it in
  uint32_t block_size = 16;      ///< tokens
  uint32_t kv_blocks = 0;
  uint32_t watermark_blocks = 0; ///< kept free when admitting
  uint32_t host_blocks = 0;      ///< swap space; counts for nothing if the backend has none
  uint64_t bytes_per_block = 0;
  SwapRates swap_rates;          ///< where to start from
  uint32_t max_rows = 0;         ///< rows in one step, at least max_seqs; what is above that goes to drafts
  bool prefix_cache = true;      ///< blocks of equal prefixes are computed once
  std::chrono::milliseconds call_deadline{30'000};  ///< a call into a plugin, or a step, that takes longer is an overrun
  bool plan_ahead = false;       ///< plan a step while the one before runs, if that takes long enough
  uint64_t explain_after_ns = 0; ///< the log says why the first in line waits longer than this; 0 = never
};

/// What decides from now on, while the engine runs. Borrowed as in EngineParts.
struct SchedulerChange {
  std::string name;
  const sluice_scheduler_vtbl *vtbl = nullptr;
  const sluice_config *options = nullptr;  ///< for the call only
  bool fresh = true;  ///< a new instance; false: the one that is takes new HOT options
  std::shared_ptr<const void> owner = {};  ///< of the options, which may be read after the caller has given up
};

enum class StepOutcome {
  kIdle,       ///< nothing to do until a request arrives or wake_at_ns()
  kInFlight,   ///< the step, or blocks that move, have not finished within the timeout; call step() again
  kCommitted,  ///< a step's tokens are final
};

/// The engine without a thread: sequences, blocks and plugins, one step at a time.
///
/// Does no I/O, reads no clock but the one handed in, and owns no thread, so that a simulation drives it as the server
/// does. A plugin that fails costs the sequences of that step an error; one that poisons itself costs all of them, and
/// the core stays unhealthy.
/// thread  [engine], all of it.
class EngineCore {
 public:
  static Result<std::unique_ptr<EngineCore>> create(EngineParts parts, EngineLimits limits);
  ~EngineCore();
  EngineCore(const EngineCore &) = delete;
  EngineCore &operator=(const EngineCore &) = delete;

  /// Whether a request could ever run; `submit` trusts that it was asked. errors: InvalidArgument, ResourceExhausted
  static Result<> check(const request::Request &request, const EngineLimits &limits);

  /// Takes a request, all its answers. errors: ResourceExhausted (no room for more), Unavailable (poisoned), Internal
  Result<> submit(std::shared_ptr<const request::Request> request);
  void cancel(uint64_t request_id, request::CancelCause cause);
  void cancel_all(request::CancelCause cause);

  /// Between two calls of step(). A new instance hears ARRIVE of everybody alive, so nobody is lost.
  /// errors: the plugin's; then nothing has changed
  Result<> change_scheduler(const SchedulerChange &to);
  /// Ends everything with an error although a step may be under way: the last resort when the backend hangs. The core
  /// stays unhealthy.
  void abandon(const Error &error);

  /// Plans, submits, waits up to timeout_ns, samples and commits.
  StepOutcome step(uint64_t timeout_ns);

  uint64_t wake_at_ns() const { return wake_at_ns_; }  ///< after kIdle; 0 = only a request wakes
  const EngineLimits &limits() const { return limits_; }
  size_t live() const { return n_live_; }
  request::GeneratorStats stats() const;

  /// Every block has one owner, every table row agrees with its sequence. Returns what is wrong, empty when nothing is.
  std::string audit() const;

 private:
  std::string audit_transfers() const;
  EngineCore(EngineParts parts, EngineLimits limits, const sluice_model_info &info, const sluice_sample_caps &caps,
             const sluice_decoder_needs &needs);
  boost::system::result<sluice_scheduler *, Error> create_scheduler(const SchedulerChange &from);
  void explain_waiting();
  Result<> create_drafting(const sluice_decoder_needs &needs, const sluice_model_info &info);

  // A step, in the order in which it happens.
  void expire();
  bool plan();
  bool carry_out();  ///< whether any act was possible
  bool act(uint8_t op, sluice_seq_ref ref, uint32_t n_tokens, uint32_t n_drafts);
  bool run(sluice_seq_ref ref, uint32_t n_tokens, uint32_t n_drafts);
  uint32_t room_for_drafts(const Sequence &sequence, uint32_t wanted) const;
  void take_seat(Sequence &sequence, uint32_t n_drafts);
  void fill_wishes();
  bool drafts_are_hopeless(Sequence &sequence);
  void note_drafts(uint32_t prefill, uint32_t decode, uint64_t device_ns);
  void make_drafts();
  void fill_batch();
  void drop_forbidden(DraftSeat &seat, std::vector<uint32_t> &masks);
  bool submit_batch();
  uint64_t expected_ns() const;  ///< of the batch
  StepOutcome finish_batch(uint64_t timeout_ns);
  PluginResult wait_for_step(uint64_t timeout_ns, sluice_step_result &result);  ///< planning the next one meanwhile
  PluginResult choose_tokens(const sluice_step_result &result);
  PluginFailure backend_garbage(const std::string &what) const;
  PluginResult read_row(const sluice_step_result &result, uint32_t row, const Sequence &sequence);
  void walk_drafts();
  void walk_rows(size_t i, const WalkEnds &ends);
  PluginResult move_accepted();
  void commit(const sluice_step_result &result);
  void append_tokens(uint64_t now, const sluice_step_result &result, uint64_t device_ns);
  void append_walk(size_t i, uint64_t now, const sluice_step_result &result);
  void give_back_tail(Sequence &sequence);
  void tell_samplers_and_decoder(uint64_t device_ns);
  void emit_tokens();
  void push_tokens(sluice_seq_ref ref, size_t nth);
  void commit_decoder(uint64_t device_ns);

  void fill_view();
  uint32_t pending_of(sluice_seq_ref ref);
  void end_abandoned(const std::vector<sluice_seq_ref> &refs);  ///< whose consumer hung up
  uint32_t exclusive_blocks_of(Sequence &sequence);
  void probe(sluice_seq_ref ref);  ///< of somebody who waits
  uint64_t next_block_hash(Sequence &sequence, uint32_t n_blocks);  ///< of the one behind; 0 = not full
  uint32_t cached_blocks_of(Sequence &sequence);
  void extend_hashes(Sequence &sequence, uint32_t n_blocks);
  void attach_prefix(Sequence &sequence);
  void publish_blocks(Sequence &sequence);
  void publish_in(kv::BlockPool &pool, const Sequence &sequence, const std::vector<uint32_t> &blocks, uint32_t n_full);
  bool make_room(sluice_seq_ref for_ref, uint32_t n_blocks);
  void release_blocks(Sequence &sequence);

  // Giving way and coming back: engine_swap.cpp.
  void preempt(sluice_seq_ref ref);   ///< drops its KV
  void give_way(sluice_seq_ref ref);  ///< by swap or recompute, whichever is cheaper
  bool swap_out(sluice_seq_ref ref);  ///< false: no room in swap space. Takes effect with start_transfers()
  bool swap_in(sluice_seq_ref ref);   ///< false: no room on the device. Takes effect with start_transfers()
  bool start_transfers();
  void start_transfer(bool in, KvOps &ops, std::vector<std::pair<sluice_seq_ref, sluice_seq_id>> &moved);
  bool land_transfers(uint64_t timeout_ns);  ///< whether something ended
  void finish_transfer(const Transfer &done);
  void fail_transfer(const Transfer &failed, const PluginFailure &failure);
  StepOutcome wait_for_transfers(uint64_t timeout_ns);
  uint64_t swap_ns(const Sequence &sequence) const;  ///< there and back
  uint64_t recompute_ns(const Sequence &sequence) const;
  uint64_t yield_ns(const Sequence &sequence) const;  ///< the cheaper one

  void finish(sluice_seq_ref ref, request::Event event, uint8_t sched_event);
  void end_cancelled(sluice_seq_ref ref);
  void fail_batch(const PluginFailure &failure);
  void end_all(const Error &error);
  void note_plugin_error(const PluginFailure &failure);
  bool judges_rows(const DraftSeat &seat) const;
  void note_draft_error(const PluginFailure &failure);
  void release_ticket();
  void close_decoder(const Sequence &sequence);
  std::vector<sluice_seq_ref> live_refs() const;
  void enlist(sluice_seq_ref ref, uint8_t state);
  void delist(sluice_seq_ref ref);
  std::vector<sluice_seq_ref> &list_of(uint8_t state);
  void admit(sluice_seq_ref ref);
  void retire(sluice_seq_ref ref, uint8_t sched_event);
  void refresh(sluice_seq_ref ref);

  // Requests whose decoder ranks branches: engine_branch.cpp.
  struct BranchMemory {
    uint32_t blocks = 0, exclusive_blocks = 0, tokens = 0, host_blocks = 0;  ///< each block once
  };
  /// Blocks that there must be for a request to run alone.
  static uint32_t most_rows(const EngineLimits &limits);  ///< of one step
  static uint64_t most_blocks(const request::Request &request, const EngineLimits &limits);
  sluice_sample_spec branch_spec(const request::Request &request) const;
  bool ranked_by_backend(const Sequence &branch) const;
  void drop_branch(Sequence &branch);
  void release_branches(sluice_seq_ref ref);
  BranchMemory measure_branches(sluice_seq_ref ref);
  void refresh_branches(sluice_seq_ref ref);
  uint32_t pending_of_branches(sluice_seq_ref ref, uint32_t cached_tokens = 0);
  bool swap_out_branches(sluice_seq_ref ref);
  bool swap_in_branches(sluice_seq_ref ref);
  bool run_branches(sluice_seq_ref ref, uint32_t n_tokens);
  void choose_feeds(sluice_seq_ref ref, uint32_t n_tokens);
  uint32_t blocks_to_write();
  void make_writable(Sequence &branch, uint32_t n_tokens);
  bool batch_decodes() const;  ///< the step being built has decodes in it, not prompts
  bool submit_copies();
  PluginResult rank_row(size_t i, const sluice_step_result &result);
  void append_branches(size_t begin, uint64_t now, uint64_t device_ns);
  void branch(uint64_t now);
  void keep_finished(sluice_seq_ref ref, uint32_t group, std::span<const uint32_t> rows);
  PluginResult grow(sluice_seq_ref ref, uint32_t group, std::span<const uint32_t> rows);
  boost::system::result<std::unique_ptr<Sequence>, PluginFailure> fork_branch(const Sequence &from);
  static std::shared_ptr<const TokenChoice> said_of(const TokenChoice &row, int32_t token, uint32_t n_top);
  void answer(sluice_seq_ref ref);
  void commit_branching_decoder(uint64_t device_ns);
  std::string audit_branches(sluice_seq_ref ref) const;

  bool in_batch(sluice_seq_ref ref) const { return sequences_[ref]->in_flight; }

  static uint64_t step_time_ns(void *self, uint32_t prefill, uint32_t decode, uint64_t context);
  static uint64_t swap_time_ns(void *self, uint32_t blocks, int32_t in);
  static uint64_t recompute_time_ns(void *self, sluice_seq_ref ref);
  static int32_t probe_prefix(void *self, sluice_seq_ref ref);

  EngineParts parts_;
  const EngineLimits limits_;
  const std::string backend_who_, decoder_who_;  ///< "backend cpu", for messages
  std::string scheduler_who_;
  const bool mixed_batch_;
  const bool trees_;               ///< else the backend takes chains of drafts only
  const uint32_t max_tree_nodes_;  ///< 0 = any
  kv::BlockPool pool_, host_pool_;
  SchedTable table_;
  PlanBuffers buffers_;
  SamplerChain chain_;
  StepBatch batch_;
  StepCost cost_;
  SwapCost swap_cost_;
  std::unique_ptr<Drafting> drafting_;
  std::unique_ptr<DraftControl> draft_control_;
  std::vector<uint32_t> wishes_;
  uint32_t last_prefill_ = 0;                         ///< prompt tokens of the last step
  uint64_t drafting_ns_ = 0;                          ///< what making the drafts of the step took
  sluice_sched_host sched_host_{};
  sluice_scheduler *scheduler_ = nullptr;

  std::vector<std::unique_ptr<Sequence>> sequences_;  ///< [max_live] by ref, null = free
  std::vector<std::unique_ptr<BranchGroup>> groups_;  ///< [max_live] by ref, null = the samplers choose
  std::vector<sluice_seq_ref> free_refs_, retired_refs_;  ///< retired: free once the scheduler has heard
  std::vector<sluice_seq_ref> resident_, waiting_, swapped_, moving_;  ///< all live refs, each list by arrival
  uint64_t waiting_tokens_ = 0;                       ///< sum of pending over waiting_
  std::unordered_multimap<uint64_t, sluice_seq_ref> by_request_;
  KvOps ops_out_, ops_in_;  ///< of the step being carried out, with whose blocks they are
  std::vector<std::pair<sluice_seq_ref, sluice_seq_id>> going_out_, coming_in_;
  std::vector<Transfer> transfers_;  ///< under way
  uint64_t moving_bytes_[2] = {0, 0};  ///< out, in
  std::vector<sluice_seq_ref> batch_refs_;
  std::vector<Sequence *> batch_sequences_;           ///< of each; a ref with branches stands there once for each
  std::vector<uint32_t> batch_tokens_;                ///< of each, without drafts
  std::vector<int32_t> batch_seat_;                   ///< of each, in seats_; -1 = no drafts
  std::vector<DraftSeat> seats_;
  uint32_t rows_left_ = 0;                            ///< for drafts of the step being planned
  std::vector<uint8_t> dead_;
  std::vector<TokenChoice> choices_;
  std::vector<HostRow> host_rows_;
  std::vector<uint32_t> first_host_row_;              ///< of each of batch_refs_
  std::vector<int32_t> row_tokens_;
  std::vector<Walk> walks_;                           ///< of each of batch_refs_ that has a row
  std::vector<uint8_t> move_ops_;
  std::vector<uint32_t> move_src_, move_dst_;
  std::vector<Sequence *> committed_;
  std::vector<sluice_seq_ref> committed_refs_;
  std::vector<uint32_t> committed_indptr_, committed_rows_;  ///< rows that chose the tokens
  std::vector<int32_t> committed_tokens_;
  std::vector<float> committed_logprobs_;
  std::vector<uint32_t> decoder_drafted_, decoder_accepted_;
  std::vector<uint8_t> node_accepted_;
  std::vector<sluice_decoder_seq *> decoder_seqs_;

  uint32_t probes_left_ = 0;      ///< in this plan
  bool planned_ahead_ = false;    ///< buffers_ holds a plan for the step behind the one that runs
  uint64_t plan_ahead_at_ns_ = 0; ///< when to make it; 0 = it was tried, or need not be
  uint64_t explained_ns_ = 0;     ///< when the log last said why somebody waits
  const sluice_sample_caps caps_;
  const uint32_t n_branch_top_, branch_logprobs_kind_;  ///< candidates that branch() sees of a row, and their numbers
  KvOps copies_;                                        ///< that the step being built needs
  BranchCall branch_call_;
  std::vector<sluice_seq_ref> ranked_;      ///< groups of branch_call_
  std::vector<uint32_t> ranked_rows_;       ///< rows of their branches
  std::vector<std::pair<Sequence *, uint32_t>> feeds_;             ///< branches and tokens, of one act
  std::vector<std::pair<uint32_t, uint32_t>> scratch_blocks_;
  std::vector<std::pair<const Sequence *, int32_t>> grown_;        ///< branches of this step and their new tokens
  sdk::RowSampler row_sampler_;
  std::vector<int32_t> top_ids_;
  std::vector<float> top_logprobs_;

  bool somebody_paused_ = false;  ///< a sequence waits for its reader
  size_t n_live_ = 0;
  uint64_t next_seq_id_ = 1, step_no_ = 0, wake_at_ns_ = 0, next_deadline_ns_ = 0;
  uint64_t submitted_ns_ = 0;
  std::optional<sluice_ticket> ticket_;
  std::optional<PluginFailure> poisoned_;
  request::GeneratorStats counters_;
};

}  // namespace sluice::engine
