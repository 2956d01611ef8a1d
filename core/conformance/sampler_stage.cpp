// Stage G: a sampler judges rows. What it says about one row depends on that row and its sequence alone.
#include <fmt/format.h>
#include <sluice/sdk/sampling.hpp>

#include <algorithm>
#include <boost/json/object.hpp>
#include <cmath>
#include <random>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kRowVocab = 512, kRows = 6, kCandidates = 64;
using Seq = sluice_sampler_seq *;

/// A row as the host would send it.
struct Row {
  Seq seq = nullptr;
  int32_t parent = -1, token = -1;
  uint64_t seed = 0;
  uint32_t position = 0;
  std::vector<float> logits;  ///< [kRowVocab]
};
/// What became of it. token  chosen by the sampler, or by the draw from what it left
struct Sampled {
  int32_t token = -1;
  std::vector<float> logits;
  bool operator==(const Sampled &) const = default;
};

class SamplerCheck {
 public:
  SamplerCheck(const Subject &subject, const plugin::Options &options, const std::string &with, Findings &findings)
      : v_(*subject.desc().sampler), subject_(subject), options_(options), with_(with), findings_(findings) {}

  void run() {
    auto made = plugin::Sampler::create(subject_.library(), subject_.api(), *subject_.options(), plain_model(kRowVocab));
    if (!made) return findings_.skip("creating it is refused: " + made.error().message);
    instance_ = std::move(*made);
    sampler_ = instance_->get();
    form_ = (v_.forms & SLUICE_ROW_LOGITS_HOST) != 0 ? SLUICE_ROW_LOGITS_HOST
            : (v_.forms & SLUICE_ROW_CANDIDATES) != 0 ? SLUICE_ROW_CANDIDATES : 0;
    if (v_.fill_masks != nullptr) check_masks();
    if (v_.apply == nullptr && v_.fill_masks != nullptr) return;
    if (v_.apply == nullptr || form_ == 0) return findings_.skip("it has no apply() on host rows or candidates");
    std::vector<Row> rows;
    for (uint32_t i = 0; i < kRows; ++i) rows.push_back(make_row(open(i), i));
    check_repeatable(rows);
    check_independent(rows);
    check_fork();
    check_path();
    check_lowered();
    check_candidates(rows);
    for (const Row &row : rows) v_.seq_close(sampler_, row.seq);
  }

 private:
  void fail(const std::string &rule, const std::string &message, const std::string &fix) {
    findings_.fail(rule, message + with_, fix);
  }

