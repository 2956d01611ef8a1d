#include "tests/plugins/decoders/medusa/decoding.hpp"

#include <sluice/abi/kinds/backend.h>
#include <time.h>

#include <boost/json.hpp>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

#include "core/model_file/gguf.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::test {
namespace {

using engine::testing::handle;
using engine::testing::load_plugin;
using engine::testing::TestHost;

// ---- a backend whose heads are replaced; its functions take no context, so what they need is kept here ----

struct Row {
  size_t prompt;
  uint32_t position;  ///< of the token that the row chooses
};
struct Oracle {
  std::vector<Tokens> texts;  ///< prompt and output
  const sluice_backend_vtbl *real = nullptr;
  uint32_t vocab = 0;
  bool has_heads = false;
  std::map<sluice_ticket, std::vector<Row>> rows;
  Tokens ids;
  std::vector<float> logprobs;
} oracle;
bool oracle_is_on = false;

int32_t oracle_info(const sluice_model *m, sluice_model_info *out, sluice_status *st) {
  const int32_t code = oracle.real->model_info(m, out, st);
  oracle.vocab = out->vocab_size, oracle.has_heads = out->n_heads > 0;
  out->n_heads = OracleHeads::kHeads, out->head_top = OracleHeads::kTop;
  return code;
}

int32_t oracle_submit(sluice_model *m, const sluice_step *step, sluice_ticket *ticket, sluice_status *st) {
  sluice_step passed = *step;
  std::vector<uint8_t> want(step->row_want, step->row_want + step->n_rows);
  for (uint8_t &w : want) w &= static_cast<uint8_t>(~SLUICE_ROW_HEADS);
  passed.row_want = want.data();
  const int32_t code = oracle.real->submit(m, &passed, ticket, st);
  if (code != SLUICE_OK) return code;
  std::vector<Row> &rows = oracle.rows[*ticket];
  rows.clear();
  uint32_t seq = 0;
  for (uint32_t r = 0; r < step->n_rows; ++r) {
    while (step->row_token[r] >= step->q_indptr[seq + 1]) ++seq;
    rows.push_back({static_cast<size_t>(step->seq_ids[seq] - 1), static_cast<uint32_t>(step->positions[step->row_token[r]]) + 1});
  }
  return code;
}

int32_t oracle_wait(sluice_model *m, sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out, sluice_status *st) {
  const int32_t code = oracle.real->wait(m, ticket, timeout_ns, out, st);
  if (code != SLUICE_OK || out == nullptr) return code;
  constexpr uint32_t kEntries = OracleHeads::kHeads * OracleHeads::kTop;
  const std::vector<Row> &rows = oracle.rows[ticket];
  oracle.ids.assign(rows.size() * kEntries, 0), oracle.logprobs.assign(oracle.ids.size(), -1);
  for (size_t r = 0; r < rows.size(); ++r) {
    const Tokens &text = oracle.texts[rows[r].prompt];
    const uint32_t rank = (rows[r].position + static_cast<uint32_t>(rows[r].prompt)) % 3;
    for (uint32_t i = 0; i < kEntries; ++i) {
      const size_t at = rows[r].position + 1 + i / OracleHeads::kTop;
      const uint32_t k = i % OracleHeads::kTop;
      const int32_t truth = at < text.size() ? text[at] : 0;
      oracle.ids[r * kEntries + i] = k == rank ? truth : static_cast<int32_t>((static_cast<uint32_t>(truth) + 1 + k) % oracle.vocab);
    }
  }
  out->head_ids = oracle.ids.data(), out->head_logprobs = oracle.logprobs.data();
  return code;
}

/// A loaded model file; not yet configured.
class Target {
 public:
  Target(TestHost &host, const Decoding &how) {
    const auto *found = load_plugin(host, "backend", how.backend);
    if (found == nullptr) throw std::runtime_error("no backend " + how.backend);
    table_ = *found->backend;
    status_.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config);
    open.config = handle(how.backend_options);
    ok(table_.open(host.api(), &open, &backend_, &status_));
    sluice_model_source source{};
    source.struct_size = SLUICE_SIZE_THROUGH(sluice_model_source, progress_ctx);
    source.path = how.model.c_str();
    const char *attach = how.heads.c_str();
    source.n_attach = how.heads.empty() ? 0 : 1, source.attach = &attach;
    source.config = handle(how.backend_options);
    ok(table_.model_load(backend_, &source, &model, &status_));
    if (oracle_is_on) {
      oracle.real = load_plugin(host, "backend", how.backend)->backend;
      oracle.rows.clear();
      table_.model_info = oracle_info, table_.submit = oracle_submit, table_.wait = oracle_wait;
    }
    info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
    ok(table_.model_info(model, &info, &status_));
  }
  ~Target() {
    table_.model_unload(model);
    table_.close(backend_);
  }
  Target(const Target &) = delete;
  Target &operator=(const Target &) = delete;

