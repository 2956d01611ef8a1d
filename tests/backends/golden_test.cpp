// Whole models through the plugin table, compared with logits of an independent implementation.
#include "tests/backends/plugin_model.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>

namespace sluice::test {
namespace {

const std::vector<int32_t> kTokens = {1,   403, 407, 261, 378, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267,
                                      337, 410, 408, 419, 292, 411, 322, 265, 282, 295, 433, 426, 385, 328, 432};

struct Case {
  const char *backend, *file;
  double bar;  ///< NMSE at most
};
void PrintTo(const Case &c, std::ostream *out) { *out << c.backend << " " << c.file; }

std::vector<float> read_floats(const std::filesystem::path &path) {
  std::vector<float> v(std::filesystem::file_size(path) / sizeof(float));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char *>(v.data()), static_cast<std::streamsize>(v.size() * sizeof(float)));
  return v;
}

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, LogitsMatch) {
  const Case &c = GetParam();
  const std::filesystem::path folder = std::filesystem::path(SLUICE_SHARED_DATA) / "golden";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no golden models at " << folder;
  const std::vector<float> golden = read_floats(folder / (std::string(c.file) + ".f32"));
  Host host(2);
  PluginModel model(host, c.backend, folder / (std::string(c.file) + ".gguf"));
  model.configure(64, 8, 16, SLUICE_DT_F32);
  const std::vector<float> logits = run_logits(model, {{kTokens, 0, {3, 5}, {}}}, 16);
  ASSERT_EQ(golden.size(), logits.size());
  const double error = nmse(logits.data(), golden.data(), golden.size());
  RecordProperty("nmse", std::to_string(error));
  std::printf("%s %s: NMSE %.3g (bar %g)\n", c.backend, c.file, error, c.bar);
  EXPECT_LE(error, c.bar);
}

INSTANTIATE_TEST_SUITE_P(Reference, Golden,
                         testing::Values(Case{"reference", "llama", 1e-6}, Case{"reference", "llama-F16", 1e-6},
                                         Case{"reference", "llama-BF16", 1e-6}, Case{"reference", "llama-Q8_0", 1e-6},
                                         Case{"reference", "llama-Q4_0", 1e-6}, Case{"reference", "llama-Q4_K", 1e-6},
                                         Case{"reference", "llama-Q6_K", 1e-6}, Case{"reference", "qwen2", 1e-6},
                                         Case{"reference", "qwen3", 1e-6}));

INSTANTIATE_TEST_SUITE_P(Cpu, Golden,
                         testing::Values(Case{"cpu", "llama", 1e-5}, Case{"cpu", "llama-F16", 1e-4},
                                         Case{"cpu", "llama-BF16", 1e-3}, Case{"cpu", "llama-Q8_0", 5e-3},
                                         Case{"cpu", "llama-Q4_0", 5e-3}, Case{"cpu", "llama-Q4_K", 5e-3},
                                         Case{"cpu", "llama-Q6_K", 5e-3}, Case{"cpu", "qwen2", 1e-5},
                                         Case{"cpu", "qwen3", 1e-5}));

}  // namespace
}  // namespace sluice::test
