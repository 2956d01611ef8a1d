// Stages B and C: loading under hosts of several versions, and what the descriptor says.
#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cctype>
#include <cstring>
#include <filesystem>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {
namespace {

sluice_plugin_entry_fn entry_of(const std::string &path, Findings &findings) {
  void *library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  void *symbol = library == nullptr ? nullptr : ::dlsym(library, SLUICE_PLUGIN_ENTRY_NAME);
  if (symbol == nullptr) findings.skip("it cannot be loaded");
  return reinterpret_cast<sluice_plugin_entry_fn>(symbol);
}

/// Memory whose last byte is the last of a page with nothing readable behind it.
void *before_the_abyss(const void *from, size_t n) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t room = (n + page - 1) / page * page;
  auto *at = static_cast<char *>(::mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (at == MAP_FAILED) return nullptr;
  ::mprotect(at + room, page, PROT_NONE);
  return std::memcpy(at + room - n, from, n);
}

struct Answer {
  const sluice_plugin_desc *desc = nullptr;
  sluice_status status = plugin::fresh_status();
};

void expect_refusal_or_service(const Answer &answer, const char *rule, Findings &findings) {
  if (answer.desc != nullptr || answer.status.code != SLUICE_OK) return;
  findings.fail(rule, "it returned NULL and left the status empty",
                "fill the status with a code and a message whenever the entry function returns NULL");
}

bool is_semver(const std::string &version) {
  int parts = 1, digits = 0;
  for (const char c : version) {
    if (c == '-' || c == '+') break;
    if (c == '.') {
      if (digits == 0) return false;
      ++parts, digits = 0;
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
      ++digits;
    } else {
      return false;
    }
  }
  return parts == 3 && digits > 0;
}

}  // namespace

void check_loading(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (subject && !subject->needs_options().empty())
    findings.note("an option is required, so nothing can be created from defaults: " + subject->needs_options());
}

void check_other_major(const std::string &path, Findings &findings) {
  const auto entry = entry_of(path, findings);
  if (entry == nullptr) return;
  const SteadyClock clock;
  plugin::Host host({.clock = &clock, .metrics = nullptr, .n_workers = 1, .version = "9.0.0"});
  sluice_host_api other = *host.api();
  other.abi_major = SLUICE_ABI_MAJOR + 1;
  Answer answer;
  findings.doing("calling the entry function with a host of another major version");
  answer.desc = entry(&other, &answer.status);
  if (answer.desc != nullptr)
    return findings.fail("B2 another major version is refused", "the entry function returned a descriptor",
                         "compare host->abi_major with SLUICE_ABI_MAJOR first and return NULL with SLUICE_E_ABI");
  if (answer.status.code != SLUICE_E_ABI || answer.status.msg_len == 0)
    findings.fail("B2 another major version is refused",
                  fmt::format("the status has code {} and a message of {} bytes", answer.status.code, answer.status.msg_len),
                  "the code is SLUICE_E_ABI and the message names both versions");
  findings.doing("the same without a status");
  if (entry(&other, nullptr) != nullptr)
    findings.fail("B2 another major version is refused", "without a status it returned a descriptor", "a status may be NULL");
}

void check_short_host(const std::string &path, Findings &findings) {
  const auto entry = entry_of(path, findings);
  if (entry == nullptr) return;
  const SteadyClock clock;
  plugin::Host host({.clock = &clock, .metrics = nullptr, .n_workers = 1, .version = "0.0.0"});
  sluice_host_api cut = *host.api();
  cut.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, now_ns);
  findings.doing("calling the entry function with a host table that ends after now_ns");
  const auto *table = static_cast<const sluice_host_api *>(before_the_abyss(&cut, cut.struct_size));
  Answer answer;
  answer.desc = entry(table, &answer.status);
  expect_refusal_or_service(answer, "B3 a shorter host table does no harm", findings);
}

void check_long_host(const std::string &path, Findings &findings) {
  const auto entry = entry_of(path, findings);
  if (entry == nullptr) return;
  const SteadyClock clock;
  plugin::Host host({.clock = &clock, .metrics = nullptr, .n_workers = 1, .version = "0.9.0"});
  struct Grown {
    sluice_host_api api;
    unsigned char more[64];
  } grown{*host.api(), {}};
  std::memset(grown.more, 0xA5, sizeof grown.more);
  grown.api.struct_size += sizeof grown.more;
  grown.api.abi_minor += 1;
  findings.doing("calling the entry function with a host table of a later minor version");
  Answer answer;
  answer.desc = entry(&grown.api, &answer.status);
  if (answer.desc == nullptr)
    findings.fail("B4 a later minor version is accepted",
                  fmt::format("refused with code {}: {}", answer.status.code, std::string(answer.status.msg, strnlen(answer.status.msg, 495))),
                  "compare the major, and the host's floor with your minor; never the sizes for equality");
}

void check_descriptor_texts(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  const auto &m = subject->library().metadata;
  const std::string expected = fmt::format("libsluice_{}_{}.so", plugin::kind_name(m.kinds & (~m.kinds + 1)), m.name);
  if (const std::string file = std::filesystem::path(path).filename().string(); file != expected)
    findings.warn("C1 the file is named after the plugin", fmt::format("it is {}, not {}", file, expected),
                  "name it libsluice_<kind>_<name>.so; sluice_add_plugin() does");
  if (!is_semver(m.version))
    findings.fail("C2 a semantic version", "version is '" + m.version + "'", "three numbers, as in 1.0.0");
  for (const auto &field : subject->library().schema->fields()) {
    if (field.doc.empty())
      findings.fail("C3 every option is explained", field.key + " has no doc", "one line with the unit; users read it");
    if (field.doc.find('\n') != std::string::npos)
      findings.fail("C3 every option is explained", field.key + ": its doc has several lines", "one line");
  }
}

}  // namespace sluice::conformance