  void configure(const engine::EngineLimits &limits) {
    sluice_model_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    setup.flags = SLUICE_SETUP_BATCH_INVARIANT;
    setup.max_tokens_per_step = limits.token_budget, setup.max_seqs_per_step = limits.max_seqs;
    setup.max_rows_per_step = limits.max_rows, setup.max_tree_nodes = std::min(72u, limits.token_budget);
    setup.max_context = limits.max_context, setup.block_size = limits.block_size;
    ok(table_.configure(model, &setup, &limits.kv_blocks, nullptr, &status_));
  }
  void ok(int32_t code) const {
    if (code != SLUICE_OK) throw std::runtime_error(status_.msg);
  }
  const sluice_backend_vtbl &table() const { return table_; }

  sluice_model *model = nullptr;
  sluice_model_info info{};

 private:
  sluice_backend_vtbl table_{};
  sluice_backend *backend_ = nullptr;
  sluice_status status_{};
};

/// The defaults of a plugin and what a test sets, as text; lists with commas.
TestConfig with_defaults(const sluice_plugin_desc &desc, const TestConfig &set) {
  TestConfig all = set;
  for (uint32_t i = 0; i < desc.n_fields; ++i) {
    const auto &field = *reinterpret_cast<const sluice_config_field *>(reinterpret_cast<const char *>(desc.fields) +
                                                                       size_t{i} * desc.field_stride);
    if (field.def == nullptr || std::strcmp(field.def, "[]") == 0) continue;
    std::string text;
    for (const char *c = field.def; *c != '\0'; ++c)
      if (std::strchr("\"[] ", *c) == nullptr) text += *c;
    all.emplace(field.key, text);
  }
  return all;
}

/// An instance of a sampler or decoder, and its end.
template <class Vtbl, class Instance>
struct Made {
  const Vtbl *vtbl;
  Instance *instance = nullptr;
  ~Made() {
    if (instance != nullptr) vtbl->destroy(instance);
  }
};

double thread_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::shared_ptr<request::Request> make_request(const Decoding &how, const Tokens &prompt, size_t i) {
  auto r = std::make_shared<request::Request>();
  r->id = i + 1, r->prompt = prompt, r->max_new = how.max_new, r->seed = 1000 * i;
  r->stop_tokens = how.stop_tokens;
  r->events = std::make_shared<request::EventChannel>(nullptr);
  return r;
}

}  // namespace

OracleHeads::OracleHeads(const std::vector<Tokens> &prompts, const std::vector<Tokens> &known) {
  oracle = {};
  for (size_t i = 0; i < prompts.size(); ++i) {
    oracle.texts.push_back(prompts[i]);
    oracle.texts.back().insert(oracle.texts.back().end(), known[i].begin(), known[i].end());
  }
  oracle_is_on = true;
}
OracleHeads::~OracleHeads() { oracle_is_on = false; }

