// Stage I: a decoder proposes. What it says about a sequence depends on that sequence's text and on the heads and drafts
// that it is shown, and asking it changes nothing.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "core/conformance/stages.hpp"
#include "core/engine/draft_tree.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kVocab = 512, kCases = 24;
using Seq = sluice_decoder_seq *;
using Tokens = std::vector<int32_t>;

struct Node {
  int32_t token, parent;  ///< parent: index among the nodes of its sequence, -1 = the root
  float score;
  bool operator==(const Node &) const = default;
};
using Draft = std::vector<Node>;

/// A sequence and everything that was committed to it.
struct Text {
  Seq seq = nullptr;
  Tokens tokens;
};

uint64_t hash_of(const Tokens &tokens, uint64_t salt) {
  uint64_t h = 14695981039346656037ull ^ salt;
  for (const int32_t t : tokens) h = (h ^ static_cast<uint64_t>(t)) * 0x100000001b3ull;
  return h ^ (h >> 29);
}

class DecoderCheck {
 public:
  DecoderCheck(const Subject &subject, Findings &findings)
      : subject_(subject), findings_(findings), v_(*subject.desc().decoder), target_(plain_model(kVocab)) {}

  void run() {
    instance_ = make();
    if (!instance_) return;
    decoder_ = instance_->get(), needs_ = instance_->needs();
    check_needs();
    check_empty_calls();
    if (needs_.max_branches > 1) return check_branches();
    if (needs_.max_nodes == 0) return findings_.note("it drafts nothing");
    check_trees();
    check_room();
    check_lost_steps();
    check_company();
    check_forks();
  }

 private:
  void fail(const char *rule, const std::string &message, const char *fix) { findings_.fail(rule, message, fix); }

  std::unique_ptr<plugin::Decoder> make() {
    findings_.doing("creating it for a model with heads");
    auto made = plugin::Decoder::create(subject_.library(), subject_.api(), *subject_.options(), 8, target_);
    if (made) return std::move(*made);
    if (made.error().code == Code::kInternal) fail("I1 needs add up", made.error().message, "see sluice_decoder_needs");
    else findings_.skip("create is refused: " + made.error().message);
    return nullptr;
  }

  void check_needs() {
    if ((needs_.proposals == 0) != (needs_.max_nodes == 0) || (needs_.max_nodes > 0 && needs_.max_depth == 0))
      fail("I1 needs add up", fmt::format("proposals {:#x}, max_nodes {}, max_depth {}", needs_.proposals, needs_.max_nodes,
                                          needs_.max_depth), "all three are 0 for plain decoding, none otherwise");
    if ((needs_.proposals & SLUICE_PROPOSE_SAMPLED) != 0 && (needs_.proposals & SLUICE_PROPOSE_SAMPLED_IID) != 0)
      fail("I1 needs add up", "siblings are drawn with and without replacement", "SAMPLED and SAMPLED_IID exclude each other");
    if (needs_.n_heads > target_.n_heads)
      fail("I1 needs add up", fmt::format("it uses {} heads of a model that has {}", needs_.n_heads, target_.n_heads),
           "look at setup.target in create()");
  }

  Text open(const Tokens &tokens, uint64_t id = 1) {
    Text text{nullptr, tokens};
    const int32_t stop[] = {2};
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
    start.n_prompt = static_cast<uint32_t>(tokens.size()), start.prompt = text.tokens.data();
    start.seq = start.request_id = id, start.seed = 99, start.n_answers = 1, start.max_new = 400;
    start.n_stop = 1, start.stop_tokens = stop;
    findings_.doing("seq_open()");
    sluice_status st = plugin::fresh_status();
    if (const int32_t code = v_.seq_open(decoder_, &start, &text.seq, &st); code != SLUICE_OK)
      fail("I0 ordinary calls succeed", fmt::format("seq_open returned {}: {}", code, st.msg), "see kinds/decoder.h");
    return text;
  }

