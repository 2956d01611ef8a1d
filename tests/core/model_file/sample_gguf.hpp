#pragma once
#include "core/model_file/gguf.hpp"
#include "core/model_file/gguf_writer.hpp"

#include <gtest/gtest.h>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace sluice::model_file::testing {

/// A vector of exactly the bytes, so that a sanitizer sees a read one past the end.
inline std::vector<std::byte> to_bytes(const std::string &text) {
  std::vector<std::byte> out(text.size());
  if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
  return out;
}

/// A file with one key of every kind the writer knows and three tensors of different types.
inline std::string sample_file() {
  std::ostringstream out;
  GgufWriter w(out);
  const std::vector<std::string> words = {"alpha", "", "gamma"};
  const std::vector<float> scores = {0.5f, -1.0f, 2.0f};
  const std::vector<int32_t> kinds = {1, -3, 6};
  w.string("general.architecture", "llama");
  w.u32("llama.block_count", 2);
  w.f32("llama.rope.freq_base", 10000.0f);
  w.boolean("tokenizer.ggml.add_bos_token", true);
  w.strings("tokenizer.ggml.tokens", words);
  w.floats("tokenizer.ggml.scores", scores);
  w.ints("tokenizer.ggml.token_type", kinds);
  const uint64_t vector_dims[] = {3}, matrix_dims[] = {32, 2}, super_dims[] = {256, 1, 2};
  EXPECT_TRUE(w.tensor("norm", TensorType::kF32, vector_dims));
  EXPECT_TRUE(w.tensor("matrix", TensorType::kQ8_0, matrix_dims));
  EXPECT_TRUE(w.tensor("super", TensorType::kQ6_K, super_dims));
  EXPECT_TRUE(w.begin());
  for (const size_t size_bytes : {size_t{12}, size_t{68}, size_t{420}}) {
    std::vector<std::byte> data(size_bytes, std::byte{7});
    EXPECT_TRUE(w.write(std::span(data).first(size_bytes / 2)));
    EXPECT_TRUE(w.write(std::span(data).subspan(size_bytes / 2)));
  }
  EXPECT_TRUE(w.finish());
  return out.str();
}

}  // namespace sluice::model_file::testing