Decoded decode(const Decoding &how, const std::vector<Tokens> &prompts) {
  Decoded out;
  TestHost host;
  Target target(host, how);
  engine::EngineLimits limits;
  limits.max_seqs = how.company, limits.max_live = 64, limits.block_size = 16;
  uint32_t longest = 0;
  for (const Tokens &p : prompts) longest = std::max(longest, static_cast<uint32_t>(p.size()));
  limits.max_rows = 72 * how.company;
  limits.token_budget = longest + limits.max_rows;  // any prompt is one step
  limits.max_context = std::min(target.info.max_context, longest + how.max_new);
  limits.kv_blocks = how.kv_blocks != 0 ? how.kv_blocks : ((longest + how.max_new + 72) / 16 + 1) * how.company;
  limits.prefix_cache = false;
  target.configure(limits);
  const auto *chain = load_plugin(host, "sampler", "chain"), *drafter = load_plugin(host, "decoder", how.decoder);
  const TestConfig sampling = with_defaults(*chain, how.sampler_options), drafting = with_defaults(*drafter, how.decoder_options);
  Made<sluice_sampler_vtbl, sluice_sampler> sampler{chain->sampler};
  sluice_status status{};
  status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  if (sampler.vtbl->create(host.api(), handle(sampling), &target.info, &sampler.instance, &status) != SLUICE_OK)
    return out.failure = status.msg, out;
  Made<sluice_decoder_vtbl, sluice_decoder> decoder{drafter->decoder};
  sluice_decoder_setup setup{};
  setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
  setup.max_seqs = how.company, setup.target = &target.info;
  if (decoder.vtbl->create(host.api(), handle(drafting), &setup, &decoder.instance, &status) != SLUICE_OK)
    return out.failure = status.msg, out;

  engine::EngineParts parts;
  parts.host = host.api(), parts.clock = &host.clock;
  parts.backend_name = how.backend, parts.backend = &target.table(), parts.model = target.model;
  parts.scheduler_name = "fcfs", parts.scheduler = load_plugin(host, "scheduler", "fcfs")->scheduler;
  parts.samplers = {{"chain", sampler.vtbl, sampler.instance}};
  parts.decoder_name = how.decoder, parts.decoder = decoder.vtbl, parts.decoder_instance = decoder.instance;
  std::unique_ptr<Target> small;
  if (!how.draft_model.empty()) {
    Decoding draft = how;
    draft.model = how.draft_model, draft.heads.clear();
    small = std::make_unique<Target>(host, draft);
    small->configure(limits);
    parts.draft_model = {"draft model", &small->table(), small->model, limits.token_budget};
  }
  auto core = engine::EngineCore::create(parts, limits);
  if (!core) return out.failure = core.error().message, out;
  std::vector<std::shared_ptr<request::Request>> requests;
  for (size_t round = 0; round < (how.twice ? 2 : 1); ++round)
    for (size_t i = 0; i < prompts.size(); ++i) requests.push_back(make_request(how, prompts[i], i));
  size_t next = 0;
  const double began = thread_seconds();
  while (out.failure.empty() && (next < requests.size() || (*core)->live() > 0)) {
    while (next < requests.size() && (*core)->live() < how.company)
      if (auto r = (*core)->submit(requests[next++]); !r) out.failure = r.error().message;
    (*core)->step(UINT64_MAX);
    host.clock.advance_ns(1'000'000);
    if (std::string wrong = (*core)->audit(); !wrong.empty()) out.failure = wrong;
  }
  out.cpu_seconds = thread_seconds() - began;
  for (const auto &r : requests) {
    std::vector<request::Event> events;
    r->events->drain(events);
    Tokens &answer = out.answers.emplace_back();
    for (const auto &event : events) {
      if (event.error != nullptr) out.failure = event.error->message;
      if (event.token >= 0) answer.push_back(event.token);
    }
  }
  if (how.twice) out.answers.erase(out.answers.begin(), out.answers.begin() + static_cast<ptrdiff_t>(prompts.size()));
  out.stats = (*core)->stats();
  return out;
}

