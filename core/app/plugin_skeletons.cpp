#include "core/app/plugin_skeletons.hpp"

#include <cctype>

#include "core/plugin/metadata.hpp"

namespace sluice::app {
namespace {

// @NAME@ is the plugin's name, @TYPE@ the same as a C++ type, @C_NAME@ as a C identifier.

constexpr const char *kCmake = R"(cmake_minimum_required(VERSION 3.18)
project(sluice_@C_NAME@ @LANGUAGE@)
find_package(Sluice CONFIG REQUIRED)
enable_testing() # ctest then runs `sluice plugins check` on it
sluice_add_plugin(@C_NAME@ KIND @KIND@ NAME @NAME@ SOURCES @SOURCE@)
)";

constexpr const char *kReadme = R"(# The @KIND@ `@NAME@`

    cmake -S . -B build -DCMAKE_PREFIX_PATH=<prefix of sluice> && cmake --build build && ctest --test-dir build
    sluice serve serve.toml

The rules of the boundary are in the headers: sluice/abi/base.h first, then sluice/abi/kinds/@KIND@.h.
)";

constexpr const char *kToml = R"([plugins]
dirs = ["build"] # relative to this file

[models.mine]
path = "/path/to/model.gguf"
@USE@
)";

constexpr const char *kSampler = R"(// Chooses the best token of every row.
#include <sluice/sdk/sampler.hpp>
#include <sluice/sdk/sampling.hpp>

namespace {
using namespace sluice::sdk;

/// What is remembered of one sequence; a fork is a copy.
struct State {};

class @TYPE@ final : public Sampler<State> {
 public:
  static constexpr uint32_t kFlags = 0;
  static constexpr uint32_t kForms = SLUICE_ROW_LOGITS_HOST;
  static constexpr uint32_t kMinCandidates = 1;

  @TYPE@(const sluice_host_api &, const Config &, const sluice_model_info &) {}
  State open(const sluice_seq_start &, const Config &) override { return {}; }
  /// Edit rows in place, or choose by writing out.token. Changes no state.
  void apply(const Rows<State> &rows, sluice_sample_out &out) const override {
    for (uint32_t r = 0; r < rows.size(); ++r) out.token[r] = row_argmax(rows.logits(r), rows.b.vocab_size);
  }
};
}  // namespace

SLUICE_SAMPLER_PLUGIN(@TYPE@, "@NAME@", "0.1.0", kNoFields);
)";

constexpr const char *kScheduler = R"(// First come, first served: who is admitted has room for its longest possible answer, so nobody has to yield.
#include <sluice/sdk/scheduler.hpp>

#include <algorithm>

namespace {
using namespace sluice::sdk;

class @TYPE@ final : public Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  @TYPE@(const Config &, const sluice_sched_setup &) {}

  void plan(const View &step, Plan &out) override {
    uint32_t tokens = step.v.token_budget, seats = step.v.max_seqs, prefills = step.v.max_prefills;
    const auto run = [&](sluice_seq_ref r) {
      const bool decodes = step.decodes(r);
      const uint32_t n = std::min(step.t.pending[r], tokens);
      if (n == 0 || seats == 0 || (!decodes && prefills == 0)) return;
      out.run(r, n);
      tokens -= n, --seats, prefills -= decodes ? 0 : 1;
    };
    uint64_t promised = 0;
    for (const auto r : step.resident()) promised += most_blocks(step, r), run(r);
    uint32_t seated = step.v.n_resident;
    for (const auto r : step.waiting()) {
      promised += most_blocks(step, r);
      if ((seated > 0 && promised > step.v.device_total) || seated++ >= step.v.max_seqs) break;
      run(r);
    }
    if (out.size() == 0) out.wake_at(step.v.now_ns + 10'000'000);
  }

 private:
  static uint64_t most_blocks(const View &step, sluice_seq_ref r) {
    return (uint64_t{step.t.prompt_len[r]} + step.t.max_new[r] + step.v.block_size - 1) / step.v.block_size;
  }
};
}  // namespace

SLUICE_SCHEDULER_PLUGIN(@TYPE@, "@NAME@", "0.1.0", kNoFields);
)";

constexpr const char *kDecoder = R"(// One token per step: no drafts, no branches.
#include <sluice/sdk/decoder.hpp>

