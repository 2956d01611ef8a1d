#include "core/config/document.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/config/words.hpp"

namespace sluice::config {
namespace {

/// Walks TOML text without building anything: strings and comments are skipped, dots and brackets counted.
class NestingScan {
 public:
  explicit NestingScan(const std::string &text) : text_(text) {}

  uint32_t run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_string(c);
        continue;
      }
      if (c == '#') at_ = std::min(text_.find('\n', at_), text_.size() - 1);
      if (!count(text_[at_])) return line_;
      ++at_;
    }
    return 0;
  }

 private:
  bool count(char c) {
    if (c == '\n') ++line_, dots_ = 0;
    if (c == '[' || c == '{') ++open_, dots_ = 0;
    if ((c == ']' || c == '}') && open_ > 0) --open_, dots_ = 0;
    if (c == ',' || c == '=') dots_ = 0;
    if (c == '.') ++dots_;
    return open_ <= kMaxNesting && dots_ <= kMaxNesting;
  }

  bool three(char quote) const { return text_.compare(at_, 3, std::string(3, quote)) == 0; }

  void skip_string(char quote) {
    const bool long_string = three(quote);
    at_ += long_string ? 3 : 1;
    for (; at_ < text_.size(); ++at_) {
      if (quote == '"' && text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] != '\n') {
        ++at_;
      } else if (text_[at_] == '\n') {
        if (!long_string) return;  // unfinished: the parser will say so
        ++line_;
      } else if (text_[at_] == quote && (!long_string || three(quote))) {
        at_ += long_string ? 3 : 1;
        // Up to two quotes before the closing three belong to the string.
        for (int more = 0; long_string && more < 2 && at_ < text_.size() && text_[at_] == quote; ++more) ++at_;
        return;
      }
    }
  }

  const std::string &text_;
  size_t at_ = 0;
  uint32_t line_ = 1, open_ = 0, dots_ = 0;
};

std::string system_error() { return std::strerror(errno); }

Problem problem(const std::string &path, uint32_t line, std::string message) {
  return {{Origin::Kind::kFile, path, line}, std::move(message)};
}

}  // namespace

uint32_t line_nested_too_deep(const std::string &text) { return NestingScan(text).run(); }

FileText read_small_file(const std::string &path, uint64_t max_bytes) {
  // Not blocking, so that a FIFO in place of the file cannot hang the start.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return {{}, "cannot be read: " + system_error()};
  FileText file;
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    file.wrong = "cannot be read: " + system_error();
  else if (S_ISDIR(info.st_mode))
    file.wrong = "is a folder; it must be a file";
  else if (!S_ISREG(info.st_mode))
    file.wrong = "is not a regular file";
  file.mode = info.st_mode & 07777;
  char buffer[16384];
  while (file.wrong.empty()) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      file.wrong = "cannot be read: " + system_error();
    else if (file.text.size() + static_cast<size_t>(n) > max_bytes)
      file.wrong = fmt::format("is larger than {} bytes", max_bytes);
    else
      file.text.append(buffer, static_cast<size_t>(n));
  }
  ::close(fd);
  return file;
}

std::variant<toml::table, Problem> read_document(const std::string &path) {
  const FileText file = read_small_file(path, kMaxFileBytes);
  if (!file.wrong.empty()) return problem(path, 0, "the configuration file " + file.wrong);
  if (const uint32_t line = line_nested_too_deep(file.text))
    return problem(path, line, fmt::format("keys, arrays or tables nest deeper than {}", kMaxNesting));
  try {
    return toml::parse(std::string_view(file.text), std::string_view(path));
  } catch (const toml::parse_error &e) {
    return problem(path, e.source().begin.line, printable(e.description()));
  } catch (const std::exception &e) {
    return problem(path, 0, fmt::format("cannot be parsed: {}", printable(e.what())));
  }
}

}  // namespace sluice::config
