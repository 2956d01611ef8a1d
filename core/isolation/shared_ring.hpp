#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/base/error.hpp"

// One stream of bytes per direction in memory that two processes share. One writes and one reads, without a lock. Each
// side keeps its own position in memory of its own and publishes a copy; the other's published position is read once,
// checked against what is possible, and never looked at again for the same decision.

namespace sluice::isolation {

/// Published positions of one ring, counted in bytes since the beginning.
struct RingPositions {
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> read;
  alignas(64) std::atomic<uint32_t> writer_sleeps, reader_sleeps;
};

/// The beginning of the shared memory; two rings of ring_bytes each lie behind it, to the child first.
struct SharedHead {
  RingPositions to_child, to_host;
  alignas(64) std::atomic<uint64_t> heartbeat;  ///< the child counts it up
  std::atomic<uint32_t> stop;                   ///< the host asks the call under way to stop
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

inline constexpr size_t kRingBytes = 1 << 20;  // a power of two; longer messages go through in pieces
inline constexpr size_t kHeadBytes = 4096;
static_assert(sizeof(SharedHead) <= kHeadBytes);

class RingWriter {
 public:
  RingWriter(RingPositions &positions, std::byte *data) : positions_(positions), data_(data) {}
  /// Writes what there is room for. returns  bytes; errors: Internal, the other side publishes what cannot be
  Result<size_t> write(const void *bytes, size_t n);
  RingPositions &positions() { return positions_; }

 private:
  RingPositions &positions_;
  std::byte *const data_;
  uint64_t written_ = 0, peer_read_ = 0;
};

class RingReader {
 public:
  RingReader(RingPositions &positions, const std::byte *data) : positions_(positions), data_(data) {}
  /// Copies out what is there, at most n. returns, errors  as write
  Result<size_t> read(void *bytes, size_t n);
  Result<bool> empty();
  RingPositions &positions() { return positions_; }

 private:
  Result<uint64_t> available();
  RingPositions &positions_;
  const std::byte *const data_;
  uint64_t read_ = 0, peer_written_ = 0;
};

/// Anonymous memory without a name, which can neither shrink nor grow any more, so that no access can fault.
class SharedMemory {
 public:
  static Result<std::unique_ptr<SharedMemory>> create();
  /// Maps what the other side has made. errors  InvalidArgument: the size is not the one agreed on
  static Result<std::unique_ptr<SharedMemory>> map(int fd);
  ~SharedMemory();
  SharedMemory(const SharedMemory &) = delete;
  SharedMemory &operator=(const SharedMemory &) = delete;

  int fd() const { return fd_; }
  SharedHead &head() { return *reinterpret_cast<SharedHead *>(memory_); }
  std::byte *to_child() { return memory_ + kHeadBytes; }
  std::byte *to_host() { return memory_ + kHeadBytes + kRingBytes; }
  static constexpr size_t kBytes = kHeadBytes + 2 * kRingBytes;

 private:
  SharedMemory(int fd, std::byte *memory) : fd_(fd), memory_(memory) {}
  const int fd_;
  std::byte *const memory_;
};

}  // namespace sluice::isolation
