#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "core/app/bench_run.hpp"
#include "core/app/command.hpp"
#include "core/app/local_model.hpp"

namespace sluice::app {
namespace {

struct BenchOptions {
  LocalModel::Options model;
  uint32_t prompt_tokens = 512, gen_tokens = 64, rounds = 5;
  std::vector<uint32_t> batches = {1};
  bool json = false;
};

struct Series {
  double median = 0, min = 0, max = 0;
};

Series series(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

/// Streams a buffer larger than the caches on `threads` threads. Returns bytes/s, the best of three.
double read_bandwidth(uint32_t threads) {
  constexpr size_t kBytes = size_t{256} << 20;
  std::vector<uint64_t> buffer(kBytes / 8, 1);
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> pool;
    std::atomic<uint64_t> sink{0};
    const auto began = std::chrono::steady_clock::now();
    for (uint32_t t = 0; t < threads; ++t)
      pool.emplace_back([&, t] {
        const size_t part = buffer.size() / threads;
        const uint64_t *p = buffer.data() + t * part;
        uint64_t sums[8] = {};
        for (size_t i = 0; i + 8 <= part; i += 8)
          for (size_t j = 0; j < 8; ++j) sums[j] += p[i + j];
        sink += std::accumulate(sums, sums + 8, uint64_t{0});
      });
    for (auto &thread : pool) thread.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    if (sink == 0) std::abort();
    best = std::max(best, static_cast<double>(kBytes) / seconds);
  }
  return best;
}

int bench(BenchOptions options) {
  if (options.model.decoder != "plain") return bench_decoder({options.model, options.prompt_tokens, options.gen_tokens,
                                                              options.rounds, options.batches, options.json});
  const uint32_t largest = *std::max_element(options.batches.begin(), options.batches.end());
  options.model.max_seqs = largest;
  if (options.model.context == 0) options.model.context = options.prompt_tokens + options.gen_tokens;
  auto model = LocalModel::load(options.model);
  if (!model) return fail(model.error());
  const uint32_t threads = std::max(1U, std::thread::hardware_concurrency());
  const double bandwidth = read_bandwidth(threads);
  const auto weights = (*model)->weights_bytes();

  boost::json::array rows;
  if (!options.json)
    fmt::print("{:>6} {:>34} {:>34} {:>10}\n", "batch", "prefill tokens/s (min..max)", "decode tokens/s (min..max)",
               "of limit");
  for (const uint32_t batch : options.batches) {
    std::vector<double> prefill;
    std::vector<double> decode;
    for (uint32_t round = 0; round <= options.rounds; ++round) {
      auto sample = run_bench(**model, {batch, options.prompt_tokens, options.gen_tokens, nullptr});
      if (!sample) return fail(sample.error());
      if (round == 0) continue;  // warms caches and clocks
      prefill.push_back(sample->prefill_tokens_per_s);
      decode.push_back(sample->decode_tokens_per_s);
    }
    const auto p = series(prefill);
    const auto d = series(decode);
    // Each step of a batch reads the weights once.
    const double of_limit = d.median / batch * static_cast<double>(weights) / bandwidth;
    if (!options.json)
      fmt::print("{:>6} {:>12.1f} ({:>8.1f}..{:>8.1f}) {:>12.1f} ({:>8.1f}..{:>8.1f}) {:>10.2f}\n", batch, p.median,
                 p.min, p.max, d.median, d.min, d.max, of_limit);
    rows.push_back(boost::json::object{{"batch", batch},
                                       {"prefill_tokens_per_s", p.median},
                                       {"prefill_min", p.min},
                                       {"prefill_max", p.max},
                                       {"decode_tokens_per_s", d.median},
                                       {"decode_min", d.min},
                                       {"decode_max", d.max},
                                       {"fraction_of_read_bandwidth", of_limit}});
  }
  if (options.json) {
    fmt::print("{}\n", boost::json::serialize(boost::json::object{{"backend", options.model.backend},
                                                                  {"prompt_tokens", options.prompt_tokens},
                                                                  {"gen_tokens", options.gen_tokens},
                                                                  {"rounds", options.rounds},
                                                                  {"threads", threads},
                                                                  {"token_budget", (*model)->token_budget()},
                                                                  {"weights_bytes", weights},
                                                                  {"read_bandwidth_bytes_per_s", bandwidth},
                                                                  {"results", rows}}));
  } else {
    fmt::print("weights {}, read bandwidth {}/s on {} threads; 'of limit' is weights x steps/s over it\n",
               format_bytes(weights), format_bytes(static_cast<uint64_t>(bandwidth)), threads);
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App &app, Exit exit) {
  auto options = std::make_shared<BenchOptions>();
  auto *command = app.add_subcommand("bench", "Measure prefill and decode through the engine");
  command->add_option("--model", options->model.path, "GGUF file; the model that ships without it");
  command->add_option("--backend", options->model.backend, "Backend plugin")->capture_default_str();
  command->add_option("--prompt-tokens", options->prompt_tokens, "Prompt length")->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--gen-tokens", options->gen_tokens, "Tokens to generate")->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--batch", options->batches, "Concurrent requests, such as 1,4,16")->delimiter(',')
      ->check(CLI::Range(1, 4096));
  command->add_option("--rounds", options->rounds, "Measured rounds, after one that warms up")->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--decoder", options->model.decoder, "Decoder plugin; other than plain: both, side by side")
      ->capture_default_str();
  command->add_option("--decoder-option", options->model.decoder_options, "Such as max_drafts=4; may be given again");
  command->add_option("--draft-model", options->model.draft_path, "GGUF file of the model that drafts");
  command->add_option("--draft-heads", options->model.heads_path, "Safetensors file of draft heads, for medusa");
  command->add_flag("--json", options->json, "As JSON");
  command->callback([=] { exit(bench(*options)); });
}

}  // namespace sluice::app