  void commit(Text &text, const Tokens &more) {
    sluice_decoder_commit c{};
    c.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
    const uint32_t indptr[] = {0, static_cast<uint32_t>(more.size())}, none[] = {0};
    c.n_seqs = 1, c.seq = &text.seq, c.tok_indptr = indptr, c.tok = more.data(), c.n_drafted = c.n_accepted = none;
    c.step_ns = c.plain_ns = 1'000'000;
    findings_.doing("commit()");
    sluice_status st = plugin::fresh_status();
    if (const int32_t code = v_.commit(decoder_, &c, &st); code != SLUICE_OK)
      fail("I0 ordinary calls succeed", fmt::format("commit returned {}: {}", code, st.msg), "see kinds/decoder.h");
    text.tokens.insert(text.tokens.end(), more.begin(), more.end());
  }

  /// One draft() call for these texts, with all its rounds, as the host makes it and judges it. Empty after a failure.
  std::vector<Draft> draft(const std::vector<const Text *> &texts, const std::vector<uint32_t> &budgets,
                           const std::string &doing) {
    engine::DraftTree tree(needs_, kVocab);
    tree.open(static_cast<uint32_t>(texts.size()));
    Input in(*this, texts, budgets);
    std::vector<uint8_t> fed;
    for (uint32_t round = 0; round <= needs_.max_rounds; ++round) {
      findings_.doing(doing);
      sluice_status st = plugin::fresh_status();
      if (const int32_t code = v_.draft(decoder_, in.abi(round), tree.again(), &st); code != SLUICE_OK) {
        fail("I0 ordinary calls succeed", fmt::format("{}: draft returned {}: {}", doing, code, st.msg), "see draft.h");
        return {};
      }
      if (const std::string wrong = tree.check(0); !wrong.empty()) {
        fail("I2 trees are sound", doing + ": " + wrong, "parents first, tokens of the vocabulary, within needs; see draft.h");
        return {};
      }
      fed.resize(tree.size());
      if (!in.feed(tree, fed)) break;
    }
    return split(tree, budgets, doing);
  }

  /// What one draft() call is shown. Everything is a function of the texts.
  struct Input {
    Input(const DecoderCheck &check, const std::vector<const Text *> &texts, const std::vector<uint32_t> &budgets)
        : needs(check.needs_), budget(budgets) {
      for (const Text *text : texts) {
        seq.push_back(text->seq), root.push_back(text->tokens.back());
        position.push_back(static_cast<uint32_t>(text->tokens.size()) - 1);
        of_root.push_back(hash_of(text->tokens, 7));
        for (uint32_t i = 0; needs.n_heads > 0 && i < check.target_.n_heads * check.target_.head_top; ++i) {
          const uint32_t head = i / check.target_.head_top, rank = i % check.target_.head_top;
          heads.push_back(static_cast<int32_t>((hash_of(text->tokens, head) + rank) % kVocab));
          head_logprobs.push_back(-0.5f * static_cast<float>(rank + 1));
        }
      }
      if (needs.draft_model != nullptr)  // it has been fed the roots
        for (size_t i = 0; i < texts.size(); ++i) fed_node.push_back(-1 - static_cast<int32_t>(i));
      in.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_in, head_top);
      in.n_seqs = static_cast<uint32_t>(texts.size());
      in.seq = seq.data(), in.budget = budget.data(), in.root_token = root.data(), in.root_position = position.data();
      in.draws = needs.draws, in.n_top = needs.n_top;
      if (heads.empty()) return;
      in.head_ids = heads.data(), in.head_logprobs = head_logprobs.data();
      in.n_heads = check.target_.n_heads, in.head_top = check.target_.head_top;
    }

