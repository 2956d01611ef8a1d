#include <gtest/gtest.h>
#include <sluice/sdk/token_history.hpp>

#include <algorithm>
#include <map>
#include <random>

namespace {
using namespace sluice::sdk;
using Counts = std::map<int32_t, std::pair<uint32_t, uint32_t>>;

Counts of(const TokenHistory &h) {
  Counts c;
  for (const TokenCount &t : h.counts()) {
    EXPECT_EQ(c.count(t.token), 0u) << "token listed twice";
    c[t.token] = {t.in_prompt, t.in_output};
  }
  return c;
}

// All of a scope's tokens in order, then the last n of them: what penalty_last_n says.
Counts by_definition(const std::vector<int32_t> &prompt, const std::vector<int32_t> &output, size_t last_n) {
  Counts c;
  const size_t total = prompt.size() + output.size();
  for (size_t i = last_n == 0 || last_n > total ? 0 : total - last_n; i < total; ++i)
    i < prompt.size() ? ++c[prompt[i]].first : ++c[output[i - prompt.size()]].second;
  return c;
}

TEST(TokenHistory, CountsPromptAndOutputApart) {
  TokenHistory h;
  h.reset();
  const int32_t prompt[] = {5, 5, 7}, output[] = {7, 7, 9};
  h.append_prompt(prompt, 3), h.append_output(output, 3);
  EXPECT_EQ(of(h), (Counts{{5, {2, 0}}, {7, {1, 2}}, {9, {0, 1}}}));
}

TEST(TokenHistory, WindowsAndPathsMatchTheDefinition) {
  std::mt19937 random(3);
  const auto tokens = [&](size_t n) {
    std::vector<int32_t> v(n);
    for (int32_t &t : v) t = static_cast<int32_t>(random() % 40);
    return v;
  };
  for (int i = 0; i < 300; ++i) {
    const auto prompt = tokens(random() % 60), output = tokens(random() % 60), path = tokens(random() % 6);
    TokenHistory h, out;
    h.reset(i % 2 == 0 ? 0 : 200);
    h.append_prompt(prompt.data(), prompt.size()), h.append_output(output.data(), output.size());
    auto all = output;
    all.insert(all.end(), path.begin(), path.end());
    for (const uint32_t last_n : {0u, 1u, 3u, 20u, 80u, 1000u}) {
      h.counts(path.data(), path.size(), last_n, out);
      EXPECT_EQ(of(out), by_definition(prompt, all, last_n)) << last_n;
    }
    EXPECT_EQ(h.output(), output) << "a query must not change the history";
  }
}

TEST(TokenHistory, ACopyGoesItsOwnWay) {
  TokenHistory a;
  a.reset();
  const int32_t first = 1, second = 2;
  a.append_output(&first, 1);
  TokenHistory b = a;
  b.append_output(&second, 1);
  EXPECT_EQ(of(a).size(), 1u);
  EXPECT_EQ(of(b).size(), 2u);
}

}  // namespace
