#pragma once
#include <cstdint>
#include <string>
#include <variant>

#include "core/config/config.hpp"

namespace sluice::config {

inline constexpr uint64_t kMaxFileBytes = 1 << 20;
inline constexpr uint32_t kMaxNesting = 32;

/// Reads and parses a file that may be hostile: its size and nesting are bounded, its text must be UTF-8.
/// returns  the tables, with source positions, or the one problem that kept it from being read.
std::variant<toml::table, Problem> read_document(const std::string &path);

/// Line of the first key or bracket that nests deeper than kMaxNesting, 0 when none does. toml++ bounds brackets, but
/// `[a.a.a...]` makes it build, and recursively destroy, a table per dot. What is not TOML is left to the parser.
uint32_t line_nested_too_deep(const std::string &text);

/// The content of a regular file of at most max_bytes.
/// returns  the text, or what is wrong with the file ("is a folder").
struct FileText {
  std::string text, wrong;
  uint32_t mode = 0;  ///< permission bits
};
FileText read_small_file(const std::string &path, uint64_t max_bytes);

}  // namespace sluice::config