    const sluice_draft_in *abi(uint32_t round) {
      in.round = round, in.n_fed = static_cast<uint32_t>(fed_node.size());
      token.clear(), q.clear(), top.clear(), top_logprobs.clear();
      for (const int32_t node : fed_node) {
        const uint64_t h = node < 0 ? of_root[static_cast<size_t>(-1 - node)] : 977 * static_cast<uint64_t>(node + 1);
        for (uint32_t i = 0; i < needs.draws; ++i) token.push_back(static_cast<int32_t>((h + 3 * i) % kVocab)), q.push_back(-1);
        for (uint32_t i = 0; i < needs.n_top; ++i)
          top.push_back(static_cast<int32_t>((h + 3 * i) % kVocab)), top_logprobs.push_back(-0.5f * static_cast<float>(i + 1));
      }
      in.fed_node = fed_node.data(), in.fed_token = token.data(), in.fed_q = q.data();
      in.fed_top_ids = top.data(), in.fed_top_logprobs = top_logprobs.data();
      return &in;
    }

    /// Runs the "draft model" over nodes that ask for it; false when none does.
    bool feed(const engine::DraftTree &tree, std::vector<uint8_t> &fed) {
      fed_node.clear();
      for (uint32_t node = 0; node < tree.size(); ++node)
        if (tree.feeds(node) && fed[node]++ == 0) fed_node.push_back(static_cast<int32_t>(node));
      return !fed_node.empty();
    }

