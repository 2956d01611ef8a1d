#include "core/text/detokenizer.hpp"

#include "core/text/utf8.hpp"

namespace sluice::text {

void Detokenizer::push_slowly(std::string_view piece, std::string &out) {
  if (piece.empty()) return;  // a control token neither ends a character nor is the text's first
  if (strip_space_ && piece[0] == ' ') piece.remove_prefix(1);
  strip_space_ = false;
  held_ += piece;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (step.status == Utf8Status::kIncomplete) break;
    out += step.status == Utf8Status::kValid ? rest.substr(0, step.bytes) : kReplacementCharacter;
    rest.remove_prefix(step.bytes);
  }
  held_.erase(0, held_.size() - rest.size());
}

void Detokenizer::flush(std::string &out) {
  if (!held_.empty()) out += kReplacementCharacter;
  held_.clear();
}

}  // namespace sluice::text
