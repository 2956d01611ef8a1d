#include "core/text/generation_defaults.hpp"

#include "core/model_file/gguf_writer.hpp"

#include <gtest/gtest.h>
#include <functional>
#include <sstream>

namespace sluice::text {
namespace {

Result<GenerationDefaults> read(const std::function<void(model_file::GgufWriter &)> &write) {
  std::ostringstream out;
  model_file::GgufWriter w(out);
  w.string("general.architecture", "llama");
  write(w);
  EXPECT_TRUE(w.begin());
  const std::string bytes = out.str();
  const auto file = model_file::Gguf::parse(std::as_bytes(std::span(bytes)), "f");
  EXPECT_TRUE(file);
  return read_generation_defaults(*file);
}

TEST(GenerationDefaults, AreEmptyWhereTheFileIsSilent) {
  const auto d = read([](auto &) {});
  ASSERT_TRUE(d);
  EXPECT_FALSE(d->temperature || d->top_k || d->top_p || d->min_p || d->repetition_penalty);
}

TEST(GenerationDefaults, AreReadAndChecked) {
  const auto d = read([](auto &w) {
    w.f32("general.sampling.temp", 0.6f);
    w.u32("general.sampling.top_k", 20);
    w.f32("general.sampling.top_p", 0.95f);
    w.f32("general.sampling.penalty_repeat", 1.05f);
  });
  ASSERT_TRUE(d);
  EXPECT_EQ(d->temperature, 0.6f);
  EXPECT_EQ(d->top_k, 20u);
  EXPECT_EQ(d->top_p, 0.95f);
  EXPECT_EQ(d->repetition_penalty, 1.05f);
  EXPECT_FALSE(d->min_p);
  const auto bad = read([](auto &w) { w.f32("general.sampling.top_p", 1.5f); });
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("general.sampling.top_p is 1.5; it must be 0..1"), std::string::npos);
  EXPECT_FALSE(read([](auto &w) { w.string("general.sampling.temp", "hot"); }));
}

}  // namespace
}  // namespace sluice::text
