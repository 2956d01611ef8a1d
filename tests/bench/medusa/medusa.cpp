// What Medusa heads are worth on the model that ships, and whether that is what they promise.
//
// Per kind of text (stories, chats, sums): decodes plainly, looks how often each guess of each head is the token that
// came, grows one tree from the accuracies of all kinds together, and decodes again with it, one request at a time,
// `adaptive = false`. Prints tokens per step:
//   endless    1 + the sum over the tree's nodes of the product of that kind's own accuracies
//   predicted  the same for answers as long as these are, whose last step can be cut short
//   measured   output tokens per step of the same prompts
//   dynamic    the same with `tree = "dynamic"`, which nothing here predicts
//   speed      CPU time of plain decoding over that with the tree, and over that with the dynamic one; one thread, prompts
//              included, the medians of --rounds runs in turns
// and the `accuracy` lines for a configuration. The two runs give the same tokens, or it says so and fails.
//
//   build/release/tests/bench/medusa/medusa_bench [--backend cpu] [--nodes 24] [--prompts 20] [--tokens 160]
//                                                 [--temperature 0] [--rounds 5]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/plugins/decoders/medusa/decoding.hpp"

namespace sluice::test {
namespace {

/// How often guess [head][rank] was right, and out of how many.
struct Accuracy {
  std::vector<std::vector<double>> right;
  std::vector<double> asked;
  double share(size_t head, size_t rank) const { return asked[head] == 0 ? 0 : right[head][rank] / asked[head]; }
  void add(const Accuracy &other) {
    if (asked.empty()) return void(*this = other);
    for (size_t h = 0; h < asked.size(); ++h) {
      asked[h] += other.asked[h];
      for (size_t k = 0; k < right[h].size(); ++k) right[h][k] += other.right[h][k];
    }
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (size_t h = 0; h < asked.size(); ++h) {
      std::string &line = out.emplace_back();
      for (size_t k = 0; k < right[h].size(); ++k) line += fmt::format("{}{:.4f}", k == 0 ? "" : " ", share(h, k));
    }
    return out;
  }
};

struct Kind {
  std::string name;
  std::vector<Tokens> prompts;
  Decoded plain;
  Accuracy accuracy;
};

/// Over the rows that choose output tokens, of one more forward pass per text.
Accuracy measure(const Decoding &how, const Kind &kind) {
  Accuracy a;
  for (size_t i = 0; i < kind.prompts.size(); ++i) {
    Tokens text = kind.prompts[i];
    const size_t first = text.size();
    text.insert(text.end(), kind.plain.answers[i].begin(), kind.plain.answers[i].end());
    const HeadGuesses g = guess_along(how, text);
    if (a.asked.empty()) a.asked.resize(g.n_heads), a.right.resize(g.n_heads, std::vector<double>(g.head_top));
    for (size_t row = first - 1; row < text.size(); ++row)  // chooses text[row + 1]
      for (size_t h = 0; h < g.n_heads && row + 2 + h < text.size(); ++h) {
        a.asked[h] += 1;
        const int32_t *ids = &g.ids[(row * g.n_heads + h) * g.head_top];
        const int32_t *hit = std::find(ids, ids + g.head_top, text[row + 2 + h]);
        if (hit != ids + g.head_top) a.right[h][static_cast<size_t>(hit - ids)] += 1;
      }
  }
  return a;
}

/// How often a step gets to depth 0, 1, ... with the tree that the decoder grows from one set of accuracies, on text
/// that has another. The tree is made here once more, since the plugin does not show it: the paths of the largest
/// products.
std::vector<double> reached(const Accuracy &grown_from, const Accuracy &kind, size_t n_nodes) {
  struct Node {
    double from, of;
    size_t depth;
  };
  std::vector<Node> open{{1, 1, 0}};
  std::vector<Node> all;
  for (size_t at = 0; at < open.size(); ++at) {  // every path with a product worth looking at
    const Node node = open[at];
    if (node.depth == grown_from.asked.size()) continue;
    for (size_t k = 0; k < grown_from.right[node.depth].size(); ++k) {
      const Node child{node.from * grown_from.share(node.depth, k), node.of * kind.share(node.depth, k), node.depth + 1};
      if (child.from <= 0) continue;
      all.push_back(child), open.push_back(child);
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Node &a, const Node &b) { return a.from > b.from; });
  std::vector<double> reach(grown_from.asked.size() + 1);
  reach[0] = 1;
  for (size_t i = 0; i < std::min(n_nodes, all.size()); ++i) reach[all[i].depth] += all[i].of;
  return reach;
}

/// Tokens per step over texts of these lengths: of n tokens to come a step yields one more than the depth it reaches, or
/// what is left.
double predict(const std::vector<double> &reach, const std::vector<Tokens> &answers) {
  size_t longest = 0;
  for (const Tokens &a : answers) longest = std::max(longest, a.size());
  std::vector<double> steps(longest + 1);  // expected, for so many tokens
  for (size_t n = 1; n <= longest; ++n) {
    steps[n] = 1;
    for (size_t depth = 0; depth < reach.size() && depth + 1 < n; ++depth) {
      const double stops_here = reach[depth] - (depth + 1 < reach.size() ? reach[depth + 1] : 0);
      steps[n] += stops_here * steps[n - depth - 1];
    }
  }
  double n_tokens = 0, n_steps = 0;
  for (const Tokens &a : answers) {
    const size_t n = std::max<size_t>(a.size(), 1) - 1;  // the first comes with the prompt
    n_tokens += static_cast<double>(n), n_steps += steps[n];
  }
  return n_tokens / n_steps;
}

/// CPU time of the first over that of the others; each the median of its rounds.
std::pair<double, double> compare_speed(const Decoding &plain, const Decoding &one, const Decoding &other,
                                        const std::vector<Tokens> &prompts, size_t n_rounds) {
  std::vector<double> times[3];
  for (size_t round = 0; round < n_rounds; ++round) {
    const Decoding *hows[] = {&plain, &one, &other};
    for (size_t i = 0; i < 3; ++i) times[i].push_back(decode(*hows[i], prompts).cpu_seconds);
  }
  for (auto &t : times) std::sort(t.begin(), t.end());
  const size_t middle = n_rounds / 2;
  return n_rounds == 0 ? std::pair(0.0, 0.0) : std::pair(times[0][middle] / times[1][middle], times[0][middle] / times[2][middle]);
}

}  // namespace

int run(int argc, char **argv) {
  Decoding how;
  how.max_new = 160;
  size_t n_prompts = 20, n_nodes = 24, n_rounds = 5;
  std::string temperature = "0";
  CLI::App app("Medusa heads of the shipped model: tokens per step, predicted and measured");
  app.add_option("--backend", how.backend, "cpu or reference");
  app.add_option("--nodes", n_nodes, "drafts per step");
  app.add_option("--prompts", n_prompts, "of each kind, at most");
  app.add_option("--tokens", how.max_new, "output tokens, at most");
  app.add_option("--temperature", temperature, "of both runs, seeded alike");
  app.add_option("--rounds", n_rounds, "runs whose time is taken");
  CLI11_PARSE(app, argc, argv);
  const ShippedModel model = ShippedModel::find();
  if (!model.exists) return std::fprintf(stderr, "no model with heads at %s\n", model.target.c_str()), 2;
  how.model = model.target, how.heads = model.heads;
  how.stop_tokens = model.stop_tokens();
  how.sampler_options = {{"temperature", temperature}};

  std::vector<Kind> kinds = {{"stories", model.prompts("story", n_prompts), {}, {}}, {"chats", {}, {}, {}},
                             {"sums", model.prompts("sum", n_prompts), {}, {}}};
  for (const char *chat : {"world", "told", "refusal"})
    for (Tokens &p : model.prompts(chat, (n_prompts + 2) / 3)) kinds[1].prompts.push_back(std::move(p));
  Accuracy together;
  for (Kind &kind : kinds) {
    kind.plain = decode(how, kind.prompts);
    if (!kind.plain.failure.empty()) return std::fprintf(stderr, "%s\n", kind.plain.failure.c_str()), 1;
    kind.accuracy = measure(how, kind);
    together.add(kind.accuracy);
  }
  std::string lines;
  for (const std::string &line : together.lines()) lines += (lines.empty() ? "" : ",") + line;
  Decoding medusa = how;
  medusa.decoder = "medusa";
  medusa.decoder_options = {{"accuracy", lines}, {"max_nodes", std::to_string(n_nodes)}, {"adaptive", "false"}};
  Decoding dynamic = medusa;
  dynamic.decoder_options = {{"tree", "dynamic"}, {"max_nodes", std::to_string(n_nodes)}, {"adaptive", "false"}};

  fmt::print("backend {}, {} nodes, temperature {}, up to {} prompts of a kind, {} tokens each\n\n", how.backend, n_nodes,
             temperature, n_prompts, how.max_new);
  fmt::print("{:8} {:>7} {:>7} {:>26} {:>8} {:>10} {:>9} {:>6} {:>8} {:>11}\n", "kind", "prompts", "tokens", "best guess of a head right",
             "endless", "predicted", "measured", "ratio", "dynamic", "speed");
  bool same = true;
  for (const Kind &kind : kinds) {
    const Decoded is = decode(medusa, kind.prompts), live = decode(dynamic, kind.prompts);
    if (!is.failure.empty() || !live.failure.empty())
      return std::fprintf(stderr, "%s%s\n", is.failure.c_str(), live.failure.c_str()), 1;
    same &= is.answers == kind.plain.answers && live.answers == kind.plain.answers;
    std::string heads;
    for (size_t h = 0; h < kind.accuracy.asked.size(); ++h) heads += fmt::format(" {:.2f}", kind.accuracy.share(h, 0));
    const auto speeds = compare_speed(how, medusa, dynamic, kind.prompts, n_rounds);
    const std::vector<double> reach = reached(together, kind.accuracy, n_nodes);
    double endless = 0;
    for (const double r : reach) endless += r;
    const double predicted = predict(reach, kind.plain.answers), measured = is.tokens_per_step();
    fmt::print("{:8} {:7} {:7} {:>26} {:8.3f} {:10.3f} {:9.3f} {:6.2f} {:8.3f} {:>5.2f} {:>5.2f}\n", kind.name, kind.prompts.size(), is.stats.output_tokens,
               heads, endless, predicted, measured, measured / predicted, live.tokens_per_step(), speeds.first, speeds.second);
  }
  fmt::print("\ntokens are those of plain decoding: {}\n\naccuracy = [\n", same ? "yes" : "NO");
  for (const std::string &line : together.lines()) fmt::print("  \"{}\",\n", line);
  fmt::print("]\n");
  return same ? 0 : 1;
}

}  // namespace sluice::test

int main(int argc, char **argv) { return sluice::test::run(argc, argv); }
