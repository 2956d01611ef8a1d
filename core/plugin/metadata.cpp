#include "core/plugin/metadata.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sluice/abi/plugin.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

namespace sluice::plugin {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#else
#error "name the ELF machine of this architecture"
#endif

constexpr uint64_t kMaxSections = 4096;         // a plugin has some forty
constexpr uint64_t kMaxNameTableBytes = 1 << 20;

struct Kind {
  uint64_t bit;
  const char *name;
};
constexpr Kind kKinds[] = {{SLUICE_KIND_BACKEND, "backend"},
                           {SLUICE_KIND_ENGINE, "engine"},
                           {SLUICE_KIND_SCHEDULER, "scheduler"},
                           {SLUICE_KIND_SAMPLER, "sampler"},
                           {SLUICE_KIND_DECODER, "decoder"}};

/// A file read by offset. Always: size_ is what fstat said when it was opened.
class File {
 public:
  explicit File(const std::string &path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat s {};
    if (fd_ < 0 || ::fstat(fd_, &s) != 0) {
      wrong_ = std::strerror(errno);
    } else if (!S_ISREG(s.st_mode)) {
      wrong_ = "is not a regular file";
    } else {
      size_ = static_cast<uint64_t>(s.st_size);
    }
  }
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  const std::string &wrong() const { return wrong_; }
  uint64_t size() const { return size_; }
  /// All n bytes at offset, or false: beyond the end, or the file shrank meanwhile.
  bool read(uint64_t offset, void *to, uint64_t n) const {
    if (offset > size_ || n > size_ - offset) return false;
    return ::pread(fd_, to, n, static_cast<off_t>(offset)) == static_cast<ssize_t>(n);
  }

 private:
  int fd_;
  uint64_t size_ = 0;
  std::string wrong_;
};

Error damaged(const std::string &path, const std::string &what) {
  return invalid_argument(fmt::format("{} is no Sluice plugin: {}", path, what));
}

/// The loader maps segments without looking at the file's size and dies of SIGBUS when it lies beyond.
bool segments_are_whole(const File &file, const Elf64_Ehdr &head) {
  if (head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum > kMaxSections) return false;
  std::vector<Elf64_Phdr> segments(head.e_phnum);
  if (!file.read(head.e_phoff, segments.data(), segments.size() * sizeof(Elf64_Phdr))) return false;
  return std::all_of(segments.begin(), segments.end(), [&](const Elf64_Phdr &s) {
    return s.p_offset <= file.size() && s.p_filesz <= file.size() - s.p_offset;
  });
}

/// The section header called .sluice_plugin, or what is wrong.
Result<Elf64_Shdr> find_section(const File &file, const std::string &path) {
  Elf64_Ehdr head;
  if (!file.read(0, &head, sizeof head) || std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
    return damaged(path, "it is not an ELF file");
  if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_machine != kMachine)
    return Error{Code::kUnsupported, path + " was built for another kind of machine", {}};
  if (head.e_type != ET_DYN) return damaged(path, "it is not a shared library");
  if (head.e_shentsize != sizeof(Elf64_Shdr) || head.e_shnum == 0 || head.e_shnum > kMaxSections ||
      head.e_shstrndx >= head.e_shnum)
    return damaged(path, "its section table is damaged");
  if (!segments_are_whole(file, head)) return damaged(path, "a part of it lies beyond its end; it may be cut off");

  std::vector<Elf64_Shdr> sections(head.e_shnum);
  if (!file.read(head.e_shoff, sections.data(), sections.size() * sizeof(Elf64_Shdr)))
    return damaged(path, "its section table lies beyond its end");
  const Elf64_Shdr &names = sections[head.e_shstrndx];
  if (names.sh_size > kMaxNameTableBytes) return damaged(path, "its section names are damaged");
  std::string text(names.sh_size, '\0');
  if (!file.read(names.sh_offset, text.data(), text.size())) return damaged(path, "its section names are damaged");

  for (const Elf64_Shdr &s : sections) {
    if (s.sh_name >= text.size()) continue;
    const std::string_view rest = std::string_view(text).substr(s.sh_name);
    if (rest.substr(0, rest.find('\0')) == ".sluice_plugin") return s;
  }
  return damaged(path, "it has no section .sluice_plugin (SLUICE_PLUGIN_META is missing)");
}

/// Text up to the NUL; nothing when there is none or it holds what is not printable ASCII.
template <size_t N> std::optional<std::string> text_of(const char (&field)[N]) {
  const auto *end = std::find(field, field + N, '\0');
  if (end == field + N || !std::all_of(field, end, [](char c) { return c >= 0x20 && c < 0x7f; })) return std::nullopt;
  return std::string(field, end);
}

std::set<std::string> cpu_features() {
  std::set<std::string> features;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    std::istringstream words(line.substr(std::min(line.find(':') + 1, line.size())));
    for (std::string word; words >> word;) features.insert(word);
    break;
  }
  return features;
}

}  // namespace

