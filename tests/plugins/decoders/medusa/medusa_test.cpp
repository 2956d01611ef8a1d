// Medusa's trees: the published buffers, what a budget leaves of them, and trees grown from accuracies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <set>

#include "tests/support/loaded_plugin.hpp"

namespace sluice::test {
namespace {

using ::testing::HasSubstr;
using Path = std::vector<int>;

constexpr uint32_t kHeads = 5, kTop = 10;

/// A drafted tree; the root is number 0, as in Medusa's buffers.
struct Drafted {
  std::vector<int> token{0}, parent{-1};
  std::vector<float> score{2};
  size_t size() const { return token.size(); }
  Path path_to(size_t node) const {
    Path path;
    for (int n = static_cast<int>(node); n > 0; n = parent[static_cast<size_t>(n)]) path.insert(path.begin(), n);
    return path;
  }
};

/// A decoder on a model with heads. Guess `rank` of head `head` is the token 10 * head + rank + 1.
class Decoder {
 public:
  using Options = std::initializer_list<PluginConfig::Values::value_type>;
  explicit Decoder(Options options, uint32_t n_heads = kHeads)
      : vtbl_(*load_plugin(SLUICE_PLUGIN_DIR, "decoder", "medusa", host_).decoder),
        config_(load_plugin(SLUICE_PLUGIN_DIR, "decoder", "medusa", host_), options) {
    sluice_model_info target{};
    target.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
    target.vocab_size = 512, target.n_heads = n_heads, target.head_top = kTop;
    sluice_decoder_setup setup{};
    setup.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_setup, target);
    setup.max_seqs = 4, setup.target = &target;
    if (vtbl_.create(&host_.api, config_.handle(), &setup, &decoder_, status_) != SLUICE_OK) return;
    needs_.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, flags);
    EXPECT_EQ(vtbl_.needs(decoder_, &needs_, status_), SLUICE_OK);
  }
  ~Decoder() {
    if (decoder_ != nullptr) vtbl_.destroy(decoder_);
  }
  std::string refusal() const { return decoder_ == nullptr ? status_.text() : ""; }
  const sluice_decoder_needs &needs() const { return needs_; }
  /// What the heads of every sequence say of their guesses; -1 each when this is not called.
  void believe(const std::vector<float> &of_guesses) { believed_ = of_guesses; }

  /// One tree per budget. unknown  guesses that the heads do not give
  std::vector<Drafted> draft(std::vector<uint32_t> budgets, const std::set<int> &unknown = {}) {
    const auto n = static_cast<uint32_t>(budgets.size());
    std::vector<sluice_decoder_seq *> seqs(n);
    const int32_t prompt[] = {1, 2};
    sluice_seq_start start{};
    start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request), start.prompt = prompt, start.n_prompt = 2;
    for (auto &s : seqs) EXPECT_EQ(vtbl_.seq_open(decoder_, &start, &s, status_), SLUICE_OK);
    std::vector<int32_t> ids;
    for (uint32_t i = 0; i < n; ++i)
      for (uint32_t id = 1; id <= kHeads * kTop; ++id) ids.push_back(unknown.count(static_cast<int>(id)) != 0 ? -1 : static_cast<int32_t>(id));
    std::vector<float> logprobs;
    for (uint32_t i = 0; i < n; ++i) logprobs.insert(logprobs.end(), believed_.begin(), believed_.end());
    sluice_draft_in in{};
    in.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_in, head_top);
    in.n_seqs = n, in.seq = seqs.data(), in.budget = budgets.data();
    in.n_heads = kHeads, in.head_top = kTop, in.head_ids = ids.data(), in.head_logprobs = logprobs.data();
    const uint32_t room = std::accumulate(budgets.begin(), budgets.end(), 0u);
    std::vector<uint32_t> seq(room), flags(room);
    std::vector<int32_t> token(room), parent(room), q(room);
    std::vector<float> score(room);
    sluice_draft_tree tree{};
    tree.struct_size = SLUICE_SIZE_THROUGH(sluice_draft_tree, q_prob);
    tree.capacity = room, tree.seq = seq.data(), tree.token = token.data(), tree.parent = parent.data();
    tree.flags = flags.data(), tree.q = q.data(), tree.score = score.data();
    EXPECT_EQ(vtbl_.draft(decoder_, &in, &tree, status_), SLUICE_OK) << status_.text();
    std::vector<Drafted> out(n);
    std::vector<int> at(tree.n);
    for (uint32_t i = 0; i < tree.n; ++i) {
      Drafted &d = out[seq[i]];
      EXPECT_LT(parent[i], static_cast<int32_t>(i));
      at[i] = static_cast<int>(d.size());
      d.token.push_back(token[i]), d.score.push_back(score[i]);
      d.parent.push_back(parent[i] < 0 ? 0 : at[static_cast<size_t>(parent[i])]);
      EXPECT_EQ(q[i], -1);
    }
    for (auto *s : seqs) vtbl_.seq_close(decoder_, s);
    return out;
  }

 private:
  PluginHost host_;
  mutable PluginStatus status_;
  const sluice_decoder_vtbl &vtbl_;
  const PluginConfig config_;
  sluice_decoder *decoder_ = nullptr;
  sluice_decoder_needs needs_{};
  std::vector<float> believed_ = std::vector<float>(kHeads * kTop, -1.0f);
};