namespace {
using namespace sluice::sdk;

/// What is remembered of one sequence; a fork is a copy.
struct State {};

class @TYPE@ final : public Decoder<State> {
 public:
  @TYPE@(const sluice_host_api &, const Config &, const sluice_decoder_setup &) {}
  State open(const sluice_seq_start &, const Config &) override { return {}; }
};
}  // namespace

SLUICE_DECODER_PLUGIN(@TYPE@, "@NAME@", "0.1.0", kNoFields);
)";

constexpr const char *kEngine = R"(// Answers every prompt with its own first token, at once.
#include <sluice/sdk/engine.hpp>

namespace {
using namespace sluice::sdk;

class @TYPE@ final : public Engine {
 public:
  @TYPE@(const sluice_host_api &host, const Config &, const std::string & /*model*/) : host_(host) {}
  void info(sluice_engine_info &i) const override { i.inputs = SLUICE_INPUT_TOKENS; }
  /// Copies what it needs and returns; an engine that takes time delivers from a thread of its own.
  void generate(const sluice_engine_request &r) override {
    if (r.input_kind != SLUICE_INPUT_TOKENS) throw Error(SLUICE_E_UNSUPPORTED, "@NAME@ takes tokens");
    if (r.n_prompt == 0) throw Error(SLUICE_E_INVALID_ARGUMENT, "the prompt is empty");
    sluice_engine_event e{};
    e.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_event, cached_tokens);
    e.request_id = r.request_id;
    e.tokens = r.prompt, e.n_tokens = 1;
    e.finish = SLUICE_FINISH_STOP;
    e.prompt_tokens = r.n_prompt, e.output_tokens = 1;
    host_.engine_event(host_.host, &e);
  }
  bool cancel(uint64_t) override { return false; }  // nothing is ever under way

 private:
  const sluice_host_api &host_;
};
}  // namespace

SLUICE_ENGINE_PLUGIN(@TYPE@, "@NAME@", "0.1.0", kNoFields);
)";

constexpr const char *kBackend = R"(// A model that always answers with the next id: no weights, nothing cached.
#include <sluice/sdk/backend.hpp>

#include <cstring>

namespace {
using namespace sluice::sdk;

class @TYPE@Model final : public Model {
 public:
  explicit @TYPE@Model(uint32_t vocab_size) : vocab_size_(vocab_size) {}

  void info(sluice_model_info &i) const override {
    i.vocab_size = vocab_size_, i.max_context = 4096, i.hidden_size = i.n_layers = 1;
    i.kv_mode = SLUICE_KV_MODE_PAGED, i.n_kv_groups = 1;
    i.caps = SLUICE_CAP_MIXED_BATCH | SLUICE_CAP_BATCH_INVARIANT;
    std::strcpy(i.arch, "@C_NAME@");
  }
  void plan_memory(const sluice_model_setup &s, sluice_memory_plan &p) const override {
    p.block_size = s.block_size == 0 ? 16 : s.block_size;
    p.kv_bytes_available = uint64_t{64} << 20;
  }
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &s) const override {
    sluice_kv_group g{};
    g.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
    g.block_size = s.block_size == 0 ? 16 : s.block_size;
    g.bytes_per_block = 1024;
    return {g};
  }
  void configure(const sluice_model_setup &s, const uint32_t *, const uint32_t *) override {
    for (auto &slot : slots_) slot.logits.resize(size_t{s.max_rows_per_step} * vocab_size_), slot.ticket = 0;
  }
  void sample_caps(sluice_sample_caps &c) const override { c.forms = SLUICE_ROW_LOGITS_HOST; }

  sluice_ticket submit(const sluice_step &s) override {
    if ((s.flags & 0xFFFFu) != 0) throw Error(SLUICE_E_UNSUPPORTED, "step.flags has an unknown bit");
    Slot &slot = slots_[next_ % 2];
    if (slot.ticket != 0 || size_t{s.n_rows} * vocab_size_ > slot.logits.size())
      throw Error(SLUICE_E_RESOURCE_EXHAUSTED, "two steps are under way, or the step is larger than the setup");
    for (uint32_t t = 0; t < s.n_tokens; ++t)
      if (s.tokens[t] < 0 || static_cast<uint32_t>(s.tokens[t]) >= vocab_size_)
        throw Error(SLUICE_E_INVALID_ARGUMENT, "step.tokens has an id outside the vocabulary");
    slot.logits.assign(slot.logits.size(), 0.0f);
    for (uint32_t r = 0; r < s.n_rows; ++r)
      slot.logits[size_t{r} * vocab_size_ + (static_cast<uint32_t>(s.tokens[s.row_token[r]]) + 1) % vocab_size_] = 10.0f;
    slot.n_rows = s.n_rows;
    return slot.ticket = next_++;
  }
  sluice_ticket kv_ops(const sluice_kv_batch &) override { return 0; }  // nothing is cached, so there is nothing to copy
  bool wait(sluice_ticket ticket, uint64_t, sluice_step_result *out) override {
    if (out != nullptr) out->n_rows = slots_[ticket % 2].n_rows, out->logits_host = slots_[ticket % 2].logits.data();
    return true;
  }
  void release(sluice_ticket ticket) override { slots_[ticket % 2].ticket = 0; }

