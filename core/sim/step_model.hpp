#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/sim/setup.hpp"

namespace sluice::sim {

/// A step that was measured.
struct StepPoint {
  double tokens = 0, context_tokens = 0, us = 0;
};

/// What a step takes on the simulated device.
class StepModel {
 public:
  /// From constants, a table or measurements, whichever the setup has.
  /// errors  InvalidArgument, NotFound: a file that cannot be read or makes no sense
  static Result<StepModel> create(const Device &device);

  uint64_t ns(uint32_t tokens, uint64_t context_tokens) const;
  /// For the reader of a report: the formula, or the file; with measurements how well they are met.
  const std::string &description() const { return description_; }

 private:
  struct Row {  // one count of tokens; ascending in context
    double tokens;
    std::vector<StepPoint> points;
  };
  Result<> read_table(const std::string &path);
  double table_us(double tokens, double context_tokens) const;

  StepConstants constants_;
  uint64_t between_steps_ns_ = 0;
  std::vector<Row> rows_;  // ascending in tokens; empty = constants
  std::string description_;
};

}  // namespace sluice::sim
