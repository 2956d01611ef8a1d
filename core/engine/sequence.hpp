#pragma once
#include <sluice/abi/kinds/decoder.h>
#include <sluice/abi/kinds/sampler.h>
#include <sluice/abi/sched.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/kv/prefix_hash.hpp"
#include "core/request/generator.hpp"

namespace sluice::engine {

/// One answer in the making: its tokens, and where their keys and values live.
/// Always: computed <= tokens.size(). WAITING has no blocks and nothing computed; RESIDENT has `blocks`; MOVING_OUT and
/// SWAPPED have `host_blocks`; MOVING_IN has both; each list holds at least `computed` tokens. The first n_published of
/// `blocks` are full and known to the prefix cache.
struct Sequence {
  sluice_seq_id id = 0;
  std::shared_ptr<const request::Request> request;
  uint32_t answer = 0;
  uint64_t arrival = 0;  ///< place in line; branches of one request share it

  std::vector<int32_t> tokens;   ///< prompt, then output
  uint32_t computed = 0;         ///< leading tokens whose KV is valid
  std::vector<uint32_t> blocks;  ///< block table, in position order
  std::vector<uint32_t> host_blocks;  ///< the same in swap space
  uint8_t state = SLUICE_SEQ_WAITING;

  std::vector<kv::PrefixHash> hashes;  ///< of the full blocks of `tokens`, as far as they were asked for
  uint32_t n_published = 0;            ///< blocks
  uint32_t cached_prompt = 0;          ///< prompt tokens that came from the prefix cache when it first ran
  uint64_t queued_ns = 0;              ///< from its arrival to its first step
  uint32_t most_computed = 0;          ///< tokens that ever had valid KV
  uint32_t exclusive_blocks = 0;       ///< of the first n_counted blocks, those that nobody else holds ...
  uint32_t n_counted = 0;
  uint64_t counted_epoch = 0;          ///< ... when the pool's sharing_epoch() was this

  // What the chain wants of this sequence's rows; see sampler_chain.hpp.
  std::vector<sluice_sampler_seq *> sampler_seqs;  ///< one per sampler of the chain
  sluice_sample_spec spec{};
  uint32_t n_lowered = 0;           ///< leading samplers that the backend runs
  std::vector<int32_t> bias_token;  ///< sparse logit bias, when BIAS is lowered
  std::vector<float> bias_value;
  int32_t history_slot = -1;        ///< the backend's penalty history, -1 = none held
  uint32_t history_length = 0;      ///< tokens already appended there

  sluice_decoder_seq *decoder_seq = nullptr;
  std::vector<int32_t> head_ids;     ///< [n_heads, head_top] at the row that chose the last token; empty = unknown
  std::vector<float> head_logprobs;  ///< as head_ids
  uint32_t n_drafted = 0, n_accepted = 0;  ///< drafts verified for it so far
  uint32_t n_draft_rounds = 0;             ///< steps that verified some
  uint64_t draft_verify_ns = 0;            ///< device time of those steps
  float draft_acceptance = 1;              ///< of late
  float draft_gain = 0, draft_nodes = 0;   ///< right drafts and drafts of a round, of late
  bool drafts_hopeless = false;            ///< they bring much less than they cost
  request::DraftsOff drafts_off = request::DraftsOff::kNone;

  std::optional<Error> row_error;                     ///< its row gave no token: ends at the next commit
  bool in_flight = false;                             ///< part of the step under way
  uint32_t in_flight_tokens = 0;                      ///< of its text, while it is
  std::optional<request::CancelCause> cancel_cause;   ///< set: ends at the next commit or before the next plan

  uint32_t prompt_len() const { return static_cast<uint32_t>(request->prompt.size()); }
  uint32_t length() const { return static_cast<uint32_t>(tokens.size()); }
  uint32_t generated() const { return length() - prompt_len(); }
  uint64_t seed() const { return request->seed + answer; }
};

}  // namespace sluice::engine
