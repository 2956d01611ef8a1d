#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/isolation/shared_ring.hpp"

namespace sluice::isolation {

using Deadline = std::chrono::steady_clock::time_point;

/// One message, in memory of the receiver: nobody changes it after it has been checked. Aligned to 8 bytes.
struct Frame {
  uint32_t type = 0;
  uint64_t call = 0;  ///< which call it belongs to; 0 = none
  std::vector<uint64_t> words;
  size_t bytes = 0;
  std::span<const std::byte> payload() const {
    return {reinterpret_cast<const std::byte *>(words.data()), bytes};
  }
};

/// One end of a connection over two rings. Sending is for one thread at a time, receiving for one thread at a time.
class Link {
 public:
  enum class End { kHost, kChild };
  /// own_wake, peer_wake  eventfds, owned by the link
  /// death_fd  readable when the other side has ended, -1 = none; borrowed
  Link(End end, std::shared_ptr<SharedMemory> memory, int own_wake, int peer_wake, int death_fd);
  ~Link();
  Link(const Link &) = delete;
  Link &operator=(const Link &) = delete;

  /// errors  Timeout (nothing more can be sent: a message may be cut in two), DeviceLost (the other side is gone),
  ///         Internal (it publishes what cannot be)
  Result<> send(uint32_t type, uint64_t call, std::span<const std::byte> payload, Deadline deadline);
  /// As send, but nothing at all when there is no room at once. returns  whether it was sent
  Result<bool> try_send(uint32_t type, uint64_t call, std::span<const std::byte> payload);
  /// max_bytes  a longer message is an error, so that no length of the other side makes us allocate
  /// errors  as send; after a Timeout with nothing read the link is as before
  Result<Frame> receive(Deadline deadline, size_t max_bytes);

  SharedHead &head() { return memory_->head(); }

 private:
  Result<> wait(std::atomic<uint32_t> &sleeps, bool (Link::*ready)(), Deadline deadline);
  bool has_input();
  bool has_room();
  Result<> write_all(const void *bytes, size_t n, Deadline deadline);
  Result<> read_all(void *bytes, size_t n, Deadline deadline);
  void wake(std::atomic<uint32_t> &sleeps);

  const std::shared_ptr<SharedMemory> memory_;
  RingWriter out_;
  RingReader in_;
  const int own_wake_, peer_wake_, death_fd_;
};

}  // namespace sluice::isolation