// ---- Medusa's buffers, from nothing but tokens and parents ----

std::vector<int> positions_of(const Drafted &d) {
  std::vector<int> out;
  for (size_t i = 0; i < d.size(); ++i) out.push_back(static_cast<int>(d.path_to(i).size()));
  return out;
}
std::vector<Path> mask_of(const Drafted &d) {
  std::vector<Path> mask(d.size(), Path(d.size()));
  for (size_t i = 0; i < d.size(); ++i) {
    mask[i][0] = mask[i][i] = 1;
    for (const int n : d.path_to(i)) mask[i][static_cast<size_t>(n)] = 1;
  }
  return mask;
}
std::vector<Path> leaves_of(const Drafted &d) {
  const std::set<int> parents(d.parent.begin(), d.parent.end());
  std::vector<Path> rows;
  size_t longest = 0;
  for (size_t i = d.size(); i-- > 0;) {
    if (parents.count(static_cast<int>(i)) != 0) continue;
    rows.push_back(d.path_to(i));
    rows.back().insert(rows.back().begin(), 0);
    longest = std::max(longest, rows.back().size());
  }
  for (Path &row : rows) row.resize(longest, -1);
  return rows;
}

std::string text_of(const Path &row) {
  std::string text = "[";
  for (const int x : row) text += (text.size() > 1 ? ", " : "") + std::to_string(x);
  return text + "]";
}
std::string text_of(const std::vector<Path> &rows) {
  std::string text = "[";
  for (const Path &row : rows) text += (text.size() > 1 ? ", " : "") + text_of(row);
  return text + "]";
}
/// The first 12 digits of the SHA-256 of the four buffers, as the golden file has it.
std::string digest_of(const Drafted &d) {
  const std::string text =
      "[" + text_of(d.token) + ", " + text_of(positions_of(d)) + ", " + text_of(leaves_of(d)) + ", " + text_of(mask_of(d)) + "]";
  unsigned char hash[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char *>(text.data()), text.size(), hash);
  std::string digits;
  for (int i = 0; i < 6; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", hash[i]);
    digits += two;
  }
  return digits;
}

/// A file of its own, gone with the object.
class TreeFile {
 public:
  explicit TreeFile(const std::string &text) { std::ofstream(path_) << text; }
  ~TreeFile() { std::filesystem::remove(path_); }
  TreeFile(const TreeFile &) = delete;
  TreeFile &operator=(const TreeFile &) = delete;
  operator std::string() const { return path_; }

 private:
  const std::string path_ = ::testing::TempDir() + "sluice-medusa-tree-" + std::to_string(::getpid());
};