const char *kind_name(uint64_t kind) {
  for (const Kind &k : kKinds)
    if (k.bit == kind) return k.name;
  return "";
}

uint64_t kind_of(const std::string &name) {
  for (const Kind &k : kKinds)
    if (k.name == name) return k.bit;
  return 0;
}

std::string kind_names(uint64_t kinds) {
  std::string all;
  for (const Kind &k : kKinds)
    if ((kinds & k.bit) != 0) all += (all.empty() ? "" : ", ") + std::string(k.name);
  return all;
}

bool is_plugin_name(const std::string &text) {
  const auto good = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; };
  return !text.empty() && text.size() < 64 && std::all_of(text.begin(), text.end(), good);
}

Result<Metadata> read_metadata(const std::string &path) {
  const File file(path);
  if (!file.wrong().empty()) return Error{Code::kNotFound, path + ": " + file.wrong(), {}};
  const auto section = find_section(file, path);
  if (!section) return section.error();

  sluice_plugin_meta meta{};
  if (section->sh_type == SHT_NOBITS || section->sh_size < sizeof meta ||
      !file.read(section->sh_offset, &meta, sizeof meta))
    return damaged(path, "its section .sluice_plugin is too short");
  if (std::memcmp(meta.magic, "SLUICEPM", sizeof meta.magic) != 0)
    return damaged(path, "its section .sluice_plugin does not begin with SLUICEPM");
  // A later minor may append fields, never take some away; two plugins in one file have no meaning.
  if (meta.size < sizeof meta || meta.size != section->sh_size)
    return damaged(path,
                   fmt::format("its section .sluice_plugin has {} bytes and says {}", section->sh_size, meta.size));

  const auto name = text_of(meta.name), version = text_of(meta.version), needs = text_of(meta.needs);
  if (!name || !version || !needs) return damaged(path, "a text of its metadata is damaged");
  if (!is_plugin_name(*name)) return damaged(path, fmt::format("its name '{}' is not [a-z0-9_-]+", *name));
  if (kind_names(meta.kinds).empty()) return damaged(path, fmt::format("it is of no known kind ({:#x})", meta.kinds));
  return Metadata{meta.abi_major, meta.abi_minor_built, meta.abi_minor_min, meta.kinds, *name, *version, *needs};
}

Result<> check_abi(const Metadata &m, int host_minor, int host_floor) {
  const int major = m.abi_major, built = m.abi_minor_built, oldest = m.abi_minor_min;
  if (major == SLUICE_ABI_MAJOR && built >= host_floor && oldest <= host_minor) return {};
  return Error{Code::kAbi,
               fmt::format("plugin {} {} was built for ABI {}.{} and needs at least {}.{}; this server speaks {}.{} "
                           "and accepts what was built for {}.{} or later: rebuild it with this server's headers",
                           m.name, m.version, m.abi_major, m.abi_minor_built, m.abi_major, m.abi_minor_min,
                           SLUICE_ABI_MAJOR, host_minor, SLUICE_ABI_MAJOR, host_floor),
               {}};
}

Result<> check_cpu(const Metadata &m) {
  constexpr std::string_view kPrefix = "cpu:";
  if (m.needs.rfind(kPrefix, 0) != 0) return {};
  static const std::set<std::string> present = cpu_features();
  std::string missing;
  std::istringstream wanted(m.needs.substr(kPrefix.size()));
  for (std::string feature; std::getline(wanted, feature, ',');)
    if (present.count(feature) == 0) missing += (missing.empty() ? "" : ", ") + feature;
  if (missing.empty()) return {};
  return Error{Code::kUnsupported,
               fmt::format("plugin {} needs a CPU with {}, which this one lacks", m.name, missing),
               {}};
}

}  // namespace sluice::plugin
