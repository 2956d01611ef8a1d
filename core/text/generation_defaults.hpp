#pragma once
#include "core/base/error.hpp"
#include "core/model_file/gguf.hpp"

#include <cstdint>
#include <optional>

namespace sluice::text {

/// How the model's makers want it sampled, for requests that do not say. Empty: the file does not say either.
struct GenerationDefaults {
  std::optional<float> temperature;         ///< 0..100
  std::optional<uint32_t> top_k;            ///< 0: all
  std::optional<float> top_p;               ///< 0..1
  std::optional<float> min_p;               ///< 0..1
  std::optional<float> repetition_penalty;  ///< above 0, up to 100
};

/// Reads `general.sampling.{temp,top_k,top_p,min_p,penalty_repeat}`.
/// errors  kInvalidArgument  a key of another type or out of range
Result<GenerationDefaults> read_generation_defaults(const model_file::Gguf &file);

}  // namespace sluice::text