  Row make_row(Seq seq, uint64_t seed) {
    Row row;
    row.seq = seq, row.seed = 100 + seed, row.position = 10;
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0, 4);
    for (uint32_t v = 0; v < kRowVocab; ++v) row.logits.push_back(normal(random));
    return row;
  }

  Seq open(uint64_t id) {
    const int32_t prompt[] = {5, 6, 7, 5, 6};
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
    start.seq = start.request_id = id + 1, start.seed = 100 + id, start.n_answers = 1, start.max_new = 100;
    start.prompt = prompt, start.n_prompt = 5;
    start.request = options_.handle();
    Seq seq = nullptr;
    sluice_status st = plugin::fresh_status();
    findings_.doing("seq_open()");
    if (const int32_t code = v_.seq_open(sampler_, &start, &seq, &st); code != SLUICE_OK)
      fail("G0 a sequence opens", fmt::format("seq_open() returned {}: {}", code, st.msg), "defaults must always be accepted");
    return seq;
  }

  void commit(Seq seq, std::vector<int32_t> tokens) {
    const uint32_t indptr[2] = {0, static_cast<uint32_t>(tokens.size())};
    const std::vector<float> logprobs(tokens.size(), -1.0f);
    findings_.doing("commit()");
    if (v_.commit(sampler_, &seq, indptr, tokens.data(), logprobs.data(), 1, nullptr) != SLUICE_OK)
      fail("G0 a commit succeeds", "commit() of a token failed", "it is told what has happened, and cannot object");
  }

  std::vector<Sampled> apply(const std::vector<Row> &rows) {
    const auto n = static_cast<uint32_t>(rows.size());
    std::vector<Seq> seqs;
    std::vector<int32_t> parents, tokens, ids, out_token(n + 16, -7);
    std::vector<uint64_t> seeds;
    std::vector<uint32_t> positions;
    std::vector<float> logits, values, lse, out_logprob(n + 16, NAN);
    for (const Row &row : rows) {
      seqs.push_back(row.seq), parents.push_back(row.parent), tokens.push_back(row.token);
      seeds.push_back(row.seed), positions.push_back(row.position);
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
      std::vector<int32_t> order(kRowVocab);
      for (uint32_t i = 0; i < kRowVocab; ++i) order[i] = static_cast<int32_t>(i);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return row.logits[static_cast<size_t>(a)] > row.logits[static_cast<size_t>(b)];
      });
      double sum = 0;
      for (const float l : row.logits) sum += std::exp(static_cast<double>(l));
      lse.push_back(static_cast<float>(std::log(sum)));
      for (uint32_t i = 0; i < kCandidates; ++i) ids.push_back(order[i]), values.push_back(row.logits[static_cast<size_t>(order[i])]);
    }
    std::fill_n(out_token.begin(), n, -1);
    sluice_sample_batch batch{};
    batch.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_batch, sync);
    batch.form = form_, batch.n_rows = n, batch.vocab_size = kRowVocab;
    batch.row_seq = seqs.data(), batch.row_parent = parents.data(), batch.row_token = tokens.data();
    batch.row_seed = seeds.data(), batch.row_position = positions.data();
    if (form_ == SLUICE_ROW_CANDIDATES) {
      batch.n_candidates = kCandidates;
      batch.cand_ids = ids.data(), batch.cand_logits = values.data(), batch.row_lse = lse.data();
    } else {
      batch.logits_host = logits.data();
    }
    sluice_sample_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_out, token_dev);
    out.token = out_token.data(), out.logprob = out_logprob.data();
    sluice_status st = plugin::fresh_status();
    findings_.doing("apply()");
    const int32_t code = v_.apply(sampler_, &batch, &out, &st);
    if (code != SLUICE_OK) fail("G1 apply succeeds", fmt::format("code {}: {}", code, st.msg), "these are ordinary rows");
    for (uint32_t i = n; i < n + 16; ++i)
      if (out_token[i] != -7) {
        fail("G2 it stays in its room", "apply() wrote tokens behind the last row", "n_rows entries belong to the call");
        break;
      }
    std::vector<Sampled> result;
    for (uint32_t r = 0; r < n; ++r) {
      Sampled o;
      o.token = out_token[r];
      if (o.token < -1 || o.token >= static_cast<int32_t>(kRowVocab)) {
        fail("G2 it stays in its room", fmt::format("token {} of a vocabulary of {}", o.token, kRowVocab), "choose an id of the vocabulary, or -1");
        o.token = -1;
      }
      if (form_ == SLUICE_ROW_LOGITS_HOST) {
        o.logits.assign(logits.begin() + r * kRowVocab, logits.begin() + (r + 1) * kRowVocab);
        if (o.token < 0) o.token = sdk::draw_row(o.logits.data(), kRowVocab, seeds[r], positions[r]);
      } else {
        o.logits.assign(values.begin() + r * kCandidates, values.begin() + (r + 1) * kCandidates);
        std::vector<sdk::Ranked> list;
        for (uint32_t i = 0; i < kCandidates; ++i) list.push_back({o.logits[i], ids[r * kCandidates + i]});
        if (o.token < 0) o.token = sdk::draw_list(list.data(), list.size(), seeds[r], positions[r]);
      }
      result.push_back(std::move(o));
    }
    return result;
  }

  void check_repeatable(const std::vector<Row> &rows) {
    if (apply(rows) != apply(rows))
      fail("G3 apply changes no state", "the same rows gave another outcome the second time",
           "state moves in commit() alone; randomness comes from row_seed and row_position (rng.h)");
  }

  void check_independent(const std::vector<Row> &rows) {
    const auto together = apply(rows);
    std::vector<Row> backwards(rows.rbegin(), rows.rend());
    auto reversed = apply(backwards);
    std::reverse(reversed.begin(), reversed.end());
    if (reversed != together)
      fail("G4 rows do not know each other", "in another order the rows gave another outcome",
           "keep nothing from one row to the next");
    for (size_t i = 0; i < rows.size(); ++i)
      if (apply({rows[i]}).front() != together[i])
        return fail("G4 rows do not know each other", fmt::format("row {} alone gives another outcome than in company", i),
                    "keep nothing from one row to the next");
  }

  void check_fork() {
    const Seq one = open(50), two = open(50);
    commit(one, {9, 10}), commit(two, {9, 10});
    Seq fork = nullptr;
    findings_.doing("seq_fork()");
    if (v_.seq_fork(sampler_, one, &fork, nullptr) != SLUICE_OK)
      return fail("G5 forks are independent", "seq_fork() failed", "a fork is a copy of the state");
    const auto before = apply({make_row(one, 7)});
    commit(fork, {7, 7, 7}), commit(two, {7, 7, 7});
    if (apply({make_row(one, 7)}) != before)
      fail("G5 forks are independent", "a commit to a fork changed its original", "copy the state, do not share it");
    if (apply({make_row(fork, 7)}) != apply({make_row(two, 7)}))
      fail("G5 forks are independent", "a fork with the same tokens as another sequence gives another outcome",
           "a fork begins with everything that its original has seen");
    for (const Seq seq : {one, two, fork}) v_.seq_close(sampler_, seq);
  }

  void check_path() {
    const Seq seq = open(60);
    const bool stateful = (v_.flags & SLUICE_SMPF_STATEFUL) != 0;
    const Row root = make_row(seq, 60);
    Row next = make_row(seq, 61);
    next.position = root.position + 1;
    Sampled in_tree;
    if (stateful) {
      next.parent = 0, next.token = 9;
      in_tree = apply({root, next}).back();
      next.parent = next.token = -1;
    } else {
      in_tree = apply({next}).front();
    }
    commit(seq, {9});
    if (apply({next}).front() != in_tree)
      stateful ? fail("G6 a path counts like commits", "a row behind a draft token differs from the row after its commit",
                      "judge a row as if row_token of its ancestors had been committed")
               : fail("G6 a path counts like commits", "a commit changed the outcome, and SMPF_STATEFUL is not set",
                      "set SLUICE_SMPF_STATEFUL, so that the host sends whole paths");
    v_.seq_close(sampler_, seq);
  }

  void check_lowered() {
    if (v_.lower == nullptr || form_ != SLUICE_ROW_LOGITS_HOST) return;
    sluice_sample_caps caps{};
    caps.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
    caps.flags = SLUICE_SCF_ANY_ORDER | SLUICE_SCF_TOP_K_TIES | SLUICE_SCF_CANONICAL_DRAW;
    caps.stages = 0x3FE, caps.forms = 15, caps.max_logprobs = 20, caps.max_candidates = kCandidates, caps.logprobs_kinds = 15;
    for (uint64_t i = 0; i < 64; ++i) {
      const Seq seq = open(70 + i);
      sluice_sample_spec spec{};
      spec.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_spec, logprobs_kind);
      spec.temperature = spec.top_p = spec.repetition = 1;
      findings_.doing("lower()");
      const int32_t code = v_.lower(sampler_, seq, &caps, &spec, nullptr);
      if (code == SLUICE_OK) {
        if (const char *problem = sdk::spec_problem(spec))
          return fail("G7 lower() means what apply() does", std::string("the spec is wrong: ") + problem, "set what its stages use");
        const Row row = make_row(seq, 70 + i);
        const bool penalties = std::any_of(spec.stage, spec.stage + spec.n_stages, [](uint8_t s) {
          return s == SLUICE_STAGE_REPETITION || s == SLUICE_STAGE_FREQUENCY || s == SLUICE_STAGE_PRESENCE ||
                 s == SLUICE_STAGE_BIAS || s == SLUICE_STAGE_MASK;
        });
        std::vector<float> logits = row.logits;
        sdk::RowSampler device;
        device.run(logits.data(), kRowVocab, spec);
        const int32_t lowered = device.draw(row.seed, row.position), applied = apply({row}).front().token;
        if (!penalties && lowered != applied)
          return fail("G7 lower() means what apply() does", fmt::format("the device would choose {}, apply() {}", lowered, applied),
                      "the stages that lower() lists must do to a row what apply() does to it");
      } else if (code != SLUICE_E_UNSUPPORTED) {
        return fail("G7 lower() means what apply() does", fmt::format("lower() returned {}", code), "refuse with SLUICE_E_UNSUPPORTED");
      }
      v_.seq_close(sampler_, seq);
    }
  }

  /// What is chosen from all logits, if it is among the best ones, is chosen from those alone too.
  void check_candidates(const std::vector<Row> &rows) {
    constexpr uint32_t kBoth = SLUICE_ROW_LOGITS_HOST | SLUICE_ROW_CANDIDATES;
    if ((v_.forms & kBoth) != kBoth || v_.min_candidates > kCandidates) return;
    const auto whole = apply(rows);
    form_ = SLUICE_ROW_CANDIDATES;
    const auto head = apply(rows);
    form_ = SLUICE_ROW_LOGITS_HOST;
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto &l = rows[r].logits;
      if (whole[r].token < 0 || whole[r].token >= static_cast<int32_t>(kRowVocab)) continue;  // nothing left, or reported already
      const float chosen = l[static_cast<size_t>(whole[r].token)];
      if (std::count_if(l.begin(), l.end(), [&](float x) { return x > chosen; }) >= static_cast<std::ptrdiff_t>(kCandidates)) continue;
      if (head[r].token != whole[r].token)
        return fail("G8 candidates are enough", fmt::format("row {}: {} of all logits, {} of the {} best", r, whole[r].token, head[r].token, kCandidates),
                    "a sampler that takes both forms chooses the same token; row_lse holds what the others weigh");
    }
  }

  std::vector<uint32_t> masks(Seq seq, const std::vector<int32_t> &token, const std::vector<int32_t> &parent,
                              uint32_t preset, std::vector<uint8_t> &dead) {
    constexpr uint32_t kWords = kRowVocab / 32;
    const auto n = static_cast<uint32_t>(token.size());
    std::vector<uint32_t> out((n + 1) * kWords + 8, 0x0BADF00Du);
    std::fill_n(out.begin(), (n + 1) * kWords, preset);
    dead.assign(n + 8, 7);
    std::fill_n(dead.begin(), n, 0);
    findings_.doing("fill_masks()");
    sluice_status st = plugin::fresh_status();
    if (const int32_t code = v_.fill_masks(sampler_, seq, n, token.data(), parent.data(), out.data(), kWords, dead.data(), &st); code != SLUICE_OK)
      fail("G9 masks are what a grammar allows", fmt::format("fill_masks() returned {}: {}", code, st.msg), "these are ordinary nodes");
    if (std::any_of(out.end() - 8, out.end(), [](uint32_t w) { return w != 0x0BADF00Du; }) || dead[n] != 7)
      fail("G2 it stays in its room", "fill_masks() wrote behind the last mask", "1 + n_nodes masks of mask_n_words words, n_nodes flags");
    out.resize((n + 1) * kWords), dead.resize(n);
    return out;
  }

  /// Masks are added to what is there, do not change the sequence, and a node's is that of the sequence after the path.
  void check_masks() {
    constexpr uint32_t kWords = kRowVocab / 32;
    const char *rule = "G9 masks are what a grammar allows";
    const Seq seq = open(90), other = open(90);
    std::vector<uint8_t> dead;
    const auto root = masks(seq, {}, {}, ~0u, dead);
    std::vector<int32_t> allowed, forbidden;
    for (uint32_t id = 0; id < kRowVocab; ++id) ((root[id / 32] >> (id % 32) & 1) != 0 ? allowed : forbidden).push_back(static_cast<int32_t>(id));
    if (allowed.empty()) return fail(rule, "the first mask allows nothing", "a finished grammar leaves the stop tokens");
    const auto half = masks(seq, {}, {}, 0x0F0F0F0Fu, dead);
    for (uint32_t w = 0; w < kWords; ++w)
      if (half[w] != (root[w] & 0x0F0F0F0Fu)) return fail(rule, "bits that another sampler had cleared came back, or others went", "AND into the masks; they are preset");
    const int32_t token = allowed[allowed.size() / 2];
    const auto tree = masks(seq, {token}, {-1}, ~0u, dead);
    if (dead[0] != 0) fail(rule, "a node whose token is allowed is called dead", "dead says that the node's own token is forbidden");
    if (!std::equal(root.begin(), root.end(), tree.begin())) fail(rule, "with a draft behind it the root has another mask", "mask 0 is the root's");
    commit(other, {token});
    const auto after = masks(other, {}, {}, ~0u, dead);
    if (!std::equal(after.begin(), after.end(), tree.begin() + kWords))
      fail(rule, "a node's mask differs from that of the sequence after the same token", "a node's mask comes after its token and those of its ancestors");
    if (masks(seq, {}, {}, ~0u, dead) != root) fail(rule, "asking changed the sequence", "only commit() changes state");
    if (!forbidden.empty()) {
      (void)masks(seq, {forbidden.front()}, {-1}, ~0u, dead);
      if (dead[0] == 0) fail(rule, "a node whose token is forbidden is not called dead", "set dead, so that its subtree is not computed");
    }
    for (const Seq s : {seq, other}) v_.seq_close(sampler_, s);
  }

  const sluice_sampler_vtbl &v_;
  const Subject &subject_;
  const plugin::Options &options_;
  const std::string with_;
  Findings &findings_;
  std::unique_ptr<plugin::Sampler> instance_;
  sluice_sampler *sampler_ = nullptr;
  uint32_t form_ = 0;
};

}  // namespace

void check_sampler(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  SamplerCheck(*subject, *subject->options(), "", findings).run();
  if (const auto usual = usual_options(*subject))
    SamplerCheck(*subject, *usual, " (with temperature 0.7, top_p 0.9 and penalties)", findings).run();
}

std::shared_ptr<const plugin::Options> usual_options(const Subject &sampler) {
  boost::json::object usual;
  const auto keys = sampler.library().schema->keys(true);
  const std::pair<const char *, double> values[] = {{"temperature", 0.7}, {"top_p", 0.9}, {"min_p", 0.02},
                                                    {"repetition_penalty", 1.2}, {"presence_penalty", 0.5}};
  for (const auto &[key, value] : values)
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) usual[key] = value;
  if (usual.empty()) return nullptr;
  const auto options = plugin::Options::from_json(*sampler.options(), usual);
  return options ? *options : nullptr;
}

}  // namespace sluice::conformance