    const sluice_decoder_needs &needs;
    const std::vector<uint32_t> budget;
    std::vector<Seq> seq;
    Tokens root, fed_node, token, q, top, heads;
    std::vector<uint32_t> position;
    std::vector<uint64_t> of_root;
    std::vector<float> top_logprobs, head_logprobs;
    sluice_draft_in in{};
  };

  std::vector<Draft> split(const engine::DraftTree &tree, const std::vector<uint32_t> &budgets, const std::string &doing) {
    std::vector<Draft> out(budgets.size());
    std::vector<int32_t> place(tree.size());
    const uint32_t room = std::max(needs_.max_nodes, needs_.max_fed);
    for (uint32_t node = 0; node < tree.size(); ++node) {
      Draft &own = out[tree.seq(node)];
      const int32_t parent = tree.parent(node);
      place[node] = static_cast<int32_t>(own.size());
      own.push_back({tree.token(node), parent < 0 ? -1 : place[static_cast<size_t>(parent)], tree.score(node)});
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i].size() > room)
        fail("I2 trees are sound", fmt::format("{}: {} nodes for one sequence, its needs say {}", doing, out[i].size(), room),
             "needs.max_nodes is per sequence");
      if (budgets[i] == 0 && !out[i].empty())
        fail("I2 trees are sound", fmt::format("{}: {} nodes for a budget of 0", doing, out[i].size()),
             "a budget of 0 means: nothing, this time");
    }
    return out;
  }

  /// Text that repeats itself, as texts do.
  static Tokens text_of(uint64_t i) {
    std::mt19937_64 random(i);
    Tokens tokens;
    const uint64_t period = 3 + random() % 9, length = 4 + random() % 60;
    for (uint64_t k = 0; k < length; ++k) tokens.push_back(static_cast<int32_t>(10 + (k % period) * 7 % 50 + (random() % 16 == 0)));
    return tokens;
  }

  void check_empty_calls() {
    if (v_.draft != nullptr && needs_.max_branches <= 1) {
      engine::DraftTree tree(needs_, kVocab);
      tree.open(0);
      Input in(*this, {}, {});
      findings_.doing("draft() of nothing");
      if (v_.draft(decoder_, in.abi(0), tree.again(), nullptr) != SLUICE_OK || !tree.check(0).empty() || tree.size() != 0)
        fail("I5 empty calls succeed", "draft() without sequences failed or drafted", "loops over zero sequences end at once");
    }
    sluice_decoder_commit c{};
    c.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
    const uint32_t indptr[] = {0};
    c.tok_indptr = indptr;
    findings_.doing("commit() of nothing");
    if (v_.commit != nullptr && v_.commit(decoder_, &c, nullptr) != SLUICE_OK)
      fail("I5 empty calls succeed", "commit() without sequences failed", "loops over zero sequences end at once");
  }

  void check_trees() {
    const uint32_t most = needs_.max_nodes;
    size_t drafted = 0;
    for (uint64_t i = 0; i < kCases; ++i) {
      const Tokens text = text_of(i), more(text.begin(), text.begin() + 3);
      Text one = open(text), other = open(text, 2);
      commit(one, more), commit(other, more);
      for (const uint32_t budget : {0u, 1u, most / 2, most}) {
        const auto first = draft({&one}, {budget}, fmt::format("text {}, budget {}", i, budget));
        const auto again = draft({&one}, {budget}, "the same once more");
        const auto twin = draft({&other}, {budget}, "another sequence of the same text");
        if (first.empty() || again.empty() || twin.empty()) return;
        drafted += first[0].size();
        if (again != first)
          return fail("I4 draft() changes nothing", fmt::format("text {}: a second call drafts something else", i),
                      "a step may be lost: keep in commit() what decides later drafts");
        if (twin != first)
          return fail("I3 equal texts, equal drafts", fmt::format("text {}: a sequence of the same text gets other drafts", i),
                      "no clock, no addresses, no random numbers but rng.h");
      }
      v_.seq_close(decoder_, one.seq), v_.seq_close(decoder_, other.seq);
    }
    findings_.note(fmt::format("{} nodes drafted for {} texts", drafted, kCases));
  }

  /// The host's arrays end where capacity says.
  void check_room() {
    constexpr uint32_t kRoom = 2, kArray = 4096;
    Text text = open(text_of(3));
    commit(text, {text.tokens[0], text.tokens[1], text.tokens[2]});
    std::vector<uint32_t> seq(kArray, 0xABABABABu), flags = seq, indptr = seq;
    Tokens token(kArray, -77), parent = token, q = token, q_id = token;
    std::vector<float> score(kArray, -77), q_prob = score;
    indptr[0] = 0;
    sluice_draft_tree tree{};
    tree.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_tree, q_prob);
    tree.capacity = kRoom, tree.seq = seq.data(), tree.token = token.data(), tree.parent = parent.data();
    tree.flags = flags.data(), tree.q = q.data(), tree.score = score.data();
    tree.q_indptr = indptr.data(), tree.q_id = q_id.data(), tree.q_prob = q_prob.data();
    Input in(*this, {&text}, {needs_.max_nodes});
    findings_.doing("draft() with room for 2 nodes");
    (void)v_.draft(decoder_, in.abi(0), &tree, nullptr);
    const auto untouched = [](const auto &array, auto value) {
      return std::all_of(array.begin() + kRoom, array.end(), [&](auto x) { return x == value; });
    };
    if (tree.n > kRoom || !untouched(seq, 0xABABABABu) || !untouched(token, -77) || !untouched(parent, -77) ||
        !untouched(q, -77) || !untouched(score, -77.0f))
      fail("I2 trees are sound", fmt::format("{} nodes were written, there is room for {}", tree.n, kRoom),
           "write at most `capacity` nodes");
    v_.seq_close(decoder_, text.seq);
  }

  void check_lost_steps() {
    for (uint64_t i = 0; i < kCases; ++i) {
      Text lost = open(text_of(i)), straight = open(text_of(i), 2);
      for (uint64_t step = 0; step < 4; ++step) {
        (void)draft({&lost}, {needs_.max_nodes}, "a step that will be lost");
        const Tokens more{text_of(i)[step % 4], static_cast<int32_t>(20 + step)};
        commit(lost, more), commit(straight, more);
      }
      const auto a = draft({&lost}, {needs_.max_nodes}, "after lost steps");
      if (a != draft({&straight}, {needs_.max_nodes}, "without any"))
        return fail("I4 draft() changes nothing", fmt::format("text {}: steps that were lost left their mark", i),
                    "keep in commit() what decides later drafts");
      v_.seq_close(decoder_, lost.seq), v_.seq_close(decoder_, straight.seq);
    }
  }

  void check_company() {
    std::vector<Text> texts;
    for (uint64_t i = 0; i < 6; ++i) texts.push_back(open(text_of(i), i + 1)), commit(texts.back(), {20, 21, 22});
    std::vector<const Text *> all;
    std::vector<uint32_t> budgets;
    for (const Text &t : texts) all.push_back(&t), budgets.push_back(all.size() % 3 == 0 ? 0 : needs_.max_nodes);
    const auto together = draft(all, budgets, "six sequences at once");
    for (size_t i = 0; i < together.size(); ++i) {
      const auto alone = draft({all[i]}, {budgets[i]}, "one of them alone");
      const bool rounds = needs_.draft_model != nullptr;  // then what it is fed has other node numbers
      if (!alone.empty() && !rounds && alone[0] != together[i])
        return fail("I6 a batch equals its parts", fmt::format("sequence {} of six gets other drafts than alone", i),
                    "in->seq[i], budget[i] and the heads of i belong together; nothing else of the batch matters");
    }
    for (const Text &t : texts) v_.seq_close(decoder_, t.seq);
  }

  void check_forks() {
    Text one = open(text_of(5));
    commit(one, {20, 21});
    Text fork{nullptr, one.tokens};
    findings_.doing("seq_fork()");
    if (const int32_t code = v_.seq_fork(decoder_, one.seq, &fork.seq, nullptr); code != SLUICE_OK || fork.seq == nullptr)
      return fail("I0 ordinary calls succeed", fmt::format("seq_fork returned {}", code), "a fork is a copy of the state");
    const auto before = draft({&fork}, {needs_.max_nodes}, "a fork");
    commit(one, {10, 17, 24, 31, 38}), commit(one, {10, 17, 24});
    const auto after = draft({&fork}, {needs_.max_nodes}, "a fork, when the original has gone on");
    v_.seq_close(decoder_, one.seq);
    if (before != after || after != draft({&fork}, {needs_.max_nodes}, "a fork, when the original is gone"))
      fail("I7 forks are independent", "what happened to the original changed the drafts of its fork", "copy the state; share nothing");
    v_.seq_close(decoder_, fork.seq);
  }

  // ---- branch() ----

  struct Branches {
    std::vector<uint32_t> from;
    Tokens token;
    std::vector<float> score;
    std::vector<uint8_t> what, done;
    bool operator==(const Branches &) const = default;
  };

  void check_branches() {
    const Text a = open(text_of(1), 1), b = open(text_of(2), 2);
    const uint32_t width = std::min(needs_.max_branches, 8u);
    // One group at its first token, one whose branches stand side by side.
    std::vector<Seq> forks{a.seq, b.seq};
    for (uint32_t i = 1; i < width; ++i) {
      Seq fork = nullptr;
      findings_.doing("seq_fork()");
      if (v_.seq_fork(decoder_, b.seq, &fork, nullptr) != SLUICE_OK) return fail("I0 ordinary calls succeed", "seq_fork failed", "a fork is a copy of the state");
      forks.push_back(fork);
    }
    const Branches first = branch(forks, {0, 1, 1 + width});
    if (!first.done.empty()) {
      const auto twin = branch({open(text_of(1), 1).seq}, {0, 1});
      Branches alone = first;
      const size_t n = static_cast<size_t>(std::count(first.from.begin(), first.from.end(), 0u));
      alone.from.resize(n), alone.token.resize(n), alone.score.resize(n), alone.what.resize(n), alone.done.resize(1);
      if (twin != alone) fail("I6 a batch equals its parts", "a group alone branches in another way", "nothing else of the batch matters");
    }
    (void)branch({}, {0});
    for (const Seq s : forks) v_.seq_close(decoder_, s);
  }

  Branches branch(const std::vector<Seq> &seqs, const std::vector<uint32_t> &groups) {
    const auto n = static_cast<uint32_t>(seqs.size()), n_groups = static_cast<uint32_t>(groups.size()) - 1;
    const uint32_t n_top = needs_.n_top, room = n * n_top + n_groups;
    Tokens ids;
    std::vector<float> logprobs;
    for (uint32_t i = 0; i < n; ++i)
      for (uint32_t k = 0; k < n_top; ++k)
        ids.push_back(static_cast<int32_t>((13 * i + 5 * k + 3) % kVocab)), logprobs.push_back(-0.3f * static_cast<float>(k + 1) - 0.01f * static_cast<float>(i));
    const std::vector<uint32_t> generated(n, 3);
    sluice_branch_in in{};
    in.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_in, generated);
    in.n_groups = n_groups, in.n_branches = n, in.n_top = n_top;
    in.group_indptr = groups.data(), in.seq = seqs.data(), in.top_ids = ids.data(), in.top_logprobs = logprobs.data();
    in.generated = generated.data();
    Branches b{std::vector<uint32_t>(room + 8), Tokens(room + 8, -77), std::vector<float>(room + 8), std::vector<uint8_t>(room + 8),
               std::vector<uint8_t>(n_groups)};
    sluice_branch_out out{};
    out.struct_size = SLUICE_SIZE_THROUGH(sluice_branch_out, group_done);
    out.capacity = room, out.from = b.from.data(), out.token = b.token.data(), out.score = b.score.data();
    out.what = b.what.data(), out.group_done = b.done.data();
    findings_.doing(fmt::format("branch() of {} branches in {} groups", n, n_groups));
    sluice_status st = plugin::fresh_status();
    if (const int32_t code = v_.branch(decoder_, &in, &out, &st); code != SLUICE_OK) {
      fail(n == 0 ? "I5 empty calls succeed" : "I0 ordinary calls succeed", fmt::format("branch returned {}: {}", code, st.msg), "see draft.h");
      return {};
    }
    if (const std::string wrong = wrong_with(b, out.n, groups, n, room); !wrong.empty()) {
      fail("I8 branches are accounted for", wrong, "groups in order, best first, at most max_branches grow in each; see draft.h");
      return {};
    }
    b.from.resize(out.n), b.token.resize(out.n), b.score.resize(out.n), b.what.resize(out.n);
    return b;
  }

  std::string wrong_with(const Branches &b, uint32_t n, const std::vector<uint32_t> &groups, uint32_t n_branches, uint32_t room) const {
    if (n > room || b.token[room] != -77) return fmt::format("{} entries, there is room for {}", n, room);
    size_t group = 0;
    std::vector<uint32_t> grown(groups.size());
    for (uint32_t i = 0; i < n; ++i) {
      if (b.from[i] >= n_branches) return fmt::format("entry {} is from branch {}, there are {}", i, b.from[i], n_branches);
      if (b.from[i] < groups[group]) return fmt::format("entry {} goes back to an earlier group", i);
      while (b.from[i] >= groups[group + 1]) ++group;
      const bool grows = b.what[i] == SLUICE_BRANCH_GROW;
      if (!grows && b.what[i] != SLUICE_BRANCH_FINISH) return fmt::format("entry {} is {}, neither GROW nor FINISH", i, b.what[i]);
      if (b.token[i] < (grows ? 0 : -1) || b.token[i] >= static_cast<int32_t>(kVocab))
        return fmt::format("entry {} is token {}, the vocabulary has {}", i, b.token[i], kVocab);
      if (std::isnan(b.score[i])) return fmt::format("entry {} has a score that is no number", i);
      for (uint32_t k = 0; k < i; ++k)
        if (b.from[k] == b.from[i] && b.token[k] == b.token[i] && b.what[k] == b.what[i])
          return fmt::format("entries {} and {} are the same", k, i);
      if (grows && ++grown[group] > needs_.max_branches)
        return fmt::format("group {} grows to more than {} branches", group, needs_.max_branches);
    }
    for (size_t g = 0; g + 1 < groups.size(); ++g) {
      if (b.done[g] > 1) return fmt::format("group_done[{}] is {}", g, b.done[g]);
      if (b.done[g] == 0 && grown[g] == 0) return fmt::format("group {} is not done, and nothing in it grows", g);
    }
    return {};
  }

  const Subject &subject_;
  Findings &findings_;
  const sluice_decoder_vtbl &v_;
  const sluice_model_info target_;
  std::unique_ptr<plugin::Decoder> instance_;
  sluice_decoder *decoder_ = nullptr;
  sluice_decoder_needs needs_{};
};

}  // namespace

void check_decoder(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  DecoderCheck(*subject, findings).run();
}

}  // namespace sluice::conformance
