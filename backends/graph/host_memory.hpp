// Memory of devices that live in the host's RAM, and how much of it there is.
#pragma once
#include "backends/graph/device.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace sluice::graph {

/// RAM that this process may still take: MemAvailable, or what the control group's limit leaves when that is less.
/// total is the smaller of MemTotal and that limit. [any]
DeviceMemory host_memory();

/// The same from given texts, for tests. meminfo is /proc/meminfo; limit and usage are memory.max and memory.current of
/// a control group, empty when there is none.
DeviceMemory parse_host_memory(const std::string &meminfo, const std::string &limit, const std::string &usage);

/// Zeroed, page-aligned memory, backed by huge pages where the system gives them.
class HostBlock {
 public:
  HostBlock() = default;
  /// what  named in the error: RESOURCE_EXHAUSTED
  HostBlock(uint64_t size_bytes, const char *what);
  HostBlock(HostBlock &&other) noexcept { swap(other); }
  HostBlock &operator=(HostBlock &&other) noexcept {
    swap(other);
    return *this;
  }
  ~HostBlock();

  std::byte *data() const { return data_; }
  uint64_t size_bytes() const { return size_bytes_; }

 private:
  void swap(HostBlock &other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
  }
  std::byte *data_ = nullptr;
  uint64_t size_bytes_ = 0;
};

}  // namespace sluice::graph
