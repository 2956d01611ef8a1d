// How long a step of the mock takes: a constant, a price per token, a measured table, and jitter on top.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::mock {

/// Measured steps: lines `n_tokens,context_tokens,us`, blank lines and lines that begin with '#' or a letter aside.
/// Between points the time is interpolated along context, then along n_tokens; outside it is that of the nearest point.
class StepTable {
 public:
  StepTable() = default;
  /// errors: std::runtime_error (the file cannot be read; a line is malformed, told by number; no line at all).
  static StepTable read(const std::string &path);
  /// errors: as read; `name` stands for the file in messages.
  static StepTable parse(const std::string &text, const std::string &name);

  bool empty() const { return rows_.empty(); }
  double us(double n_tokens, double context_tokens) const;

 private:
  struct Point {
    double context_tokens, us;
  };
  struct Row {  // points ascend
    double n_tokens;
    std::vector<Point> points;
  };
  static double along(const Row &row, double context_tokens);
  std::vector<Row> rows_;  // ascend
};

struct StepTime {
  double step_us = 0, token_us = 0;
  double jitter = 0;  // the step takes up to this fraction longer
  uint64_t seed = 0;
  StepTable table;

  bool instant() const { return step_us == 0 && token_us == 0 && table.empty(); }
  /// Of submission number `n_submit` with so many tokens over so much cached context.
  uint64_t ns(uint64_t n_submit, uint32_t n_tokens, uint64_t context_tokens) const;
};

}  // namespace sluice::mock
