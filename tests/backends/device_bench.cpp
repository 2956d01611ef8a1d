#include "tests/backends/device_bench.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace sluice::test {
namespace {

constexpr float kGuardValue = 12345.5f;

}  // namespace

std::vector<float> normal(size_t n, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> v(n);
  for (float &x : v) x = distribution(random);
  return v;
}

Matrix::Matrix(model_file::TensorType t, uint64_t n_rows, uint64_t n_cols, uint32_t seed)
    : type(t), rows(n_rows), cols(n_cols) {
  const uint64_t row_bytes = model_file::row_bytes(t, n_cols).value();
  bytes.resize(row_bytes * n_rows);
  const std::vector<float> values = normal(n_rows * n_cols, seed, 0.05f);
  for (uint64_t r = 0; r < n_rows; ++r)
    model_file::quantize_row(t, values.data() + r * n_cols, bytes.data() + r * row_bytes, n_cols);
}

std::vector<float> Matrix::row(uint64_t r) const {
  std::vector<float> out(cols);
  model_file::dequantize_row(type, bytes.data() + r * (bytes.size() / rows), out.data(), cols);
  return out;
}

Slot Rig::activation(size_t n) { return activation(std::vector<float>(n, std::nanf(""))); }

Slot Rig::activation(const std::vector<float> &values) {
  const graph::Buffer b = device_->allocate((values.size() + kGuard) * sizeof(float), graph::BufferUse::kResult);
  auto *p = static_cast<float *>(device_->mapped(b));
  std::copy(values.begin(), values.end(), p);
  std::fill_n(p + values.size(), kGuard, kGuardValue);
  args.activations.push_back(b);
  sizes_.push_back(values.size());
  return static_cast<Slot>(sizes_.size() - 1);
}

std::vector<float> Rig::read(Slot slot) const {
  const auto *p = static_cast<const float *>(device_->mapped(args.activations[slot]));
  return {p, p + sizes_[slot]};
}

graph::Buffer Rig::constant(const std::vector<float> &values) {
  const graph::Buffer b = device_->allocate(values.size() * sizeof(float), graph::BufferUse::kDevice);
  device_->upload(b, values.data(), values.size() * sizeof(float));
  return b;
}

bool Rig::intact() const {
  for (size_t s = 0; s < sizes_.size(); ++s) {
    const auto *p = static_cast<const float *>(device_->mapped(args.activations[s])) + sizes_[s];
    for (size_t i = 0; i < kGuard; ++i)
      if (p[i] != kGuardValue) return false;
  }
  return true;
}

Difference difference(const std::vector<float> &a, const std::vector<float> &b) {
  double error = 0, power = 0, peak = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double e = double{a[i]} - b[i];
    error += e * e;
    power += double{b[i]} * b[i];
    peak = std::max(peak, std::abs(e));
  }
  return {error / power, peak / std::sqrt(power / static_cast<double>(a.size()))};
}

void expect_close(const std::vector<float> &a, const std::vector<float> &b, double nmse, double peak,
                  const std::string &what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(std::isfinite(a[i])) << what << ": element " << i;
  const Difference d = difference(a, b);
  EXPECT_LE(d.nmse, nmse) << what;
  EXPECT_LE(d.peak, peak) << what;
}

}  // namespace sluice::test
