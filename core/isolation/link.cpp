#include "core/isolation/link.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sluice::isolation {
namespace {

struct FrameHead {
  uint32_t type, reserved;
  uint64_t call, bytes;
};

// Both threads of one end may sleep on one eventfd and take each other's wake, so nobody sleeps long at a time.
constexpr std::chrono::milliseconds kNap{100};

constexpr size_t kPieceBytes = size_t{4} << 20;

}  // namespace

Link::Link(End end, std::shared_ptr<SharedMemory> memory, int own_wake, int peer_wake, int death_fd)
    : memory_(std::move(memory)),
      out_(end == End::kHost ? memory_->head().to_child : memory_->head().to_host,
           end == End::kHost ? memory_->to_child() : memory_->to_host()),
      in_(end == End::kHost ? memory_->head().to_host : memory_->head().to_child,
          end == End::kHost ? memory_->to_host() : memory_->to_child()),
      own_wake_(own_wake),
      peer_wake_(peer_wake),
      death_fd_(death_fd) {}

Link::~Link() {
  ::close(own_wake_);
  ::close(peer_wake_);
}

bool Link::has_input() {
  const auto empty = in_.empty();
  return !empty || !*empty;  // an error is found by the read that follows
}

bool Link::has_room() {
  const auto wrote = out_.write(nullptr, 0);
  const auto &positions = out_.positions();
  return !wrote || positions.written.load(std::memory_order_relaxed) - positions.read.load(std::memory_order_seq_cst) <
                       kRingBytes;
}

/// Rings the other side when it says that it sleeps. What it says is a hint: a lie costs it a nap, or us a write.
void Link::wake(std::atomic<uint32_t> &sleeps) {
  if (sleeps.exchange(0, std::memory_order_seq_cst) == 0) return;
  const uint64_t one = 1;
  (void)!::write(peer_wake_, &one, sizeof one);
}

Result<> Link::wait(std::atomic<uint32_t> &sleeps, bool (Link::*ready)(), Deadline deadline) {
  for (;;) {
    if ((this->*ready)()) return {};
    sleeps.store(1, std::memory_order_seq_cst);
    if ((this->*ready)()) {
      sleeps.store(0, std::memory_order_relaxed);
      return {};
    }
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return Error{Code::kTimeout, "the other process did not answer in time", {}};
    const auto nap = std::min<std::chrono::nanoseconds>(kNap, deadline - now);
    const timespec limit{0, nap.count()};
    pollfd fds[2] = {{own_wake_, POLLIN, 0}, {death_fd_, POLLIN, 0}};
    const int n = ::ppoll(fds, death_fd_ < 0 ? 1 : 2, &limit, nullptr);
    if (n < 0 && errno != EINTR) return Error{Code::kInternal, "ppoll failed", {}};
    if (n > 0 && (fds[0].revents & POLLIN) != 0) {
      uint64_t count;
      (void)!::read(own_wake_, &count, sizeof count);
    }
    // What it had written before it ended is still read.
    if (n > 0 && fds[1].revents != 0 && !(this->*ready)())
      return Error{Code::kDeviceLost, "the plugin's process has ended", {}};
  }
}

Result<> Link::write_all(const void *bytes, size_t n, Deadline deadline) {
  const auto *at = static_cast<const std::byte *>(bytes);
  while (n > 0) {
    const auto wrote = out_.write(at, n);
    if (!wrote) return wrote.error();
    at += *wrote, n -= *wrote;
    if (n == 0) break;
    wake(out_.positions().reader_sleeps);
    if (auto r = wait(out_.positions().writer_sleeps, &Link::has_room, deadline); !r) return r;
  }
  return {};
}

Result<> Link::read_all(void *bytes, size_t n, Deadline deadline) {
  auto *at = static_cast<std::byte *>(bytes);
  while (n > 0) {
    const auto got = in_.read(at, n);
    if (!got) return got.error();
    at += *got, n -= *got;
    if (*got > 0) wake(in_.positions().writer_sleeps);
    if (n == 0) break;
    if (auto r = wait(in_.positions().reader_sleeps, &Link::has_input, deadline); !r) return r;
  }
  return {};
}

Result<> Link::send(uint32_t type, uint64_t call, std::span<const std::byte> payload, Deadline deadline) {
  const FrameHead head{type, 0, call, payload.size()};
  if (auto r = write_all(&head, sizeof head, deadline); !r) return r;
  if (auto r = write_all(payload.data(), payload.size(), deadline); !r) return r;
  wake(out_.positions().reader_sleeps);
  return {};
}

Result<bool> Link::try_send(uint32_t type, uint64_t call, std::span<const std::byte> payload) {
  const auto &positions = out_.positions();
  const uint64_t used = positions.written.load(std::memory_order_relaxed) - positions.read.load(std::memory_order_acquire);
  if (used > kRingBytes || kRingBytes - used < sizeof(FrameHead) + payload.size()) return false;
  if (auto r = send(type, call, payload, Deadline::min()); !r) return r.error();
  return true;
}

Result<Frame> Link::receive(Deadline deadline, size_t max_bytes) {
  if (auto r = wait(in_.positions().reader_sleeps, &Link::has_input, deadline); !r) return r.error();
  FrameHead head{};
  if (auto r = read_all(&head, sizeof head, deadline); !r) return r.error();
  if (head.bytes > max_bytes)
    return Error{Code::kInternal, fmt::format("a message of {} bytes came; at most {} were expected", head.bytes, max_bytes), {}};
  Frame frame;
  frame.type = head.type, frame.call = head.call, frame.bytes = head.bytes;
  for (size_t at = 0; at < frame.bytes;) {  // memory is taken for what has come, not for what was announced
    const size_t n = std::min(kPieceBytes, frame.bytes - at);
    frame.words.resize((at + n + 7) / 8);
    if (auto r = read_all(reinterpret_cast<std::byte *>(frame.words.data()) + at, n, deadline); !r) return r.error();
    at += n;
  }
  return frame;
}

}  // namespace sluice::isolation
