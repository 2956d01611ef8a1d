#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::model_file {

enum class SynthSpecials {
  kSentence,  ///< <unk> <s> </s> first, as TinyLlama has them
  kLlama3,    ///< 256 control tokens last, with Llama 3's names
};

/// The tokenizer's part of a GGUF file.
/// Always: tokens.size() == types.size(); every merge joins two tokens into a third.
struct SynthVocabulary {
  std::vector<std::string> tokens;  ///< byte-level spelling
  std::vector<int32_t> types;       ///< 1 normal, 2 unknown, 3 control
  std::vector<std::string> merges;
  uint32_t bos = 0;
  uint32_t eos = 0;
  std::string chat_template;
};

/// A byte-level BPE vocabulary of exactly size tokens: the 256 bytes, then pairs and triples of common letters.
/// size  at least 512
SynthVocabulary make_synth_vocabulary(uint32_t size, SynthSpecials specials);

}  // namespace sluice::model_file
