#pragma once
#include "core/base/error.hpp"
#include "core/model_file/gguf.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::text {

/// No token: what a lookup gives when there is none.
inline constexpr int32_t kNoToken = -1;

/// What a token is for, by GGUF's numbers.
enum class TokenKind : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

/// How a vocabulary writes the bytes of a token down.
enum class Spelling {
  kSentencePiece,  ///< UTF-8 with U+2581 for a space; byte tokens as <0xNN>
  kByteLevel,      ///< one character per byte (model_file/byte_level.hpp)
};

/// The tokens of a model file, copied and checked: every id below size() is safe to ask for. Immutable. [any]
class Vocabulary {
 public:
  static constexpr size_t kMaxTokens = 1u << 21;
  static constexpr size_t kMaxTokenBytes = 16u << 10;

  /// errors  as Gguf's getters; kInvalidArgument also when lengths disagree or a byte token is malformed
  static Result<Vocabulary> read(const model_file::Gguf &file, Spelling spelling);

  size_t size() const { return kinds_.size(); }
  bool contains(int64_t id) const { return id >= 0 && static_cast<uint64_t>(id) < size(); }
  TokenKind kind(int32_t id) const { return kinds_[static_cast<size_t>(id)]; }

  /// The token as the file spells it.
  std::string_view text(int32_t id) const { return texts_.at(id); }

  /// The bytes the token stands for in output. Empty for control tokens; U+FFFD for the unknown token.
  std::string_view piece(int32_t id) const { return pieces_.at(id); }

  /// The piece is whole UTF-8 characters, so it needs no neighbour to be shown.
  bool is_whole(int32_t id) const { return whole_[static_cast<size_t>(id)] != 0; }

  /// The token that ordinary text may become: kNormal, kUserDefined or kUnused.
  /// key  kSentencePiece: the spelling; kByteLevel: the bytes
  int32_t find(std::string_view key) const;

  int32_t byte_token(uint8_t byte) const { return byte_tokens_[byte]; }
  size_t longest_key_bytes() const { return longest_key_bytes_; }

 private:
  /// Strings back to back.
  struct Arena {
    std::string bytes;
    std::vector<uint32_t> ends;
    void add(std::string_view text) {
      bytes += text;
      ends.push_back(static_cast<uint32_t>(bytes.size()));
    }
    std::string_view at(int32_t id) const {
      const uint32_t begin = id == 0 ? 0 : ends[static_cast<size_t>(id) - 1];
      return {bytes.data() + begin, ends[static_cast<size_t>(id)] - begin};
    }
  };

  Result<> read_kinds(const model_file::Gguf &file, size_t n_tokens);
  Result<> add_token(std::string_view text, const std::string &file_name);
  Result<std::string> decode(std::string_view text, TokenKind kind) const;
  bool is_searchable(int32_t id) const;
  std::string_view key(int32_t id) const { return spelling_ == Spelling::kSentencePiece ? text(id) : piece(id); }
  void index_keys();

  Spelling spelling_ = Spelling::kSentencePiece;
  std::vector<TokenKind> kinds_;
  Arena texts_;
  Arena pieces_;
  std::vector<uint8_t> whole_;
  std::array<int32_t, 256> byte_tokens_{};
  std::vector<int32_t> slots_;  ///< open addressing, a power of two of ids; kNoToken: free
  size_t longest_key_bytes_ = 0;
};

/// The bytes behind byte-level spelling. Characters outside its alphabet stay as they are: some vocabularies add such
/// words without marking them. [any]
std::string decode_byte_level(std::string_view text);

}  // namespace sluice::text
