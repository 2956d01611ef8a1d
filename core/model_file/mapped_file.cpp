#include "core/model_file/mapped_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

namespace sluice::model_file {
namespace {

int64_t modified_ns(const struct stat &info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

Error system_error(const std::filesystem::path &path, const char *what) {
  const int code = errno;
  return {code == ENOENT ? Code::kNotFound : Code::kUnavailable,
          fmt::format("{}: {}: {}", path.string(), what, std::strerror(code)),
          {}};
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path &path) {
  MappedFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a FIFO must not hang us
  if (file.fd_ < 0) return system_error(path, "cannot open");
  struct stat info {};
  if (::fstat(file.fd_, &info) != 0) return system_error(path, "cannot stat");
  if (!S_ISREG(info.st_mode)) return invalid_argument(fmt::format("{}: not a regular file", path.string()));
  if (info.st_size <= 0) return invalid_argument(fmt::format("{}: the file is empty", path.string()));
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void *data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, file.fd_, 0);
  if (data == MAP_FAILED) return system_error(path, "cannot map");
  file.data_ = static_cast<const std::byte *>(data);
  file.size_bytes_ = size_bytes;
  file.modified_ns_ = modified_ns(info);
  return file;
}

MappedFile::MappedFile(MappedFile &&other) noexcept { *this = std::move(other); }

MappedFile &MappedFile::operator=(MappedFile &&other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(fd_, other.fd_);
  std::swap(modified_ns_, other.modified_ns_);
  path_.swap(other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte *>(data_), size_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

Result<> MappedFile::check_unchanged() const {
  if (fd_ < 0) return {};
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return system_error(path_, "cannot stat");
  if (static_cast<size_t>(info.st_size) != size_bytes_ || modified_ns(info) != modified_ns_)
    return Error{
        Code::kUnavailable, fmt::format("{}: the file changed while it was in use; load it again", path_.string()), {}};
  return {};
}

}  // namespace sluice::model_file