TEST(MedusaTree, BuffersAreTheGoldenOnes) {
  const std::filesystem::path path = std::filesystem::path(SLUICE_SHARED_DATA) / "medusa_golden.txt";
  std::ifstream in(path);
  if (!in) GTEST_SKIP() << "no golden buffers at " << path;
  int spelled = 0, named = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("choices ", 0) == 0) {
      Decoder decoder({{"tree_file", TreeFile(line.substr(8))}});
      ASSERT_EQ(decoder.refusal(), "");
      const Drafted d = decoder.draft({63}).front();
      std::string wanted;
      const auto next = [&] { return std::getline(in, wanted), wanted; };
      EXPECT_EQ("  tree " + text_of(d.token), next());
      EXPECT_EQ("  pos " + text_of(positions_of(d)), next());
      EXPECT_EQ("  ret " + text_of(leaves_of(d)), next());
      EXPECT_EQ(next(), "  mask");
      for (const Path &row : mask_of(d)) {
        std::string bits = "    ";
        for (const int bit : row) bits += static_cast<char>('0' + bit);
        EXPECT_EQ(bits, next());
      }
      ++spelled;
    } else if (!line.empty()) {
      const std::string name = line.substr(0, line.find(' '));
      Decoder decoder({{"tree", name}});
      ASSERT_EQ(decoder.refusal(), "") << name;
      const Drafted d = decoder.draft({63}).front();
      const auto mask = mask_of(d);
      int ones = 0;
      for (const Path &row : mask) ones += std::accumulate(row.begin(), row.end(), 0);
      const auto rows = leaves_of(d);
      EXPECT_THAT(line, HasSubstr(" nodes " + std::to_string(d.size()) + " ")) << name;
      EXPECT_THAT(line, HasSubstr(" paths " + std::to_string(rows.size()) + " x " + std::to_string(rows[0].size()) + " ")) << name;
      EXPECT_THAT(line, HasSubstr(" maskones " + std::to_string(ones) + " ")) << name;
      EXPECT_THAT(line, HasSubstr(" sha " + digest_of(d))) << name;
      ++named;
    }
  }
  EXPECT_EQ(spelled, 2);
  EXPECT_EQ(named, 9);
}

/// A random set of paths with all their prefixes, in random order.
std::vector<Path> random_tree(std::mt19937_64 &random) {
  std::set<Path> all;
  for (uint64_t n = 1 + random() % 40; n > 0; --n) {
    Path path;
    for (uint64_t depth = 1 + random() % kHeads; depth > 0; --depth) {
      path.push_back(static_cast<int>(random() % (random() % 2 == 0 ? 2 : kTop)));
      all.insert(path);
    }
  }
  std::vector<Path> out(all.begin(), all.end());
  std::shuffle(out.begin(), out.end(), random);
  return out;
}

TEST(MedusaTree, AnyTreeIsDraftedWholeAndItsMaskIsTheClosureOfItsParents) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 60; ++i) {
    const std::vector<Path> paths = random_tree(random);
    Decoder decoder({{"tree_file", TreeFile(text_of(paths))}, {"max_nodes", "1000"}});
    ASSERT_EQ(decoder.refusal(), "");
    EXPECT_EQ(decoder.needs().max_nodes, paths.size());
    const Drafted d = decoder.draft({1000}).front();
    ASSERT_EQ(d.size(), paths.size() + 1);
    std::set<Path> drafted;
    for (size_t node = 1; node < d.size(); ++node) {
      Path ranks;
      for (const int n : d.path_to(node)) ranks.push_back((d.token[static_cast<size_t>(n)] - 1) % 10);
      EXPECT_EQ(d.token[node], static_cast<int>(10 * (ranks.size() - 1)) + ranks.back() + 1);  // head = depth - 1
      drafted.insert(ranks);
      EXPECT_LE(d.score[node], d.score[static_cast<size_t>(d.parent[node])]);
    }
    EXPECT_EQ(drafted, std::set<Path>(paths.begin(), paths.end()));
    // The closure, by squaring the relation "is itself or its parent" until nothing is added.
    std::vector<Path> closure(d.size(), Path(d.size()));
    for (size_t n = 0; n < d.size(); ++n) {
      closure[n][n] = 1;
      if (n > 0) closure[n][static_cast<size_t>(d.parent[n])] = 1;
    }
    for (uint32_t round = 0; round < 3; ++round) {  // paths are at most 5 long
      const auto before = closure;
      for (size_t a = 0; a < d.size(); ++a)
        for (size_t b = 0; b < d.size(); ++b)
          for (size_t c = 0; c < d.size() && before[a][b] != 0; ++c) closure[a][c] |= before[b][c];
    }
    EXPECT_EQ(mask_of(d), closure);
    for (size_t n = 0; n < d.size(); ++n) EXPECT_EQ(positions_of(d)[n], std::accumulate(closure[n].begin(), closure[n].end(), 0) - 1);
  }
}