sluice_model_info info_of(const Decoding &how) {
  TestHost host;
  return Target(host, how).info;
}

HeadGuesses guess_along(const Decoding &how, const Tokens &text) {
  TestHost host;
  Target target(host, how);
  const auto n = static_cast<uint32_t>(text.size());
  engine::EngineLimits limits;
  limits.max_seqs = 1, limits.block_size = 16, limits.token_budget = limits.max_rows = n;
  limits.kv_blocks = (n + 15) / 16;
  limits.max_context = target.info.max_context;
  target.configure(limits);
  std::vector<int32_t> positions(n);
  std::vector<uint32_t> slots(n), blocks(limits.kv_blocks), row_token(n);
  for (uint32_t i = 0; i < n; ++i) positions[i] = static_cast<int32_t>(i), slots[i] = row_token[i] = i;
  for (uint32_t i = 0; i < blocks.size(); ++i) blocks[i] = i;
  const std::vector<uint8_t> want(n, SLUICE_ROW_HEADS);
  const uint32_t q_indptr[] = {0, n}, kv_len[] = {0}, block_indptr[] = {0, limits.kv_blocks};
  const sluice_seq_id seq_ids[] = {1};
  sluice_step step{};
  step.struct_size = SLUICE_SIZE_THROUGH(sluice_step, row_history);
  step.step_no = 1, step.n_tokens = step.n_rows = n, step.n_seqs = step.n_kv_groups = 1;
  step.tokens = text.data(), step.positions = positions.data(), step.slots = slots.data(), step.seq_ids = seq_ids;
  step.q_indptr = q_indptr, step.kv_len = kv_len, step.block_indptr = block_indptr, step.block_ids = blocks.data();
  step.row_token = row_token.data(), step.row_want = want.data();
  sluice_ticket ticket = 0;
  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  target.ok(target.table().submit(target.model, &step, &ticket, nullptr));
  target.ok(target.table().wait(target.model, ticket, UINT64_MAX, &result, nullptr));
  HeadGuesses out{target.info.n_heads, target.info.head_top, {}};
  out.ids.assign(result.head_ids, result.head_ids + size_t{n} * out.n_heads * out.head_top);
  target.table().release(target.model, ticket);
  return out;
}

ShippedModel ShippedModel::find() {
  const std::filesystem::path folder = std::filesystem::path(SLUICE_SOURCE_DIR) / "examples/model";
  ShippedModel m{folder / "sluice-tiny-q8_0.gguf", folder / "sluice-tiny-medusa.safetensors",
                 folder / "sluice-tiny-draft-f16.gguf"};
  m.exists = std::filesystem::exists(m.target) && std::filesystem::exists(m.heads);
  return m;
}

std::vector<Tokens> ShippedModel::prompts(const std::string &kind, size_t most) const {
  const auto file = model_file::Gguf::open(target).value();
  const auto tokenizer = text::Tokenizer::from_gguf(file).value();
  const auto chat = text::ChatTemplate::from_gguf(file).value();
  const bool story = kind == "story";
  std::ifstream in(std::filesystem::path(SLUICE_SOURCE_DIR) / "examples/model/eval" / (story ? "openings.jsonl" : "chats.jsonl"));
  std::vector<Tokens> out;
  for (std::string line; std::getline(in, line) && out.size() < most;) {
    const auto entry = boost::json::parse(line).as_object();
    if (entry.at("kind").as_string() != kind) continue;
    const std::string text = story ? std::string(entry.at("prompt").as_string())
                                   : chat.render(entry.at("messages").as_array(), {}).value();
    out.push_back(tokenizer->encode(text, {.add_bos = true, .parse_special = !story}).value());
  }
  return out;
}

Tokens ShippedModel::stop_tokens() const {
  const auto file = model_file::Gguf::open(target).value();
  return text::Tokenizer::from_gguf(file).value()->end_tokens();
}

}  // namespace sluice::test
