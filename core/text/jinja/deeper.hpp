#pragma once
#include "core/text/jinja/renderer.hpp"

#include <fmt/format.h>

namespace sluice::text::jinja {

/// Counts the interpreter's recursion; the stack is the reason.
class Renderer::Deeper {
 public:
  explicit Deeper(Renderer &renderer) : renderer_(renderer) {
    if (++renderer_.depth_ > renderer_.limits_.max_depth)
      throw Failure{Code::kResourceExhausted,
                    fmt::format("calls and blocks are nested more than {} deep", renderer_.limits_.max_depth)};
  }
  ~Deeper() { --renderer_.depth_; }
  Deeper(const Deeper &) = delete;
  Deeper &operator=(const Deeper &) = delete;

 private:
  Renderer &renderer_;
};

}  // namespace sluice::text::jinja
