#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace sluice::isolation {

// Two visitors over the same description of a message: one packs, the other unpacks. Everything is padded to 8 bytes, so
// that an array can be used where it lies. Both processes are of one build, so numbers and structs go as they are.

class Packer {
 public:
  static constexpr bool kPacks = true;
  template <class T> void value(const T &v) {
    static_assert(std::is_trivially_copyable_v<T>);
    append(&v, sizeof v);
  }
  /// p  [n], or null
  template <class T> void array(const T *&p, uint64_t n) {
    value<uint64_t>(p == nullptr ? UINT64_MAX : n);
    if (p != nullptr) append(p, n * sizeof(T));
  }
  void text(const std::string &s) {
    value<uint64_t>(s.size());
    append(s.data(), s.size());
  }
  /// What another packer holds.
  void raw(std::span<const std::byte> bytes) { append(bytes.data(), bytes.size()); }
  bool ok() const { return true; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  void append(const void *p, size_t n) {
    const size_t at = bytes_.size();
    bytes_.resize(at + (n + 7) / 8 * 8);
    if (n > 0) std::memcpy(bytes_.data() + at, p, n);
  }
  std::vector<std::byte> bytes_;
};

/// Every length is checked against what is left, and an array against the length that the reader expects. After the
/// first thing that does not fit, ok() is false and everything else reads as zero or null.
class Unpacker {
 public:
  static constexpr bool kPacks = false;
  explicit Unpacker(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T> void value(T &v) {
    static_assert(std::is_trivially_copyable_v<T>);
    v = T{};
    if (const void *p = take(sizeof v)) std::memcpy(&v, p, sizeof v);
  }
  template <class T> T get() {
    T v;
    value(v);
    return v;
  }
  /// p  [n] within the message, which must outlive its use, or null
  template <class T> void array(const T *&p, uint64_t n) {
    p = nullptr;
    const auto there = get<uint64_t>();
    if (!ok_ || there == UINT64_MAX) return;
    if (there != n || n > left_.size() / sizeof(T)) return fail();
    p = reinterpret_cast<const T *>(take(n * sizeof(T)));
  }
  /// As array, of as many as the other side says.
  template <class T> std::span<const T> any_array() {
    const auto n = get<uint64_t>();
    if (!ok_ || n == UINT64_MAX) return {};
    if (n > left_.size() / sizeof(T)) return fail(), std::span<const T>{};
    return {reinterpret_cast<const T *>(take(n * sizeof(T))), static_cast<size_t>(n)};
  }
  std::string text() {
    const auto n = get<uint64_t>();
    if (!ok_ || n > left_.size()) return fail(), std::string();
    const auto *p = static_cast<const char *>(take(n));
    return p == nullptr ? std::string() : std::string(p, n);
  }
  void fail() { ok_ = false, left_ = {}; }
  bool ok() const { return ok_; }

 private:
  const void *take(size_t n) {
    const size_t padded = (n + 7) / 8 * 8;
    if (!ok_ || padded > left_.size() || padded < n) {
      fail();
      return nullptr;
    }
    const void *p = left_.data();
    left_ = left_.subspan(padded);
    return p;
  }
  std::span<const std::byte> left_;
  bool ok_ = true;
};

}  // namespace sluice::isolation
