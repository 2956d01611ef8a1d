#include "core/text/generation_defaults.hpp"

#include <fmt/format.h>

namespace sluice::text {
namespace {

Result<> read(const model_file::Gguf &file, std::string_view key, float low, float high, std::optional<float> &out) {
  if (!file.has(key)) return {};
  auto value = file.f32(key);
  if (!value) return value.error();
  if (*value < low || *value > high)
    return invalid_argument(fmt::format("{}: {} is {}; it must be {}..{}", file.name(), key, *value, low, high));
  out = *value;
  return {};
}

}  // namespace

Result<GenerationDefaults> read_generation_defaults(const model_file::Gguf &file) {
  GenerationDefaults out;
  if (auto r = read(file, "general.sampling.temp", 0, 100, out.temperature); !r) return r.error();
  if (auto r = read(file, "general.sampling.top_p", 0, 1, out.top_p); !r) return r.error();
  if (auto r = read(file, "general.sampling.min_p", 0, 1, out.min_p); !r) return r.error();
  if (auto r = read(file, "general.sampling.penalty_repeat", 0.01f, 100, out.repetition_penalty); !r) return r.error();
  constexpr std::string_view kTopK = "general.sampling.top_k";
  if (file.has(kTopK)) {
    auto top_k = file.u32(kTopK);
    if (!top_k) return top_k.error();
    out.top_k = *top_k;
  }
  return out;
}

}  // namespace sluice::text
