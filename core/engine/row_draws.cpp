#include "core/engine/row_draws.hpp"

#include <sluice/sdk/draw.hpp>

#include <algorithm>
#include <cmath>

namespace sluice::engine {

void draw_distinct(std::span<const float> row, uint32_t n, uint64_t seed, uint32_t position, uint32_t stream,
                   int32_t *out) {
  const auto vocab = static_cast<uint32_t>(row.size());
  std::fill_n(out, n, -1);
  if (n == 1) out[0] = sdk::draw_row(row.data(), vocab, seed, position, stream);
  if (n <= 1) return;
  std::vector<sdk::Ranked> best;  // at most n, best first
  uint32_t noise[4];
  uint32_t group = UINT32_MAX;
  sdk::for_each_from(
      row.data(), vocab, [&] { return best.size() < n ? sdk::kRemoved : best.back().logit - sdk::kGumbelMax; },
      [&](int32_t id) {
        const auto v = static_cast<uint32_t>(id);
        if (!(row[v] > sdk::kRemoved)) return;
        if (v / 4 != group) sluice_rng(seed, position, stream, group = v / 4, noise);
        const sdk::Ranked entry{row[v] + sdk::gumbel(noise[v % 4]), id};
        best.insert(std::upper_bound(best.begin(), best.end(), entry, sdk::better), entry);
        if (best.size() > n) best.pop_back();
      });
  for (size_t i = 0; i < best.size(); ++i) out[i] = best[i].id;
}

template <class T> void probabilities_of(std::span<const float> row, std::vector<T> &out) {
  out.assign(row.size(), T{0});
  const float max = row.empty() ? sdk::kRemoved : *std::max_element(row.begin(), row.end());
  if (!(max > sdk::kRemoved)) return;
  double sum = 0;
  for (size_t v = 0; v < row.size(); ++v) {
    const double value = std::exp(static_cast<double>(row[v]) - static_cast<double>(max));
    out[v] = static_cast<T>(value);
    sum += value;
  }
  for (auto &value : out) value = static_cast<T>(static_cast<double>(value) / sum);
}

template void probabilities_of<float>(std::span<const float>, std::vector<float> &);
template void probabilities_of<double>(std::span<const float>, std::vector<double> &);

}  // namespace sluice::engine