 private:
  struct Slot {
    sluice_ticket ticket = 0;  // 0 = free
    uint32_t n_rows = 0;
    std::vector<float> logits;  // [max_rows, vocab]
  };
  const uint32_t vocab_size_;
  Slot slots_[2];
  sluice_ticket next_ = 1;
};

class @TYPE@ final : public Backend {
 public:
  @TYPE@(const sluice_host_api &, const Config &, const sluice_backend_open &) {}
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const Config &) {
    sluice_device_info d{};
    d.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    d.device_type = SLUICE_DEV_CPU, d.score = 1;
    return {d};
  }
  std::unique_ptr<Model> load(const sluice_model_source &, const Config &config) override {
    return std::make_unique<@TYPE@Model>(static_cast<uint32_t>(config.i64("vocab_size")));
  }
};

constexpr sluice_config_field kFields[] = {
    i64_field("vocab_size", "tokens of the vocabulary; not fewer than the tokenizer has", "32000", 2, 1 << 20)};
}  // namespace

SLUICE_BACKEND_PLUGIN(@TYPE@, "@NAME@", "0.1.0", kFields, "");
)";

constexpr const char *kSamplerInC = R"(/* Chooses the best token of every row. */
#include <sluice/abi/kinds/sampler.h>
#include <sluice/abi/plugin.h>

#include <math.h>
#include <string.h>

struct sluice_sampler {
  int unused;
};
struct sluice_sampler_seq {
  int unused;
};
static struct sluice_sampler the_sampler; /* without options and state, one of each will do */
static struct sluice_sampler_seq the_sequence;

static int32_t fail(sluice_status *st, int32_t code, const char *message) {
  if (SLUICE_HAS(st, sluice_status, msg)) {
    st->code = code, st->flags = 0, st->msg_len = (uint32_t)strlen(message);
    memcpy(st->msg, message, st->msg_len + 1);
  }
  return code;
}
static int32_t create(const sluice_host_api *host, const sluice_config *config, const struct sluice_model_info *model,
                      sluice_sampler **out, sluice_status *st) {
  (void)host, (void)config, (void)model, (void)st;
  *out = &the_sampler;
  return SLUICE_OK;
}
static void destroy(sluice_sampler *s) { (void)s; }
static int32_t seq_open(sluice_sampler *s, const sluice_seq_start *start, sluice_sampler_seq **out, sluice_status *st) {
  (void)s, (void)start, (void)st;
  *out = &the_sequence;
  return SLUICE_OK;
}
static int32_t seq_fork(sluice_sampler *s, const sluice_sampler_seq *from, sluice_sampler_seq **out, sluice_status *st) {
  (void)from;
  return seq_open(s, NULL, out, st);
}
static void seq_close(sluice_sampler *s, sluice_sampler_seq *q) { (void)s, (void)q; }

static int32_t apply(const sluice_sampler *s, const sluice_sample_batch *b, sluice_sample_out *out, sluice_status *st) {
  uint32_t r, i;
  (void)s;
  if (b->form != SLUICE_ROW_LOGITS_HOST) return fail(st, SLUICE_E_UNSUPPORTED, "@NAME@ takes host rows");
  for (r = 0; r < b->n_rows; ++r) {
    const float *row = b->logits_host + (size_t)r * b->vocab_size;
    float best = -INFINITY;
    for (i = 0; i < b->vocab_size; ++i)
      if (row[i] > best) best = row[i], out->token[r] = (int32_t)i;
  }
  return SLUICE_OK;
}
static int32_t commit(sluice_sampler *s, sluice_sampler_seq *const *seq, const uint32_t *tok_indptr, const int32_t *tok,
                      const float *logprob, uint32_t n_seqs, sluice_status *st) {
  (void)s, (void)seq, (void)tok_indptr, (void)tok, (void)logprob, (void)n_seqs, (void)st;
  return SLUICE_OK;
}

