// Whatever the bytes, the reader returns a file that can be read in full, or an error; under a sanitizer this is proof.
#include <gtest/gtest.h>

#include "tests/core/model_file/sample_gguf.hpp"

#include <random>

namespace sluice::model_file {
namespace {

using testing::sample_file;
using testing::to_bytes;

/// Reads everything a loaded file offers; the sum keeps the compiler from dropping it.
uint64_t read_everything(const Gguf &file) {
  uint64_t sum = 0;
  for (const std::string_view key : file.keys()) {
    sum += file.u32(key) ? 1 : 0;
    sum += file.f32(key) ? 1 : 0;
    sum += file.boolean(key) ? 1 : 0;
    if (const auto text = file.string(key))
      for (const char c : *text) sum += static_cast<unsigned char>(c);
    if (const auto texts = file.strings(key))
      for (const std::string_view text : *texts)
        for (const char c : text) sum += static_cast<unsigned char>(c);
    if (const auto values = file.floats(key)) sum += values->size();
    if (const auto values = file.ints(key)) sum += values->size();
  }
  for (const Tensor &tensor : file.tensors()) {
    for (const std::byte b : tensor.bytes) sum += std::to_integer<uint64_t>(b);
    std::vector<float> row(tensor.dims[0]);
    dequantize_row(tensor.type, tensor.bytes.data(), row.data(), row.size());
  }
  return sum;
}

/// true: it loaded.
bool survives(const std::string &text) {
  const auto bytes = to_bytes(text);
  const auto file = Gguf::parse(bytes, "hostile");
  if (file) return read_everything(*file) > 0;
  EXPECT_FALSE(file.error().message.empty());
  return false;
}

TEST(GgufHostile, EveryTruncationIsRefused) {
  const std::string whole = sample_file();
  ASSERT_TRUE(survives(whole));
  const size_t padding = (32 - 420 % 32) % 32;  // behind the last tensor; the file is whole without it
  for (size_t n = 0; n < whole.size() - padding; ++n) ASSERT_FALSE(survives(whole.substr(0, n))) << n;
}

TEST(GgufHostile, EveryNumberReplacedByABoundaryValue) {
  const std::string whole = sample_file();
  const uint64_t values[] = {0,
                             1,
                             (1ull << 31) - 1,
                             1ull << 31,
                             (1ull << 31) + 1,
                             (1ull << 32) - 1,
                             1ull << 32,
                             (1ull << 32) + 1,
                             (1ull << 42) + 1,
                             1ull << 63,
                             ~0ull};
  size_t loaded = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const uint64_t value : values) {
      for (const size_t width : {4, 8}) {
        if (at + width > whole.size()) continue;
        std::string changed = whole;
        std::memcpy(changed.data() + at, &value, width);
        loaded += survives(changed);
      }
    }
  }
  EXPECT_GT(loaded, 0u);  // tensor bytes may be anything
}

TEST(GgufHostile, TenThousandRandomMutations) {
  const std::string whole = sample_file();
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) {
    std::string changed = whole;
    for (uint64_t n = 1 + random() % 4; n > 0; --n) {
      const size_t at = random() % changed.size();
      switch (random() % 4) {
        case 0:
          changed[at] = static_cast<char>(random());
          break;
        case 1:
          changed[at] = static_cast<char>(changed[at] ^ (1 << random() % 8));
          break;
        case 2:
          changed.erase(at, 1 + random() % 9);
          break;
        default:
          changed.insert(at, 1 + random() % 9, static_cast<char>(random()));
          break;
      }
      if (changed.empty()) break;
    }
    survives(changed);
  }
}

}  // namespace
}  // namespace sluice::model_file
