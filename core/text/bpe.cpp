// Byte-level BPE as GGUF's "gpt2" model: split the text into words, start from single bytes, join the pair that comes
// first in the list of merges.
#include "core/text/text_encoder.hpp"

#include <fmt/format.h>
#include <bit>

namespace sluice::text {
namespace {

constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";
constexpr uint64_t kMaxMerges = 1u << 22;

/// (left token, right token) -> merge, by open addressing. Read-only once filled.
class MergeTable {
 public:
  explicit MergeTable(size_t n) : slots_(std::bit_ceil(2 * n + 1)) {}

  /// The first of two equal pairs stays.
  void insert(int32_t left, int32_t right, Merge merge) {
    Slot &slot = slots_[place(pair(left, right))];
    if (slot.merge.key == Merge::kNever) slot = {pair(left, right), merge};
  }

  Merge find(int32_t left, int32_t right) const { return slots_[place(pair(left, right))].merge; }

 private:
  struct Slot {
    uint64_t pair = 0;
    Merge merge;
  };

  static uint64_t pair(int32_t left, int32_t right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }

  size_t place(uint64_t wanted) const {
    const size_t mask = slots_.size() - 1;
    uint64_t hash = wanted * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
    size_t at = hash & mask;
    while (slots_[at].merge.key != Merge::kNever && slots_[at].pair != wanted) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

class BpeEncoder final : public TextEncoder {
 public:
  BpeEncoder(const Vocabulary &vocabulary, Pretokenizer words, MergeTable merges, bool whole_words_first)
      : vocabulary_(vocabulary),
        words_(std::move(words)),
        merges_(std::move(merges)),
        whole_words_first_(whole_words_first) {}

  Result<> encode(std::string_view text, EncodeScratch &scratch, std::vector<int32_t> &out) const override {
    if (auto r = words_.split(text, scratch.split, scratch.words); !r) return r;
    for (const std::string_view word : scratch.words)
      if (auto r = encode_word(word, scratch.queue, out); !r) return r;
    return {};
  }

 private:
  Result<> encode_word(std::string_view word, MergeQueue &queue, std::vector<int32_t> &out) const {
    if (whole_words_first_) {
      if (const int32_t token = vocabulary_.find(word); token != kNoToken) {
        out.push_back(token);
        return {};
      }
    }
    queue.symbols.clear();
    for (size_t i = 0; i < word.size(); ++i) {
      const auto byte = static_cast<unsigned char>(word[i]);
      const int32_t token = vocabulary_.byte_token(byte);
      if (token == kNoToken)
        return invalid_argument(fmt::format("the model's vocabulary has no token for byte 0x{:02X}", byte));
      queue.append(static_cast<uint32_t>(i), 1, token);
    }
    queue.run([&](const Symbol &left, const Symbol &right) { return merges_.find(left.token, right.token); });
    for (uint32_t i = 0; i != Symbol::kEnd; i = queue.symbols[i].next) out.push_back(queue.symbols[i].token);
    return {};
  }

  const Vocabulary &vocabulary_;
  Pretokenizer words_;
  MergeTable merges_;
  bool whole_words_first_;
};

/// Every merge must join two tokens into a third: symbols are token ids from the first byte on.
Result<MergeTable> read_merges(const model_file::Gguf &file, const Vocabulary &vocabulary) {
  if (const auto *raw = file.find(kMergesKey); raw != nullptr && raw->count > kMaxMerges)
    return invalid_argument(fmt::format("{}: {} merges; the limit is {}", file.name(), raw->count, kMaxMerges));
  auto merges = file.strings(kMergesKey);
  if (!merges) return merges.error();
  MergeTable table(merges->size());
  uint32_t rank = 0;
  for (const std::string_view line : *merges) {
    const size_t space = line.find(' ', 1);
    if (space == std::string_view::npos)
      return invalid_argument(fmt::format("{}: {}[{}] '{}' is not two tokens with a space between", file.name(),
                                          kMergesKey, rank, model_file::printable(line)));
    const std::string left = decode_byte_level(line.substr(0, space));
    const std::string right = decode_byte_level(line.substr(space + 1));
    const int32_t ids[3] = {vocabulary.find(left), vocabulary.find(right), vocabulary.find(left + right)};
    for (const int32_t id : ids)
      if (id == kNoToken)
        return invalid_argument(fmt::format("{}: {}[{}] '{}' joins what the vocabulary does not have", file.name(),
                                            kMergesKey, rank, model_file::printable(line)));
    table.insert(ids[0], ids[1], {rank++, ids[2]});
  }
  return table;
}

}  // namespace

Result<std::unique_ptr<TextEncoder>> make_bpe_encoder(const model_file::Gguf &file, const Vocabulary &vocabulary) {
  auto name = file.string_or("tokenizer.ggml.pre", "default");
  if (!name) return name.error();
  auto kind = find_pre_kind(*name);
  if (!kind) return Error{kind.error().code, fmt::format("{}: {}", file.name(), kind.error().message), {}};
  auto words = Pretokenizer::compile(*kind);
  if (!words) return words.error();
  auto merges = read_merges(file, vocabulary);
  if (!merges) return merges.error();
  return std::unique_ptr<TextEncoder>(
      new BpeEncoder(vocabulary, std::move(*words), std::move(*merges), kind->whole_words_first));
}

}  // namespace sluice::text
