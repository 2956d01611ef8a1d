// Stage A: what the file says before any of it runs.
#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

/// A file in memory; nothing is read past its end.
class ElfFile {
 public:
  explicit ElfFile(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
  }
  template <class T> bool read(uint64_t at, T &out) const {
    if (at > bytes_.size() || bytes_.size() - at < sizeof(T)) return false;
    std::memcpy(&out, bytes_.data() + at, sizeof(T));
    return true;
  }
  std::string text(uint64_t at) const {
    if (at >= bytes_.size()) return {};
    return std::string(bytes_.data() + at, strnlen(bytes_.data() + at, bytes_.size() - at));
  }
  bool header(Elf64_Ehdr &h) const {
    return read(0, h) && std::memcmp(h.e_ident, ELFMAG, SELFMAG) == 0 && h.e_ident[EI_CLASS] == ELFCLASS64 &&
           h.e_ident[EI_DATA] == ELFDATA2LSB;
  }
  std::vector<Elf64_Shdr> sections(const Elf64_Ehdr &h) const {
    std::vector<Elf64_Shdr> all;
    Elf64_Shdr s{};
    for (uint32_t i = 0; i < h.e_shnum && read(h.e_shoff + uint64_t{i} * sizeof s, s); ++i) all.push_back(s);
    return all;
  }
  std::vector<Elf64_Phdr> segments(const Elf64_Ehdr &h) const {
    std::vector<Elf64_Phdr> all;
    Elf64_Phdr s{};
    for (uint32_t i = 0; i < h.e_phnum && read(h.e_phoff + uint64_t{i} * sizeof s, s); ++i) all.push_back(s);
    return all;
  }

 private:
  std::vector<char> bytes_;
};

struct Dynamic {
  std::vector<std::string> needed;
  std::string run_path;
  bool text_relocations = false;
};

Dynamic read_dynamic(const ElfFile &file, const std::vector<Elf64_Shdr> &sections) {
  Dynamic out;
  for (const auto &s : sections) {
    if (s.sh_type != SHT_DYNAMIC || s.sh_link >= sections.size()) continue;
    const uint64_t names = sections[s.sh_link].sh_offset;
    Elf64_Dyn d{};
    for (uint64_t i = 0; i < s.sh_size / sizeof d && file.read(s.sh_offset + i * sizeof d, d) && d.d_tag != DT_NULL; ++i) {
      if (d.d_tag == DT_NEEDED) out.needed.push_back(file.text(names + d.d_un.d_val));
      if (d.d_tag == DT_RUNPATH || d.d_tag == DT_RPATH) out.run_path = file.text(names + d.d_un.d_val);
      if (d.d_tag == DT_TEXTREL || (d.d_tag == DT_FLAGS && (d.d_un.d_val & DF_TEXTREL) != 0)) out.text_relocations = true;
    }
  }
  return out;
}

/// Whether some library that the plugin names has the symbol; those are the system's, so opening them is harmless.
bool provided(const std::vector<void *> &libraries, const std::string &symbol) {
  for (void *library : libraries)
    if (::dlsym(library, symbol.c_str()) != nullptr) return true;
  return false;
}

void check_symbols(const ElfFile &file, const std::vector<Elf64_Shdr> &sections, const Dynamic &dynamic,
                   Findings &findings) {
  std::vector<void *> libraries;
  for (const std::string &name : dynamic.needed)
    if (void *library = ::dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL)) libraries.push_back(library);
    else findings.fail("A3 what it needs is here", name + " cannot be opened", "install it, or link it statically");
  bool has_entry = false;
  std::set<std::string> exported, undefined, unique;
  for (const auto &s : sections) {
    if (s.sh_type != SHT_DYNSYM || s.sh_link >= sections.size()) continue;
    Elf64_Sym symbol{};
    for (uint64_t i = 1; i < s.sh_size / sizeof symbol && file.read(s.sh_offset + i * sizeof symbol, symbol); ++i) {
      const std::string name = file.text(sections[s.sh_link].sh_offset + symbol.st_name);
      const unsigned bind = ELF64_ST_BIND(symbol.st_info);
      if (symbol.st_shndx == SHN_UNDEF) {
        if (bind == STB_GLOBAL && !provided(libraries, name)) undefined.insert(name);
        continue;
      }
      if (bind == STB_LOCAL || symbol.st_shndx == SHN_ABS) continue;
      if (bind == STB_GNU_UNIQUE) unique.insert(name);
      if (name == SLUICE_PLUGIN_ENTRY_NAME) has_entry = true;
      else exported.insert(name);
    }
  }
  if (!has_entry)
    findings.fail("A1 one exported symbol", "it does not export " SLUICE_PLUGIN_ENTRY_NAME,
                  "define it with SLUICE_EXPORT, or with one of the SDK's SLUICE_*_PLUGIN macros");
  if (!exported.empty())
    findings.fail("A1 one exported symbol",
                  fmt::format("it also exports {} symbol(s), such as {}", exported.size(), *exported.begin()),
                  "build with sluice_add_plugin(), or with -fvisibility=hidden and a version script: symbols of two "
                  "plugins could mix");
  if (!undefined.empty())
    findings.fail("A2 no undefined symbols",
                  fmt::format("{} symbol(s) are defined nowhere, such as {}", undefined.size(), *undefined.begin()),
                  "link what has them; -Wl,-z,defs tells at link time. The server exports nothing to plugins");
  if (!unique.empty())
    findings.fail("A4 no unique symbols", *unique.begin() + " is shared with every other library of the process",
                  "compile with -fno-gnu-unique");
}

}  // namespace

void check_elf(const std::string &path, Findings &findings) {
  const ElfFile file(path);
  Elf64_Ehdr h{};
  if (!file.header(h) || h.e_type != ET_DYN)
    return findings.fail("A0 a shared library", "it is no 64-bit little-endian ELF shared library", "link with -shared");
  Elf64_Ehdr own{};
  if (!ElfFile("/proc/self/exe").header(own) || h.e_machine != own.e_machine)
    return findings.fail("A0 a shared library", fmt::format("it is for machine {}, this is {}", h.e_machine, own.e_machine),
                         "build it for this architecture");
  const auto sections = file.sections(h);
  const Dynamic dynamic = read_dynamic(file, sections);
  check_symbols(file, sections, dynamic, findings);
  for (const auto &segment : file.segments(h))
    if (segment.p_type == PT_GNU_STACK && (segment.p_flags & PF_X) != 0)
      findings.fail("A5 no executable stack", "it asks for one, which the whole process would get",
                    "avoid nested functions and mark assembly with .note.GNU-stack; -Wl,-z,noexecstack");
  if (dynamic.text_relocations)
    findings.fail("A6 position-independent code", "it has text relocations", "compile everything with -fPIC");
  if (!dynamic.run_path.empty())
    findings.warn("A7 no search path of its own", "RUNPATH is " + dynamic.run_path,
                  "set CMAKE_SKIP_BUILD_RPATH or strip it before shipping");
  if (const auto metadata = plugin::read_metadata(path); !metadata)
    findings.fail("A8 metadata", metadata.error().message, "put SLUICE_PLUGIN_META into one source file of the library");
  struct stat s{};
  if (::stat(path.c_str(), &s) == 0 && (s.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    findings.fail("A9 only its owner may write it", fmt::format("its mode is {:o}", s.st_mode & 07777),
                  "chmod go-w: the server refuses such a file");
}

}  // namespace sluice::conformance
