#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "core/app/command.hpp"
#include "core/app/progress.hpp"
#include "core/model_file/synth.hpp"

namespace sluice::app {

void add_synth(CLI::App &app, Exit exit) {
  struct Options {
    std::string preset, type = "q8_0", out;
    uint64_t seed = 0;
  };
  auto options = std::make_shared<Options>();
  auto *command = app.add_subcommand("synth", "Write a GGUF of a published shape with seeded random weights");
  std::vector<std::string> presets;
  for (const auto name : model_file::synth_presets()) presets.emplace_back(name);
  command->add_option("--preset", options->preset, "Which shape")->required()->check(CLI::IsMember(presets));
  command->add_option("--type", options->type, "Format of the matrices")
      ->check(CLI::IsMember({"q8_0", "q4_k", "f16"}))->capture_default_str();
  command->add_option("--seed", options->seed, "The same seed gives the same file")->capture_default_str();
  command->add_option("--out", options->out, "File to write")->required();
  command->callback([options, exit] {
    model_file::SynthOptions synth;
    synth.preset = options->preset;
    synth.type = options->type == "q8_0"   ? model_file::TensorType::kQ8_0
                 : options->type == "q4_k" ? model_file::TensorType::kQ4_K
                                           : model_file::TensorType::kF16;
    synth.seed = options->seed;
    Progress progress;
    bool started = false;
    synth.progress = [&](uint64_t done, uint64_t total) {
      if (!started) progress.phase("writing " + options->out, total);
      started = true;
      progress.advance(done);
    };
    if (auto r = model_file::synthesize(synth, options->out); !r) return exit(fail(r.error()));
    progress.done();
    exit(0);
  });
}

}  // namespace sluice::app
