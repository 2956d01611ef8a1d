#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace sluice::support {

/// A fresh directory that only this user can read, removed with everything in it at the end.
class TempDir {
 public:
  TempDir();  ///< throws std::runtime_error
  ~TempDir();
  TempDir(const TempDir &) = delete;
  TempDir &operator=(const TempDir &) = delete;

  const std::filesystem::path &path() const { return path_; }
  std::string file(std::string_view name) const { return (path_ / name).string(); }
  /// Writes a file and gives its path back.
  std::string write(std::string_view name, std::string_view content) const;

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::string &path);  ///< "" when it cannot be read

}  // namespace sluice::support
