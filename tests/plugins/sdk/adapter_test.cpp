#include <gtest/gtest.h>
#include <sluice/sdk.hpp>

namespace {
using namespace sluice::sdk;

sluice_status fresh_status() {
  sluice_status st{};
  st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  return st;
}

TEST(Guard, MapsWhatIsThrown) {
  sluice_status st = fresh_status();
  EXPECT_EQ(guard(&st, [] {}), SLUICE_OK);
  EXPECT_EQ(st.msg_len, 0u);
  EXPECT_EQ(guard(&st, [] { throw Error(SLUICE_E_NOT_FOUND, "no tree"); }), SLUICE_E_NOT_FOUND);
  EXPECT_STREQ(st.msg, "no tree");
  EXPECT_EQ(st.flags, 0u);
  EXPECT_EQ(guard(&st, [] { throw std::bad_alloc(); }), SLUICE_E_RESOURCE_EXHAUSTED);
  EXPECT_EQ(guard(&st, [] { throw std::logic_error("odd"); }), SLUICE_E_INTERNAL);
  EXPECT_EQ(st.flags, SLUICE_STF_POISONED);
  EXPECT_EQ(guard(&st, [] { throw 7; }), SLUICE_E_INTERNAL);
  EXPECT_EQ(guard(nullptr, [] { throw 7; }), SLUICE_E_INTERNAL);
  EXPECT_EQ(guard(&st, [] { throw Error(SLUICE_OK, "forgot the code"); }), SLUICE_E_INTERNAL);
}

TEST(Fail, CutsBetweenCharacters) {
  sluice_status st = fresh_status();
  std::string text(494, 'a');
  text += "\xc3\xa9\xc3\xa9";  // the first e with accent would end at byte 496, one too many with the NUL
  fail(&st, SLUICE_E_INTERNAL, text);
  EXPECT_EQ(st.msg_len, 494u);
  EXPECT_EQ(st.msg[st.msg_len], '\0');
}

TEST(Fail, LeavesASmallerStatusAlone) {
  sluice_status st{};
  st.struct_size = 8;
  EXPECT_EQ(fail(&st, SLUICE_E_INTERNAL, "x"), SLUICE_E_INTERNAL);
  EXPECT_EQ(st.code, 0);
}

TEST(Give, WritesNoFurtherThanTheCallersRoom) {
  sluice_memory_plan from{};
  from.struct_size = SLUICE_SIZE_THROUGH(sluice_memory_plan, host_bytes_available);
  from.block_size = 16, from.workspace_bytes = 5, from.kv_bytes_available = 6;
  sluice_memory_plan to{};
  to.struct_size = SLUICE_SIZE_THROUGH(sluice_memory_plan, workspace_bytes);
  give(&to, from);
  EXPECT_EQ(to.workspace_bytes, 5u);
  EXPECT_EQ(to.kv_bytes_available, 0u);
  to.struct_size = 1000;  // a caller with fields that we do not know
  give(&to, from);
  EXPECT_EQ(to.struct_size, from.struct_size);
  to.struct_size = 0;
  EXPECT_THROW(give(&to, from), Error);
}

struct Count {
  uint32_t n = 0;
};
class Lowest final : public Sampler<Count> {
 public:
  static constexpr uint32_t kFlags = 0, kForms = SLUICE_ROW_LOGITS_HOST, kMinCandidates = 0;
  Lowest(const sluice_host_api &, const Config &, const sluice_model_info &) {}
  Count open(const sluice_seq_start &start, const Config &) override { return {start.n_prompt}; }
  void apply(const Rows<Count> &rows, sluice_sample_out &out) const override {
    for (uint32_t r = 0; r < rows.size(); ++r) out.token[r] = static_cast<int32_t>(rows.seq(r).n);
  }
  void commit(Count &seq, const int32_t *, const float *, uint32_t n) override { seq.n += n; }
  void bias(const Count &, BiasOut &out) const override { out.add(1, 1), out.add(2, 2); }
};

TEST(SamplerAdapter, ListsOnlyWhatIsOverridden) {
  const auto v = SamplerAdapter<Lowest>::vtbl();
  EXPECT_NE(v.bias, nullptr);
  EXPECT_EQ(v.lower, nullptr);
  EXPECT_EQ(v.validate, nullptr);
  EXPECT_EQ(v.fill_masks, nullptr);
  EXPECT_EQ(v.reconfigure, nullptr);
}

TEST(SamplerAdapter, KeepsStatePerSequenceAndSurvivesNull) {
  const auto v = SamplerAdapter<Lowest>::vtbl();
  const sluice_host_api host{};
  const sluice_model_info model{};
  sluice_status st = fresh_status();
  sluice_sampler *s = nullptr;
  ASSERT_EQ(v.create(&host, nullptr, &model, &s, &st), SLUICE_OK);
  EXPECT_EQ(v.create(&host, nullptr, nullptr, &s, &st), SLUICE_E_INVALID_ARGUMENT);
  sluice_seq_start start{};
  start.n_prompt = 3;
  sluice_sampler_seq *a = nullptr, *b = nullptr;
  ASSERT_EQ(v.seq_open(s, &start, &a, &st), SLUICE_OK);
  const uint32_t indptr[] = {0, 2};
  const int32_t tokens[] = {8, 9};
  ASSERT_EQ(v.commit(s, &a, indptr, tokens, nullptr, 1, &st), SLUICE_OK);
  ASSERT_EQ(v.seq_fork(s, a, &b, &st), SLUICE_OK);
  ASSERT_EQ(v.commit(s, &b, indptr, tokens, nullptr, 1, &st), SLUICE_OK);

  sluice_sampler_seq *rows[] = {a, b};
  int32_t chosen[2] = {-1, -1};
  sluice_sample_batch batch{};
  batch.form = SLUICE_ROW_LOGITS_HOST, batch.n_rows = 2, batch.row_seq = rows;
  sluice_sample_out out{};
  out.token = chosen;
  ASSERT_EQ(v.apply(s, &batch, &out, &st), SLUICE_OK);
  EXPECT_EQ(chosen[0], 5);
  EXPECT_EQ(chosen[1], 7);
  batch.form = SLUICE_ROW_CANDIDATES;
  EXPECT_EQ(v.apply(s, &batch, &out, &st), SLUICE_E_UNSUPPORTED);
  EXPECT_EQ(v.apply(nullptr, &batch, &out, nullptr), SLUICE_E_UNSUPPORTED);
  batch.form = SLUICE_ROW_LOGITS_HOST;
  EXPECT_EQ(v.apply(nullptr, &batch, &out, nullptr), SLUICE_E_INVALID_ARGUMENT);

  int32_t token[1];
  float value[1];
  uint32_t n = 1;
  EXPECT_EQ(v.bias(s, a, token, value, &n, &st), SLUICE_E_RESOURCE_EXHAUSTED);
  EXPECT_EQ(n, 2u);
  v.seq_close(s, a), v.seq_close(s, b), v.seq_close(s, nullptr);
  v.destroy(s);
}

class Slow final : public Model {
 public:
  void info(sluice_model_info &i) const override { i.vocab_size = 9; }
  void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const override {}
  std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const override {
    sluice_kv_group g{};
    g.struct_size = SLUICE_SIZE_THROUGH(sluice_kv_group, reserved);
    g.block_size = 16;
    return {g, g};
  }
  void configure(const sluice_model_setup &, const uint32_t *, const uint32_t *) override {}
  void sample_caps(sluice_sample_caps &) const override {}
  sluice_ticket submit(const sluice_step &) override { return 1; }
  sluice_ticket kv_ops(const sluice_kv_batch &) override { return 2; }
  bool wait(sluice_ticket t, uint64_t, sluice_step_result *out) override {
    if (out != nullptr) out->n_rows = 4;
    return t == 1;
  }
  void release(sluice_ticket) override {}
};
class SlowBackend final : public Backend {
 public:
  SlowBackend(const sluice_host_api &, const Config &, const sluice_backend_open &) {}
  static std::vector<sluice_device_info> devices(const sluice_host_api &, const Config &) {
    sluice_device_info d{};
    d.struct_size = SLUICE_SIZE_THROUGH(sluice_device_info, uuid);
    d.score = 3;
    return {d, d, d};
  }
  std::unique_ptr<Model> load(const sluice_model_source &, const Config &) override { return std::make_unique<Slow>(); }
};

TEST(BackendAdapter, RunsALife) {
  const auto v = BackendAdapter<SlowBackend>::vtbl();
  const sluice_host_api host{};
  sluice_status st = fresh_status();
  sluice_device_info devices[2] = {};
  uint32_t n = 2;
  ASSERT_EQ(v.enumerate(&host, nullptr, devices, sizeof devices[0], &n, &st), SLUICE_OK);
  EXPECT_EQ(n, 3u);
  EXPECT_EQ(devices[1].score, 3u);
  sluice_backend_open open{};
  sluice_backend *b = nullptr;
  ASSERT_EQ(v.open(&host, &open, &b, &st), SLUICE_OK);
  sluice_model_source source{};
  sluice_model *m = nullptr;
  EXPECT_EQ(v.model_load(b, &source, &m, &st), SLUICE_E_INVALID_ARGUMENT) << "no path";
  source.path = "/model";
  ASSERT_EQ(v.model_load(b, &source, &m, &st), SLUICE_OK);
  sluice_model_info info{};
  EXPECT_EQ(v.model_info(m, &info, &st), SLUICE_E_INVALID_ARGUMENT) << "no struct_size";
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  ASSERT_EQ(v.model_info(m, &info, &st), SLUICE_OK);
  EXPECT_EQ(info.vocab_size, 9u);

  struct {  // entries of a host that knows more than we do
    sluice_kv_group group;
    uint64_t later = 77;
  } groups[2] = {};
  sluice_model_setup setup{};
  ASSERT_EQ(v.kv_groups(m, &setup, &groups[0].group, sizeof groups[0], &st), SLUICE_OK);
  EXPECT_EQ(groups[1].group.block_size, 16u);
  EXPECT_EQ(groups[0].later, 77u);

  sluice_step_result result{};
  result.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
  EXPECT_EQ(v.wait(m, 1, 0, &result, &st), SLUICE_OK);
  EXPECT_EQ(result.n_rows, 4u);
  EXPECT_EQ(v.wait(m, 2, 0, nullptr, &st), SLUICE_E_TIMEOUT);
  EXPECT_EQ(v.tensor_read(m, nullptr, nullptr, 0, &st), SLUICE_E_INVALID_ARGUMENT);
  v.model_unload(m);
  v.close(b);
}

class Echo final : public Engine {
 public:
  Echo(const sluice_host_api &, const Config &, const std::string &model) {
    if (model != "echo://") throw Error(SLUICE_E_NOT_FOUND, "no " + model);
  }
  void info(sluice_engine_info &i) const override { i.inputs = SLUICE_INPUT_TEXT; }
  void generate(const sluice_engine_request &) override {}
  bool cancel(uint64_t id) override { return id == 1; }
};

TEST(EngineAdapter, RunsALife) {
  const auto v = EngineAdapter<Echo>::vtbl();
  const sluice_host_api host{};
  sluice_status st = fresh_status();
  sluice_engine *e = nullptr;
  EXPECT_EQ(v.open(&host, nullptr, "other://", &e, &st), SLUICE_E_NOT_FOUND);
  ASSERT_EQ(v.open(&host, nullptr, "echo://", &e, &st), SLUICE_OK);
  EXPECT_EQ(v.cancel(e, 1, &st), SLUICE_OK);
  EXPECT_EQ(v.cancel(e, 2, &st), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(v.generate(e, nullptr, &st), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(v.health(nullptr, nullptr), SLUICE_E_INVALID_ARGUMENT);
  v.close(e);
}

class Twins final : public Decoder<Count> {
 public:
  Twins(const sluice_host_api &, const Config &, const sluice_decoder_setup &) {}
  void needs(sluice_decoder_needs &n) const override { n.proposals = SLUICE_PROPOSE_DETERMINISTIC, n.max_nodes = 2; }
  Count open(const sluice_seq_start &, const Config &) override { return {}; }
  void draft(const sluice_draft_in &in, Tree &tree) override {
    for (uint32_t i = 0; i < in.n_seqs; ++i) tree.add(i, tree.add(i, -1, 5, 1), 6, 0.5f);
  }
  void commit(const sluice_decoder_commit &c) override { seq(c.seq[0]).n += c.n_accepted[0]; }
  uint32_t wish(const Count &s) const override { return s.n; }
};

TEST(DecoderAdapter, DraftsWithinTheHostsRoomAndCommits) {
  const auto v = DecoderAdapter<Twins>::vtbl();
  EXPECT_EQ(v.branch, nullptr);
  const sluice_host_api host{};
  sluice_status st = fresh_status();
  sluice_decoder_setup setup{};
  sluice_decoder *d = nullptr;
  ASSERT_EQ(v.create(&host, nullptr, &setup, &d, &st), SLUICE_OK);
  sluice_decoder_needs needs{};
  needs.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, max_nodes);
  ASSERT_EQ(v.needs(d, &needs, &st), SLUICE_OK);
  EXPECT_EQ(needs.max_nodes, 2u);

  sluice_seq_start start{};
  sluice_decoder_seq *s = nullptr;
  ASSERT_EQ(v.seq_open(d, &start, &s, &st), SLUICE_OK);
  uint32_t seq[3], flags[3];
  int32_t token[3], parent[3], q[3];
  float score[3];
  sluice_draft_tree tree{};
  tree.capacity = 3, tree.seq = seq, tree.flags = flags, tree.token = token, tree.parent = parent, tree.q = q;
  tree.score = score;
  sluice_draft_in in{};
  in.n_seqs = 2, in.seq = &s;
  ASSERT_EQ(v.draft(d, &in, &tree, &st), SLUICE_OK);
  EXPECT_EQ(tree.n, 3u);
  EXPECT_EQ(parent[1], 0);
  EXPECT_EQ(q[2], -1);

  const uint32_t accepted = 2;
  sluice_decoder_commit commit{};
  commit.n_seqs = 1, commit.seq = &s, commit.n_accepted = &accepted;
  ASSERT_EQ(v.commit(d, &commit, &st), SLUICE_OK);
  EXPECT_EQ(v.wish(d, s), 2u);
  v.seq_close(d, s);
  v.destroy(d);
}

class First final : public Scheduler {
 public:
  static constexpr uint32_t kFlags = 0;
  First(const Config &, const sluice_sched_setup &) {}
  void plan(const View &view, Plan &out) override {
    for (const sluice_seq_ref r : view.waiting()) out.run(r, view.t.pending[r]);
  }
};

TEST(SchedulerAdapter, ReportsAPlanThatIsTooLong) {
  const auto v = SchedulerAdapter<First>::vtbl();
  EXPECT_EQ(v.save, nullptr);
  EXPECT_EQ(v.explain, nullptr);
  const sluice_host_api host{};
  sluice_status st = fresh_status();
  const uint32_t pending[] = {4, 5};
  sluice_sched_table table{};
  table.pending = pending;
  sluice_sched_setup setup{};
  setup.table = &table;
  sluice_scheduler *s = nullptr;
  ASSERT_EQ(v.create(&host, nullptr, &setup, &s, &st), SLUICE_OK);
  const sluice_seq_ref waiting[] = {1, 0};
  sluice_sched_view view{};
  view.waiting = waiting, view.n_waiting = 2;
  uint8_t op[2];
  sluice_seq_ref ref[2];
  uint32_t tokens[2], drafts[2];
  sluice_sched_plan plan{};
  plan.capacity = 2, plan.op = op, plan.ref = ref, plan.tokens = tokens, plan.drafts = drafts;
  ASSERT_EQ(v.plan(s, &view, &plan, &st), SLUICE_OK);
  EXPECT_EQ(plan.n_acts, 2u);
  EXPECT_EQ(tokens[0], 5u);
  plan.capacity = 1;
  EXPECT_EQ(v.plan(s, &view, &plan, &st), SLUICE_E_INTERNAL);
  v.destroy(s);
}

}  // namespace
