#pragma once
#include "core/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace sluice::model_file {

/// A regular file mapped read-only. The one owner of the mapping; views into bytes() live as long as it does,
/// and stay valid when it is moved. [any]
class MappedFile {
 public:
  /// errors  kNotFound, kInvalidArgument (not a regular file, empty), kUnavailable (the system refused).
  static Result<MappedFile> open(const std::filesystem::path &path);

  MappedFile() = default;
  MappedFile(MappedFile &&other) noexcept;
  MappedFile &operator=(MappedFile &&other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }

  /// An error when the file has changed since open(). A file that shrinks under its mapping kills the reader with
  /// SIGBUS, so whoever copies weights out asks this before and after.
  Result<> check_unchanged() const;

 private:
  const std::byte *data_ = nullptr;
  size_t size_bytes_ = 0;
  int fd_ = -1;
  int64_t modified_ns_ = 0;
  std::filesystem::path path_;
};

}  // namespace sluice::model_file
