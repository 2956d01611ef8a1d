#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/config.hpp"

namespace sluice::sim {

/// Lognormal, described by what people measure.
struct LengthPart {
  double weight = 1;  ///< relative to the others of its list
  double mean = 1;    ///< tokens
  double cv = 0;      ///< standard deviation over mean; 0 = always the mean
};

/// How many tokens go in and come out. A pair outside the limits is drawn again.
struct Lengths {
  std::vector<LengthPart> input, output;  ///< mixtures
  uint32_t max_input = 0, max_total = 0;  ///< tokens; 0 = whatever fits into the KV cache
};

enum class Arrivals : uint8_t { kPoisson, kGamma, kOnOff, kTrace };

struct Load {
  Arrivals arrivals = Arrivals::kPoisson;
  std::vector<double> rho;      ///< rates relative to saturation; empty = rates
  double saturation_per_s = 0;  ///< requests; 0 = measured with the first policy before anything else
  std::vector<double> rates_per_s;
  double gamma_cv = 1;          ///< of the gaps between arrivals
  double on_s = 10, off_s = 10;  ///< of kOnOff: all arrivals come in the first, at a rate that keeps the mean
  std::string trace;            ///< CSV with lines arrival_s,input_tokens,output_tokens; lengths and rates come from it
};

/// What a step takes: max(floor, per_token * tokens) + base + per_context * cached tokens, in picoseconds so that it is
/// exact in integers.
struct StepConstants {
  uint64_t floor_ps = 0, token_ps = 0, base_ps = 0, context_ps = 0;
};

/// When a step that follows a transfer may begin.
enum class Overlap : uint8_t {
  kFull,     ///< at once: freed blocks can be written to while their bytes still leave, as with a staging buffer
  kByBlock,  ///< when the bytes of every block that it writes to have left
  kNone,     ///< when all transfers are done
};

struct Device {
  StepConstants step;
  std::string step_table;          ///< CSV n_tokens,context_tokens,us instead of the constants; empty = none
  uint64_t between_steps_ps = 0;   ///< what the host needs; added to every step, whatever the model of it
  std::vector<std::string> bench;  ///< outputs of `sluice bench --json` to fit the constants to
  uint64_t kv_tokens = 0;
  uint32_t block_size = 16;
  uint64_t bytes_per_token = 0;
  double host_pool = 0;            ///< relative to the device's cache; 0 = no swap space
  uint64_t transfer_bytes_per_s = 0;
  bool full_duplex = true;
  Overlap overlap = Overlap::kFull;
};

struct EngineSetup {
  uint32_t max_seqs = 16, token_budget = 2048;
  uint32_t max_live = 16384;       ///< requests that the engine knows of; more wait outside, in order
  uint32_t waiting_window = 256;
  std::optional<uint32_t> watermark_blocks;  ///< unset = 2 % of the blocks, as the server
  bool prefix_cache = false;
};

struct Policy {
  std::string name;         ///< in reports; unique
  config::PluginUse plugin;
};

/// A setup file, checked.
struct Setup {
  std::string path, title;
  uint32_t requests = 20'000;
  std::vector<uint64_t> seeds{1};
  double counted = 0.8;      ///< the middle part of the requests that counts
  uint32_t audit_every = 0;  ///< steps between two checks of the ledger; 0 = only at the end
  Load load;
  Lengths lengths;
  Device device;
  EngineSetup engine;
  std::vector<Policy> policies;
};

/// Reads a setup file. Every problem is collected; none = usable. [init]
Setup read_setup(const std::string &path, std::vector<config::Problem> &problems);

/// What is wrong between values that are fine by themselves, also after flags have changed some. Appends problems.
void check_setup(const Setup &setup, std::vector<config::Problem> &problems);

uint32_t kv_blocks(const Setup &setup);
uint32_t host_blocks(const Setup &setup);
uint32_t watermark_blocks(const Setup &setup);

}  // namespace sluice::sim
