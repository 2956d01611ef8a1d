// What a ring costs: submit, wait and release of one decode step of the mock, which computes next to nothing, through
// its table in this process and through the table of isolation = "process". Interleaved, so that both see the same load.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/base/clock.hpp"
#include "core/isolation/isolated_plugin.hpp"
#include "core/plugin/host.hpp"
#include "core/plugin/instances.hpp"

namespace {

using namespace sluice;
using Steady = std::chrono::steady_clock;

constexpr uint32_t kBlockSize = 16, kContext = 512, kRounds = 20, kVocab = 512;

template <class T> T must(Result<T> r) {
  if (r) return std::move(*r);
  fmt::print(stderr, "plugin_process: {}\n", r.error().message);
  std::exit(1);
}
void must_be_ok(int32_t code) {
  if (code == SLUICE_OK) return;
  fmt::print(stderr, "plugin_process: a step failed with code {}\n", code);
  std::exit(1);
}

/// n sequences that go on by one token a step.
class Decoding {
 public:
  Decoding(const plugin::Library &library, plugin::Host &host, uint32_t n) : n_(n), blocks_per_seq_(kContext / kBlockSize) {
    const auto options = must(plugin::Options::defaults(library.schema));
    backend_ = must(plugin::Backend::open(library, host.api_for("bench", library.title()), *options));
    plugin::LoadedModel::Source source;
    source.path = "/dev/null";
    model_ = must(plugin::LoadedModel::load(*backend_, source, *options));
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.max_tokens_per_step = setup.max_seqs_per_step = setup.max_rows_per_step = n;
    setup.max_context = kContext, setup.block_size = kBlockSize, setup.max_logprobs = 1;
    const uint32_t blocks = n * blocks_per_seq_;
    if (const auto r = model_->configure(setup, {&blocks, 1}); !r) must_be_ok(1);
  }

  void begin() {
    position_ = 0;
    first_id_ += n_;
    last_.assign(n_, 7);
  }

  /// returns  nanoseconds
  double step() {
    tokens_.clear(), positions_.clear(), slots_.clear(), kv_len_.clear(), blocks_.clear(), ids_.clear();
    indptr_.assign(1, 0), block_indptr_.assign(1, 0), row_token_.clear();
    for (uint32_t s = 0; s < n_; ++s) {
      tokens_.push_back(last_[s]), positions_.push_back(static_cast<int32_t>(position_));
      slots_.push_back(s * kContext + position_), kv_len_.push_back(position_), ids_.push_back(first_id_ + s);
      for (uint32_t b = 0; b <= position_ / kBlockSize; ++b) blocks_.push_back(s * blocks_per_seq_ + b);
      indptr_.push_back(s + 1), block_indptr_.push_back(static_cast<uint32_t>(blocks_.size())), row_token_.push_back(s);
    }
    const std::vector<uint8_t> want(n_, SLUICE_ROW_TOKEN);
    const std::vector<uint32_t> row_spec(n_, 0), row_position(n_, position_ + 1);
    const std::vector<uint64_t> seeds(n_, 1);
    sluice_sample_spec spec{};
    spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
    spec.n_stages = 1, spec.stage[0] = SLUICE_STAGE_TEMPERATURE;
    sluice_step s{};
    s.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
    s.step_no = ++step_no_, s.n_tokens = s.n_seqs = s.n_rows = n_, s.n_kv_groups = 1;
    s.tokens = tokens_.data(), s.positions = positions_.data(), s.slots = slots_.data(), s.seq_ids = ids_.data();
    s.q_indptr = indptr_.data(), s.kv_len = kv_len_.data(), s.block_indptr = block_indptr_.data();
    s.block_ids = blocks_.data(), s.row_token = row_token_.data(), s.row_want = want.data();
    s.spec = &spec, s.n_specs = 1, s.spec_stride = sizeof spec, s.row_spec = row_spec.data();
    s.row_seed = seeds.data(), s.row_position = row_position.data();
    const auto *v = model_->vtbl();
    sluice_step_result result{};
    result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
    const auto begin = Steady::now();
    sluice_ticket ticket = 0;
    must_be_ok(v->submit(model_->get(), &s, &ticket, nullptr));
    must_be_ok(v->wait(model_->get(), ticket, 10'000'000'000, &result, nullptr));
    const double ns = std::chrono::duration<double, std::nano>(Steady::now() - begin).count();
    last_.assign(result.token, result.token + n_);
    const auto releasing = Steady::now();
    v->release(model_->get(), ticket);
    ++position_;
    return ns + std::chrono::duration<double, std::nano>(Steady::now() - releasing).count();
  }

  const std::vector<int32_t> &last() const { return last_; }

 private:
  const uint32_t n_, blocks_per_seq_;
  std::unique_ptr<plugin::Backend> backend_;
  std::unique_ptr<plugin::LoadedModel> model_;
  uint32_t position_ = 0;
  uint64_t step_no_ = 0, first_id_ = 1;
  std::vector<int32_t> last_, tokens_, positions_;
  std::vector<uint32_t> slots_, kv_len_, blocks_, indptr_, block_indptr_, row_token_;
  std::vector<uint64_t> ids_;
};

double at(std::vector<double> &ns, double q) {
  std::sort(ns.begin(), ns.end());
  return ns[static_cast<size_t>(q * static_cast<double>(ns.size() - 1))] / 1000;
}

}  // namespace

int main() {
  SteadyClock clock;
  plugin::Host host({.clock = &clock, .metrics = nullptr, .n_workers = 1, .version = "0.0.0"});
  const std::string path = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_backend_mock.so";
  const auto metadata = must(plugin::read_metadata(path));
  isolation::IsolationOptions options;
  options.program = SLUICE_PLUGIN_HOST;
  const auto there = must(isolation::load_isolated(path, metadata, options));
  const auto here = must(plugin::load_library(path, metadata, *host.api()));
  for (const uint32_t n : {1U, 16U}) {
    Decoding a(here, host, n), b(there, host, n);
    std::vector<double> in_process, in_child;
    for (uint32_t round = 0; round < kRounds; ++round) {
      a.begin(), b.begin();
      for (uint32_t i = 0; i + 1 < kContext; ++i) {
        in_process.push_back(a.step()), in_child.push_back(b.step());
        if (a.last() != b.last()) must_be_ok(1);
      }
    }
    const double p50 = at(in_process, 0.5), p99 = at(in_process, 0.99), q50 = at(in_child, 0.5), q99 = at(in_child, 0.99);
    fmt::print("{:>2} sequences, {} steps: in process p50 {:.1f} us, p99 {:.1f} us; in a child p50 {:.1f} us, p99 {:.1f} us; "
               "ratio {:.1f}, the ring costs {:.1f} us a step\n",
               n, in_process.size(), p50, p99, q50, q99, q50 / p50, q50 - p50);
  }
}
