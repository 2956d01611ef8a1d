// Stage I: a decoder proposes. What it says about a sequence depends on that sequence's text and on the heads and drafts
// that it is shown, and asking it changes nothing.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "core/conformance/decoder_subject.hpp"
#include "core/engine/draft_tree.hpp"

namespace sluice::conformance {
namespace {

constexpr uint32_t kCases = 24;
using Seq = DecoderSubject::Seq;
using Tokens = DecoderSubject::Tokens;
using Text = DecoderSubject::Text;

struct Node {
  int32_t token, parent;  ///< parent: index among the nodes of its sequence, -1 = the root
  float score;
  bool operator==(const Node &) const = default;
};
using Draft = std::vector<Node>;

uint64_t hash_of(const Tokens &tokens, uint64_t salt) {
  uint64_t h = 14695981039346656037ull ^ salt;
  for (const int32_t t : tokens) h = (h ^ static_cast<uint64_t>(t)) * 0x100000001b3ull;
  return h ^ (h >> 29);
}

class DraftCheck {
 public:
  explicit DraftCheck(DecoderSubject &subject) : s_(subject) {}

  void run() {
    check_nothing();
    check_trees();
    check_room();
    check_lost_steps();
    check_company();
    check_forks();
  }

 private:
  /// One draft() call for these texts, with all its rounds, as the host makes it and judges it. Empty after a failure.
  std::vector<Draft> draft(const std::vector<const Text *> &texts, const std::vector<uint32_t> &budgets,
                           const std::string &doing) {
    engine::DraftTree tree(s_.needs, DecoderSubject::kVocab);
    tree.open(static_cast<uint32_t>(texts.size()));
    Input in(*this, texts, budgets);
    std::vector<uint8_t> fed;
    for (uint32_t round = 0; round <= s_.needs.max_rounds; ++round) {
      s_.findings.doing(doing);
      sluice_status st = plugin::fresh_status();
      if (const int32_t code = s_.v.draft(s_.decoder, in.abi(round), tree.again(), &st); code != SLUICE_OK) {
        s_.fail("I0 ordinary calls succeed", fmt::format("{}: draft returned {}: {}", doing, code, st.msg), "see draft.h");
        return {};
      }
      if (const std::string wrong = tree.check(0); !wrong.empty()) {
        s_.fail("I2 trees are sound", doing + ": " + wrong, "parents first, tokens of the vocabulary, within needs; see draft.h");
        return {};
      }
      fed.resize(tree.size());
      if (!in.feed(tree, fed)) break;
    }
    return split(tree, budgets, doing);
  }