static sluice_sampler_vtbl table;
static sluice_plugin_desc desc;
SLUICE_PLUGIN_META(SLUICE_KIND_SAMPLER, "@NAME@", "0.1.0", 0, "");

const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *host, sluice_status *st) {
  if (host == NULL || host->abi_major != SLUICE_ABI_MAJOR || host->abi_floor > SLUICE_ABI_MINOR) {
    fail(st, SLUICE_E_ABI, "@NAME@ was built for another version of the plugin ABI; rebuild it");
    return NULL;
  }
  table.struct_size = SLUICE_SIZE_THROUGH(sluice_sampler_vtbl, reconfigure);
  table.forms = SLUICE_ROW_LOGITS_HOST;
  table.create = create, table.destroy = destroy;
  table.seq_open = seq_open, table.seq_fork = seq_fork, table.seq_close = seq_close;
  table.apply = apply, table.commit = commit;
  desc.struct_size = SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown);
  desc.abi_major = SLUICE_ABI_MAJOR, desc.abi_minor_built = SLUICE_ABI_MINOR;
  desc.kinds = SLUICE_KIND_SAMPLER, desc.name = "@NAME@", desc.version = "0.1.0";
  desc.field_stride = sizeof(sluice_config_field);
  desc.sampler = &table;
  return &desc;
}
)";

void replace(std::string &text, const std::string &from, const std::string &to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// ("top-k_2", "sampler") -> "TopK2Sampler", which is no name of the SDK's.
std::string type_name(const std::string &name, const std::string &kind) {
  std::string out;
  bool start = true;
  for (const char c : name + "-" + kind) {
    if (c == '-' || c == '_') {
      start = true;
      continue;
    }
    out += start ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    start = false;
  }
  return std::isdigit(static_cast<unsigned char>(out[0])) != 0 ? "Plugin" + out : out;
}

const char *source_of(const std::string &kind, const std::string &lang) {
  if (lang == "c") return kind == "sampler" ? kSamplerInC : nullptr;
  if (kind == "sampler") return kSampler;
  if (kind == "scheduler") return kScheduler;
  if (kind == "decoder") return kDecoder;
  if (kind == "engine") return kEngine;
  return kBackend;
}

}  // namespace

Result<std::vector<SkeletonFile>> plugin_skeleton(const std::string &kind, const std::string &name,
                                                  const std::string &lang) {
  if (plugin::kind_of(kind) == 0)
    return invalid_argument("--kind is '" + kind + "'; it must be backend, engine, scheduler, sampler or decoder");
  if (!plugin::is_plugin_name(name))
    return invalid_argument("--name is '" + name + "'; it must be 1 to 63 of a-z, 0-9, _ and -");
  if (lang != "c" && lang != "cpp") return invalid_argument("--lang is '" + lang + "'; it must be c or cpp");
  const char *source = source_of(kind, lang);
  if (source == nullptr)
    return invalid_argument("--lang c writes samplers; for a " + kind + " use --lang cpp, or start from examples/");

  std::string c_name = name;
  for (char &c : c_name)
    if (c == '-') c = '_';
  if (std::isdigit(static_cast<unsigned char>(c_name[0])) != 0) c_name = "plugin_" + c_name;
  const std::string use = kind == "sampler" ? "samplers = [\"" + name + "\"]" : kind + " = \"" + name + "\"";
  std::vector<SkeletonFile> files = {{c_name + "." + lang, source}, {"CMakeLists.txt", kCmake}, {"README.md", kReadme}, {"serve.toml", kToml}};
  for (auto &file : files) {
    replace(file.content, "@C_NAME@", c_name);
    replace(file.content, "@TYPE@", type_name(name, kind));
    replace(file.content, "@NAME@", name);
    replace(file.content, "@KIND@", kind);
    replace(file.content, "@SOURCE@", c_name + "." + lang);
    replace(file.content, "@LANGUAGE@", lang == "c" ? "C" : "CXX");
    replace(file.content, "@USE@", use);
  }
  return files;
}

}  // namespace sluice::app
