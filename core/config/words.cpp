#include "core/config/words.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/config/config.hpp"

namespace sluice::config {
namespace {

constexpr size_t kExcerptBytes = 60;
constexpr size_t kLongestWord = 64;  // a longer one is no typing mistake, and the distance costs its square

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

/// Lower case with `_` for `-`, so that `Max-N` is at distance 0 of `max_n`.
std::string folded(std::string_view word) {
  std::string out;
  for (const char c : word) out += c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

/// Letters added, left out, replaced, or swapped with their neighbour (optimal string alignment).
size_t edit_distance(const std::string &a, const std::string &b) {
  std::vector<size_t> before, last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = last;
    last = row;
  }
  return last[b.size()];
}

}  // namespace

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (is_control(c))
      out += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + '"';
}

std::string excerpt(std::string_view text) {
  if (text.size() <= kExcerptBytes) return toml_text(text);
  size_t cut = kExcerptBytes;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) --cut;
  return toml_text(text.substr(0, cut)) + "...";
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (is_control(c))
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  return out;
}

std::string key_part(std::string_view name) {
  const bool bare = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return bare ? std::string(name) : toml_text(name);
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t point = lead & (0x3fu >> more);
    for (int k = 0; k < more; ++k) {
      const auto c = static_cast<unsigned char>(text[i++]);
      if ((c & 0xc0) != 0x80) return false;
      point = point << 6 | (c & 0x3f);
    }
    if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10ffff)) ||
        (point >= 0xd800 && point <= 0xdfff))
      return false;
  }
  return true;
}

std::string join(const std::vector<std::string> &parts) {
  std::string out;
  for (const std::string &part : parts) out += (out.empty() ? "" : ", ") + part;
  return out;
}

std::string nearest(const std::string &word, const std::vector<std::string> &candidates) {
  if (word.size() > kLongestWord) return {};
  const std::string *best = nullptr;
  size_t best_distance = 0;
  for (const std::string &candidate : candidates) {
    const size_t distance = edit_distance(folded(word), folded(candidate));
    if (best == nullptr || distance < best_distance) best = &candidate, best_distance = distance;
  }
  // A third of the letters may be wrong; beyond that a suggestion only misleads.
  if (best == nullptr || best_distance > std::max<size_t>(1, std::max(word.size(), best->size()) / 3)) return {};
  return *best;
}

}  // namespace sluice::config
