#include "backends/graph/host_memory.hpp"

#include <sluice/sdk/error.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace sluice::graph {
namespace {

std::string read_text(const std::string &path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The kB figure behind "Key:", in bytes; 0 when absent.
uint64_t meminfo_bytes(const std::string &meminfo, const std::string &key) {
  std::istringstream lines(meminfo);
  std::string word;
  uint64_t kib = 0;
  while (lines >> word)
    if (word == key && lines >> kib) return kib * 1024;
  return 0;
}

/// A decimal number, or nothing for "max", an empty file, and what cannot be a limit.
bool parse_bytes(const std::string &text, uint64_t &out) {
  std::istringstream in(text);
  return !text.empty() && (in >> out) && out < (uint64_t{1} << 60);
}

/// The folder of this process's version 2 control group; "" outside one.
std::string control_group() {
  std::istringstream lines(read_text("/proc/self/cgroup"));
  std::string line;
  while (std::getline(lines, line))
    if (line.rfind("0::", 0) == 0) return "/sys/fs/cgroup" + line.substr(3);
  return {};
}

}  // namespace

DeviceMemory parse_host_memory(const std::string &meminfo, const std::string &limit, const std::string &usage) {
  DeviceMemory m{meminfo_bytes(meminfo, "MemTotal:"), meminfo_bytes(meminfo, "MemAvailable:")};
  uint64_t limit_bytes = 0, usage_bytes = 0;
  if (parse_bytes(limit, limit_bytes) && parse_bytes(usage, usage_bytes)) {
    m.total_bytes = std::min(m.total_bytes, limit_bytes);
    m.available_bytes = std::min(m.available_bytes, limit_bytes > usage_bytes ? limit_bytes - usage_bytes : 0);
  }
  return m;
}

DeviceMemory host_memory() {
  const std::string meminfo = read_text("/proc/meminfo");
  std::string group = control_group();
  DeviceMemory least = parse_host_memory(meminfo, read_text("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
                                         read_text("/sys/fs/cgroup/memory/memory.usage_in_bytes"));
  // A limit may sit on any group between ours and the root.
  while (!group.empty()) {
    const DeviceMemory here =
        parse_host_memory(meminfo, read_text(group + "/memory.max"), read_text(group + "/memory.current"));
    least.total_bytes = std::min(least.total_bytes, here.total_bytes);
    least.available_bytes = std::min(least.available_bytes, here.available_bytes);
    if (group == "/sys/fs/cgroup") break;
    const auto slash = group.find_last_of('/');
    group = slash == std::string::npos ? std::string() : group.substr(0, slash);
  }
  return least;
}

HostBlock::HostBlock(uint64_t size_bytes, const char *what) {
  if (size_bytes == 0) return;
  void *p = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    throw sdk::Error(SLUICE_E_RESOURCE_EXHAUSTED,
                     std::string(what) + ": the system refused " + std::to_string(size_bytes >> 20) + " MiB of memory");
  if (size_bytes >= (uint64_t{4} << 20)) madvise(p, size_bytes, MADV_HUGEPAGE);  // advice only
  data_ = static_cast<std::byte *>(p);
  size_bytes_ = size_bytes;
}

HostBlock::~HostBlock() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
}

}  // namespace sluice::graph