  /// What one draft() call is shown. Everything is a function of the texts.
  struct Input {
    Input(const DraftCheck &check, const std::vector<const Text *> &texts, const std::vector<uint32_t> &budgets)
        : needs(check.s_.needs), budget(budgets) {
      for (const Text *text : texts) {
        seq.push_back(text->seq), root.push_back(text->tokens.back());
        position.push_back(static_cast<uint32_t>(text->tokens.size()) - 1);
        of_root.push_back(hash_of(text->tokens, 7));
        for (uint32_t i = 0; needs.n_heads > 0 && i < check.s_.target.n_heads * check.s_.target.head_top; ++i) {
          const uint32_t head = i / check.s_.target.head_top, rank = i % check.s_.target.head_top;
          heads.push_back(static_cast<int32_t>((hash_of(text->tokens, head) + rank) % DecoderSubject::kVocab));
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
      in.n_heads = check.s_.target.n_heads, in.head_top = check.s_.target.head_top;
    }

    const sluice_draft_in *abi(uint32_t round) {
      in.round = round, in.n_fed = static_cast<uint32_t>(fed_node.size());
      token.clear(), q.clear(), top.clear(), top_logprobs.clear();
      for (const int32_t node : fed_node) {
        const uint64_t h = node < 0 ? of_root[static_cast<size_t>(-1 - node)] : 977 * static_cast<uint64_t>(node + 1);
        for (uint32_t i = 0; i < needs.draws; ++i) token.push_back(static_cast<int32_t>((h + 3 * i) % DecoderSubject::kVocab)), q.push_back(-1);
        for (uint32_t i = 0; i < needs.n_top; ++i)
          top.push_back(static_cast<int32_t>((h + 3 * i) % DecoderSubject::kVocab)), top_logprobs.push_back(-0.5f * static_cast<float>(i + 1));
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
    const uint32_t room = std::max(s_.needs.max_nodes, s_.needs.max_fed);
    for (uint32_t node = 0; node < tree.size(); ++node) {
      Draft &own = out[tree.seq(node)];
      const int32_t parent = tree.parent(node);
      place[node] = static_cast<int32_t>(own.size());
      own.push_back({tree.token(node), parent < 0 ? -1 : place[static_cast<size_t>(parent)], tree.score(node)});
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i].size() > room)
        s_.fail("I2 trees are sound", fmt::format("{}: {} nodes for one sequence, its needs say {}", doing, out[i].size(), room),
             "needs.max_nodes is per sequence");
      if (budgets[i] == 0 && !out[i].empty())
        s_.fail("I2 trees are sound", fmt::format("{}: {} nodes for a budget of 0", doing, out[i].size()),
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

  void check_nothing() {
    engine::DraftTree tree(s_.needs, DecoderSubject::kVocab);
    tree.open(0);
    Input in(*this, {}, {});
    s_.findings.doing("draft() of nothing");
    if (s_.v.draft(s_.decoder, in.abi(0), tree.again(), nullptr) != SLUICE_OK || !tree.check(0).empty() || tree.size() != 0)
      s_.fail("I5 empty calls succeed", "draft() without sequences failed or drafted", "loops over zero sequences end at once");
  }

  void check_trees() {
    const uint32_t most = s_.needs.max_nodes;
    size_t drafted = 0;
    for (uint64_t i = 0; i < kCases; ++i) {
      const Tokens text = text_of(i), more(text.begin(), text.begin() + 3);
      Text one = s_.open(text), other = s_.open(text, 2);
      s_.commit(one, more), s_.commit(other, more);
      for (const uint32_t budget : {0u, 1u, most / 2, most}) {
        const auto first = draft({&one}, {budget}, fmt::format("text {}, budget {}", i, budget));
        const auto again = draft({&one}, {budget}, "the same once more");
        const auto twin = draft({&other}, {budget}, "another sequence of the same text");
        if (first.empty() || again.empty() || twin.empty()) return;
        drafted += first[0].size();
        if (again != first)
          return s_.fail("I4 draft() changes nothing", fmt::format("text {}: a second call drafts something else", i),
                      "a step may be lost: keep in commit() what decides later drafts");
        if (twin != first)
          return s_.fail("I3 equal texts, equal drafts", fmt::format("text {}: a sequence of the same text gets other drafts", i),
                      "no clock, no addresses, no random numbers but rng.h");
      }
      s_.close(one.seq), s_.close(other.seq);
    }
    s_.findings.note(fmt::format("{} nodes drafted for {} texts", drafted, kCases));
  }

  /// The host's arrays end where capacity says.
  void check_room() {
    constexpr uint32_t kRoom = 2, kArray = 4096;
    Text text = s_.open(text_of(3));
    s_.commit(text, {text.tokens[0], text.tokens[1], text.tokens[2]});
    std::vector<uint32_t> seq(kArray, 0xABABABABu), flags = seq, indptr = seq;
    Tokens token(kArray, -77), parent = token, q = token, q_id = token;
    std::vector<float> score(kArray, -77), q_prob = score;
    indptr[0] = 0;
    sluice_draft_tree tree{};
    tree.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_tree, q_prob);
    tree.capacity = kRoom, tree.seq = seq.data(), tree.token = token.data(), tree.parent = parent.data();
    tree.flags = flags.data(), tree.q = q.data(), tree.score = score.data();
    tree.q_indptr = indptr.data(), tree.q_id = q_id.data(), tree.q_prob = q_prob.data();
    Input in(*this, {&text}, {s_.needs.max_nodes});
    s_.findings.doing("draft() with room for 2 nodes");
    (void)s_.v.draft(s_.decoder, in.abi(0), &tree, nullptr);
    const auto untouched = [](const auto &array, auto value) {
      return std::all_of(array.begin() + kRoom, array.end(), [&](auto x) { return x == value; });
    };
    if (tree.n > kRoom || !untouched(seq, 0xABABABABu) || !untouched(token, -77) || !untouched(parent, -77) ||
        !untouched(q, -77) || !untouched(score, -77.0f))
      s_.fail("I2 trees are sound", fmt::format("{} nodes were written, there is room for {}", tree.n, kRoom),
           "write at most `capacity` nodes");
    s_.close(text.seq);
  }

  void check_lost_steps() {
    for (uint64_t i = 0; i < kCases; ++i) {
      Text lost = s_.open(text_of(i)), straight = s_.open(text_of(i), 2);
      for (uint64_t step = 0; step < 4; ++step) {
        (void)draft({&lost}, {s_.needs.max_nodes}, "a step that will be lost");
        const Tokens more{text_of(i)[step % 4], static_cast<int32_t>(20 + step)};
        s_.commit(lost, more), s_.commit(straight, more);
      }
      const auto a = draft({&lost}, {s_.needs.max_nodes}, "after lost steps");
      if (a != draft({&straight}, {s_.needs.max_nodes}, "without any"))
        return s_.fail("I4 draft() changes nothing", fmt::format("text {}: steps that were lost left their mark", i),
                    "keep in commit() what decides later drafts");
      s_.close(lost.seq), s_.close(straight.seq);
    }
  }

  void check_company() {
    std::vector<Text> texts;
    for (uint64_t i = 0; i < 6; ++i) texts.push_back(s_.open(text_of(i), i + 1)), s_.commit(texts.back(), {20, 21, 22});
    std::vector<const Text *> all;
    std::vector<uint32_t> budgets;
    for (const Text &t : texts) all.push_back(&t), budgets.push_back(all.size() % 3 == 0 ? 0 : s_.needs.max_nodes);
    const auto together = draft(all, budgets, "six sequences at once");
    for (size_t i = 0; i < together.size(); ++i) {
      const auto alone = draft({all[i]}, {budgets[i]}, "one of them alone");
      const bool rounds = s_.needs.draft_model != nullptr;  // then what it is fed has other node numbers
      if (!alone.empty() && !rounds && alone[0] != together[i])
        return s_.fail("I6 a batch equals its parts", fmt::format("sequence {} of six gets other drafts than alone", i),
                    "in->seq[i], budget[i] and the heads of i belong together; nothing else of the batch matters");
    }
    for (const Text &t : texts) s_.close(t.seq);
  }

  void check_forks() {
    Text one = s_.open(text_of(5));
    s_.commit(one, {20, 21});
    const Text fork{s_.fork(one.seq), one.tokens};
    const auto before = draft({&fork}, {s_.needs.max_nodes}, "a fork");
    s_.commit(one, {10, 17, 24, 31, 38}), s_.commit(one, {10, 17, 24});
    const auto after = draft({&fork}, {s_.needs.max_nodes}, "a fork, when the original has gone on");
    s_.close(one.seq);
    if (before != after || after != draft({&fork}, {s_.needs.max_nodes}, "a fork, when the original is gone"))
      s_.fail("I7 forks are independent", "what happened to the original changed the drafts of its fork", "copy the state; share nothing");
    s_.close(fork.seq);
  }

  DecoderSubject &s_;
};

}  // namespace

void check_drafts(DecoderSubject &subject) { DraftCheck(subject).run(); }

}  // namespace sluice::conformance
