#include "core/isolation/shared_ring.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace sluice::isolation {
namespace {

Error broken(const char *what) {
  return {Code::kInternal, std::string("the other side of the ring published ") + what, {}};
}

Error failed(const char *call) {
  return {Code::kResourceExhausted, std::string(call) + ": " + std::strerror(errno), {}};
}

}  // namespace

Result<size_t> RingWriter::write(const void *bytes, size_t n) {
  const uint64_t peer = positions_.read.load(std::memory_order_acquire);
  if (peer < peer_read_ || peer > written_) return broken("a position that it cannot have read to");
  peer_read_ = peer;
  const size_t room = kRingBytes - static_cast<size_t>(written_ - peer);
  n = std::min(n, room);
  if (n == 0) return n;  // `bytes` may be null then, which memcpy() does not allow
  const size_t at = written_ % kRingBytes, first = std::min(n, kRingBytes - at);
  std::memcpy(data_ + at, bytes, first);
  std::memcpy(data_, static_cast<const std::byte *>(bytes) + first, n - first);
  written_ += n;
  positions_.written.store(written_, std::memory_order_seq_cst);
  return n;
}

Result<uint64_t> RingReader::available() {
  const uint64_t peer = positions_.written.load(std::memory_order_seq_cst);
  if (peer < peer_written_ || peer - read_ > kRingBytes) return broken("a position that it cannot have written to");
  peer_written_ = peer;
  return peer - read_;
}

Result<bool> RingReader::empty() {
  const auto n = available();
  if (!n) return n.error();
  return *n == 0;
}

Result<size_t> RingReader::read(void *bytes, size_t n) {
  const auto there = available();
  if (!there) return there.error();
  n = std::min<size_t>(n, *there);
  if (n == 0) return n;
  const size_t at = read_ % kRingBytes, first = std::min(n, kRingBytes - at);
  std::memcpy(bytes, data_ + at, first);
  std::memcpy(static_cast<std::byte *>(bytes) + first, data_, n - first);
  read_ += n;
  positions_.read.store(read_, std::memory_order_seq_cst);
  return n;
}

Result<std::unique_ptr<SharedMemory>> SharedMemory::create() {
  const int fd = ::memfd_create("sluice-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return failed("memfd_create");
  if (::ftruncate(fd, kBytes) != 0 || ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const Error error = failed("sizing and sealing the ring");
    ::close(fd);
    return error;
  }
  auto mapped = map(fd);
  if (!mapped) ::close(fd);
  else new (&(*mapped)->head()) SharedHead{};
  return mapped;
}

Result<std::unique_ptr<SharedMemory>> SharedMemory::map(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return failed("fstat of the ring");
  if (info.st_size != static_cast<off_t>(kBytes))
    return invalid_argument("the ring has " + std::to_string(info.st_size) + " bytes; it must have " + std::to_string(kBytes));
  void *memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return failed("mmap of the ring");
  return std::unique_ptr<SharedMemory>(new SharedMemory(fd, static_cast<std::byte *>(memory)));
}

SharedMemory::~SharedMemory() {
  ::munmap(memory_, kBytes);
  ::close(fd_);
}

}  // namespace sluice::isolation