TEST(MedusaTree, ABudgetKeepsTheMostWanted) {
  Decoder decoder({});
  const Drafted whole = decoder.draft({63}).front();
  std::vector<float> scores(whole.score.begin() + 1, whole.score.end());
  std::sort(scores.rbegin(), scores.rend());
  const auto trees = decoder.draft({0, 1, 20, 62});
  EXPECT_EQ(trees[0].size(), 1u);
  EXPECT_EQ(trees[1].token, (std::vector<int>{0, 1}));
  for (size_t i = 0; i < trees.size(); ++i) {
    const std::vector<size_t> sizes = {0, 1, 20, 62};
    ASSERT_EQ(trees[i].size(), sizes[i] + 1);
    std::vector<float> kept(trees[i].score.begin() + 1, trees[i].score.end());
    std::sort(kept.rbegin(), kept.rend());
    EXPECT_EQ(kept, std::vector<float>(scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(sizes[i])));
  }
}

TEST(MedusaTree, WhatAHeadDoesNotKnowIsLeftOutWithAllBelow) {
  Decoder decoder({{"tree_file", TreeFile("[[0], [1], [0, 0], [0, 1], [1, 0], [1, 0, 0]]")}});
  EXPECT_EQ(decoder.draft({63}, {2}).front().token, (std::vector<int>{0, 1, 11, 12}));
  EXPECT_EQ(decoder.draft({63}, {11}).front().token, (std::vector<int>{0, 1, 2, 12}));
  std::set<int> all;
  for (int id = 1; id <= 50; ++id) all.insert(id);
  EXPECT_EQ(decoder.draft({63}, all).front().size(), 1u);
}

TEST(MedusaTree, GrowsTheBestTreeFromAccuracies) {
  const double accuracy[3][4] = {{0.5, 0.2, 0.1, 0.05}, {0.4, 0.3, 0.0, 0.1}, {0.35, 0.05, 0.2, 0.1}};
  std::string text;
  for (const auto &head : accuracy) {
    text += text.empty() ? "" : ",";
    for (const double share : head) text += std::to_string(share) + " ";
  }
  std::vector<double> products;
  for (const double a : accuracy[0]) {
    products.push_back(a);
    for (const double b : accuracy[1]) {
      products.push_back(a * b);
      for (const double c : accuracy[2]) products.push_back(a * b * c);
    }
  }
  std::sort(products.rbegin(), products.rend());
  for (const uint32_t n : {1u, 2u, 7u, 20u, 40u}) {
    Decoder decoder({{"accuracy", text}, {"max_nodes", std::to_string(n)}});
    ASSERT_EQ(decoder.refusal(), "");
    const Drafted d = decoder.draft({n}).front();
    ASSERT_EQ(d.size(), n + 1);
    const double sum = std::accumulate(d.score.begin() + 1, d.score.end(), 0.0);
    EXPECT_NEAR(sum, std::accumulate(products.begin(), products.begin() + n, 0.0), 1e-6) << n;
  }
  Decoder chain({{"accuracy", "0.9,0.9,0.9"}});
  EXPECT_EQ(chain.needs().max_depth, 3u);
  EXPECT_EQ(chain.needs().caps, 0u);  // a chain needs no trees
}

