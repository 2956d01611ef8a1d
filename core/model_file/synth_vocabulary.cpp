#include "core/model_file/synth_vocabulary.hpp"

#include "core/model_file/byte_level.hpp"

#include <fmt/format.h>
#include <cassert>
#include <string_view>

namespace sluice::model_file {
namespace {

// By frequency in English, so that the short merges are the useful ones.
constexpr std::string_view kLetters = "etaoinshrdlcumwfgypbvkjxqzETAOINSHRDLCUMWFGYPBVKJXQZ";
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3;

constexpr std::string_view kSentenceTemplate =
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
constexpr std::string_view kLlama3Template =
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

std::string spell(unsigned byte) {
  static constexpr auto kCodePoints = byte_level_code_points();
  const unsigned c = kCodePoints[byte];
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
}

void add(SynthVocabulary &v, std::string token, int32_t type) {
  v.tokens.push_back(std::move(token));
  v.types.push_back(type);
}

/// Joins every token of a level with every letter until n more tokens exist. A level's tokens are one byte longer than
/// those before, so none repeats.
void add_merges(SynthVocabulary &v, size_t n) {
  std::vector<std::string> level = {spell(' ')};
  for (const char c : kLetters) level.emplace_back(1, c);
  while (n > 0) {
    std::vector<std::string> next;
    for (const std::string &left : level) {
      for (const char right : kLetters) {
        if (n == 0) return;
        --n;
        v.merges.push_back(fmt::format("{} {}", left, right));
        next.push_back(left + right);
        add(v, next.back(), kNormal);
      }
    }
    level = std::move(next);
  }
}

void add_llama3_specials(SynthVocabulary &v, uint32_t count) {
  static constexpr std::string_view kNames[] = {"<|begin_of_text|>",
                                                "<|end_of_text|>",
                                                "<|reserved_special_token_0|>",
                                                "<|reserved_special_token_1|>",
                                                "<|finetune_right_pad_id|>",
                                                "<|reserved_special_token_2|>",
                                                "<|start_header_id|>",
                                                "<|end_header_id|>",
                                                "<|eom_id|>",
                                                "<|eot_id|>",
                                                "<|python_tag|>"};
  const auto first = static_cast<uint32_t>(v.tokens.size());
  for (uint32_t i = 0; i < count; ++i)
    add(v, i < std::size(kNames) ? std::string(kNames[i]) : fmt::format("<|reserved_special_token_{}|>", i - 8),
        kControl);
  v.bos = first;
  v.eos = first + 9;  // end of turn, as the instruct models have it
}

}  // namespace

SynthVocabulary make_synth_vocabulary(uint32_t size, SynthSpecials specials) {
  assert(size >= 512);
  constexpr uint32_t kLlama3Specials = 256;
  SynthVocabulary v;
  if (specials == SynthSpecials::kSentence) {
    add(v, "<unk>", kUnknown);
    add(v, "<s>", kControl);
    add(v, "</s>", kControl);
    v.bos = 1;
    v.eos = 2;
  }
  for (unsigned byte = 0; byte < 256; ++byte) add(v, spell(byte), kNormal);
  const bool llama3 = specials == SynthSpecials::kLlama3;
  add_merges(v, size - v.tokens.size() - (llama3 ? kLlama3Specials : 0));
  if (llama3) add_llama3_specials(v, kLlama3Specials);
  v.chat_template = llama3 ? kLlama3Template : kSentenceTemplate;
  return v;
}

}  // namespace sluice::model_file
