#pragma once
#include <memory>
#include <vector>

#include "core/app/local_model.hpp"

namespace sluice::app {

/// Requests that arrive together: greedy, without an end token, each with a prompt of its own.
struct BenchLoad {
  uint32_t batch = 1;
  uint32_t prompt_tokens = 512, gen_tokens = 64;
  std::shared_ptr<const plugin::Options> decoder_options;  ///< may be null
};

struct BenchSample {
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;  ///< from when the last of them has its first token
};

/// Runs a load to its end. errors: what an answer fails with
Result<BenchSample> run_bench(LocalModel &model, const BenchLoad &load);

struct DecoderBench {
  LocalModel::Options model;
  uint32_t prompt_tokens = 512, gen_tokens = 64, rounds = 9;
  std::vector<uint32_t> batches;
  bool json = false;
};

/// Plain and speculative decoding in turn, on one engine, and what acceptance and cost predict. Returns the exit code.
int bench_decoder(DecoderBench options);

}  // namespace sluice::app
