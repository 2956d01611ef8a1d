#pragma once
#include "core/base/error.hpp"
#include "core/model_file/formats.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::model_file {

struct SynthOptions {
  std::string preset;                   ///< one of synth_presets()
  TensorType type = TensorType::kQ8_0;  ///< of every matrix: q8_0, q4_k or f16; vectors are f32
  uint64_t seed = 0;
  /// Called after every piece of at most a few MiB; may be empty.
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> progress;
};

/// tinyllama-1.1b, llama-3.2-3b, llama-3.1-8b, and tiny (two layers, for tests).
std::vector<std::string_view> synth_presets();

/// Writes a model of a published shape whose weights are random, N(0, 0.02), with a made-up byte-level vocabulary of
/// the published size, so that everything but the sense of the text is real. The same options give the same bytes.
/// Writes `out`.part and renames it, so `out` is whole or untouched.
///
/// errors  kInvalidArgument (unknown preset, type), kUnavailable (the file cannot be written)
/// thread  [any]; blocks for seconds
Result<> synthesize(const SynthOptions &options, const std::filesystem::path &out);

/// The same, to a stream.
Result<> synthesize(const SynthOptions &options, std::ostream &out);

}  // namespace sluice::model_file