TEST(MedusaTree, ADynamicTreeHoldsTheMostProbablePathsOfEveryStep) {
  Decoder decoder({{"tree", "dynamic"}, {"max_nodes", "30"}, {"adaptive", "false"}}, 3);
  ASSERT_EQ(decoder.refusal(), "");
  EXPECT_EQ(decoder.needs().max_nodes, 30u);
  EXPECT_EQ(decoder.needs().max_depth, 3u);
  std::mt19937 random(6);
  std::uniform_real_distribution<float> uniform(0.05f, 3);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> logprobs;
    for (uint32_t head = 0; head < kHeads; ++head) {
      std::vector<float> own(kTop);
      for (float &l : own) l = -uniform(random);
      std::sort(own.rbegin(), own.rend());  // as heads give them
      logprobs.insert(logprobs.end(), own.begin(), own.end());
    }
    std::vector<float> products;
    for (uint32_t a = 0; a < kTop; ++a) {
      products.push_back(logprobs[a]);
      for (uint32_t b = kTop; b < 2 * kTop; ++b) {
        products.push_back(logprobs[a] + logprobs[b]);
        for (uint32_t c = 2 * kTop; c < 3 * kTop; ++c) products.push_back(logprobs[a] + logprobs[b] + logprobs[c]);
      }
    }
    std::sort(products.rbegin(), products.rend());
    decoder.believe(logprobs);
    const Drafted d = decoder.draft({30}).front();
    ASSERT_EQ(d.size(), 31u);
    for (size_t node = 1; node < d.size(); ++node) {
      const Path path = d.path_to(node);
      float logprob = 0;
      for (const int n : path) logprob += logprobs[static_cast<size_t>(d.token[static_cast<size_t>(n)]) - 1];
      EXPECT_EQ((d.token[node] - 1) / 10, static_cast<int>(path.size()) - 1);
      EXPECT_NEAR(d.score[node], logprob, 1e-5);
      EXPECT_NEAR(d.score[node], products[node - 1], 1e-5);  // best first
    }
  }
  std::vector<float> none(kHeads * kTop, std::nanf(""));
  decoder.believe(none);
  EXPECT_EQ(decoder.draft({30}).front().size(), 1u);
}

TEST(MedusaTree, FitsTheModelsHeadsAndSaysWhatItNeeds) {
  EXPECT_THAT(Decoder({}, 0).refusal(), HasSubstr("set draft_heads"));
  Decoder two({{"adaptive", "false"}}, 2);
  EXPECT_EQ(two.needs().max_depth, 2u);
  EXPECT_EQ(two.needs().n_heads, 2u);
  EXPECT_EQ(two.needs().max_nodes, 38u);  // 10 + 28 of the preset's nodes
  EXPECT_EQ(two.needs().caps, SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS);
  EXPECT_EQ(two.needs().flags, SLUICE_DECF_PINNED);
  EXPECT_EQ(Decoder({}).needs().flags, 0u);
  EXPECT_EQ(Decoder({{"max_nodes", "0"}}).needs().proposals, 0u);
}

TEST(MedusaTree, RefusesTreesThatAreNone) {
  const auto refusal = [](const std::string &tree) { return Decoder({{"tree_file", TreeFile(tree)}}, 2).refusal(); };
  EXPECT_EQ(refusal("[[0], [0, 1]]"), "");
  EXPECT_THAT(refusal("[[0], [1, 1]]"), HasSubstr("has [1, 1] but not [1]"));
  EXPECT_THAT(refusal("[[0], [0]]"), HasSubstr("has [0] twice"));
  EXPECT_THAT(refusal("[[0], [0, 0], [0, 0, 0]]"), HasSubstr("asks for more than the model's 2 heads"));
  EXPECT_THAT(refusal("[[0], [10]]"), HasSubstr("asks for more"));
  for (const char *wrong : {"", "[", "[]", "[[]]", "[[0]", "[0]", "[[0]] x", "[[-1]]", "[[0]][[1]]", "[[99999999999]]", "[[0.5]]", "0 1 2"})
    EXPECT_THAT(refusal(wrong), HasSubstr("cannot be read at byte")) << wrong;
  EXPECT_THAT(Decoder({{"tree_file", "/nonexistent"}}).refusal(), HasSubstr("/nonexistent"));
  EXPECT_THAT(Decoder({{"accuracy", "0.5"}, {"tree", "zephyr_stage2"}}).refusal(), HasSubstr("set one of them"));
  EXPECT_THAT(Decoder({{"accuracy", "0.5"}, {"tree", "dynamic"}}).refusal(), HasSubstr("set one of them"));
  EXPECT_THAT(Decoder({{"accuracy", "0.5 x"}}).refusal(), HasSubstr("'x'"));
  EXPECT_THAT(Decoder({{"accuracy", "0.7 0.7"}}).refusal(), HasSubstr("adds up to 1.4"));
  EXPECT_THAT(Decoder({{"accuracy", "1.5"}}).refusal(), HasSubstr("no share"));
  EXPECT_THAT(Decoder({{"accuracy", "0.1,0.1,0.1"}}, 2).refusal(), HasSubstr("the model has 2"));
  EXPECT_THAT(Decoder({{"accuracy", "0"}}).refusal(), HasSubstr("no node"));
}

}  // namespace
}  // namespace sluice::test
