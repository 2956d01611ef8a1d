// Where every field of the ABI lies, against a committed list: a plugin built yesterday looks there.
#include <gtest/gtest.h>
#include <sluice/abi.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

namespace {
namespace fs = std::filesystem;

std::string read(const fs::path &file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// "struct sluice_step 432" and "sluice_step.n_tokens 16 4": offset and size in bytes.
std::string layout() {
  std::ostringstream out;
#define STRUCT(s) out << "struct " #s " " << sizeof(s) << "\n";
#define FIELD(s, f) out << #s "." #f " " << offsetof(s, f) << " " << sizeof(s::f) << "\n";
#include "layout_fields.inc"
#undef STRUCT
#undef FIELD
  return out.str();
}

std::set<std::string> listed() {
  std::set<std::string> names;
#define STRUCT(s) names.insert(#s);
#define FIELD(s, f) names.insert(#s "." #f);
#include "layout_fields.inc"
#undef STRUCT
#undef FIELD
  return names;
}

/// The names of all structs and fields in the text of a header.
void declared(const std::string &header, std::set<std::string> &names) {
  std::string text = std::regex_replace(header, std::regex(R"(/\*[^*]*\*+([^/*][^*]*\*+)*/)"), "");
  text = std::regex_replace(text, std::regex(R"(\\\n)"), " ");
  text = std::regex_replace(text, std::regex(R"(#[^\n]*)"), "");
  const std::regex begin(R"(typedef struct (\w+) \{)"), pointer(R"(\(\*(\w+)\)\s*\()"), last_word(R"((\w+)\s*(\[\w*\])?\s*$)");
  for (std::sregex_iterator it(text.begin(), text.end(), begin), end; it != end; ++it) {
    const std::string name = (*it)[1];
    names.insert(name);
    const size_t from = static_cast<size_t>(it->position() + it->length());
    std::istringstream body(text.substr(from, text.find('}', from) - from));
    for (std::string declaration; std::getline(body, declaration, ';');) {
      std::smatch match;
      if (std::regex_search(declaration, match, pointer)) {
        names.insert(name + "." + match[1].str());
        continue;
      }
      std::istringstream declarators(declaration);
      for (std::string one; std::getline(declarators, one, ',');)
        if (std::regex_search(one, match, last_word)) names.insert(name + "." + match[1].str());
    }
  }
}

TEST(Layout, EveryStructAndFieldIsListed) {
  std::set<std::string> in_headers;
  for (const auto &entry : fs::recursive_directory_iterator(SLUICE_SOURCE_DIR "/plugins/sdk/include/sluice/abi"))
    if (entry.path().extension() == ".h") declared(read(entry.path()), in_headers);
  ASSERT_GT(in_headers.size(), 300u) << "the headers were not understood";
  EXPECT_EQ(in_headers, listed()) << "bring tests/plugins/sdk/layout_fields.inc up to date";
}

TEST(Layout, NothingHasMoved) {
#if defined(__x86_64__) || defined(__aarch64__)
  const std::string golden = read(SLUICE_SOURCE_DIR "/tests/plugins/sdk/layout.txt");
  EXPECT_EQ(layout(), golden) << "a field that moved breaks every plugin: raise SLUICE_ABI_FLOOR (major 0) and rewrite "
                                 "layout.txt; a field at the end raises SLUICE_ABI_MINOR";
#else
  GTEST_SKIP() << "layout.txt is that of 64-bit machines";
#endif
}

TEST(Layout, AbsentFieldsAreSeenAsAbsent) {
  sluice_sampler_vtbl v{};
  v.struct_size = SLUICE_SIZE_THROUGH(sluice_sampler_vtbl, commit);
  v.reconfigure = [](sluice_sampler *, const sluice_config *, sluice_status *) -> int32_t { return 0; };
  EXPECT_FALSE(SLUICE_HAS_FN(&v, sluice_sampler_vtbl, reconfigure)) << "beyond struct_size there is nothing";
  v.struct_size = SLUICE_SIZE_THROUGH(sluice_sampler_vtbl, reconfigure) + 64;
  EXPECT_TRUE(SLUICE_HAS_FN(&v, sluice_sampler_vtbl, reconfigure)) << "a longer table of a later version will do";
  v.reconfigure = nullptr;
  EXPECT_FALSE(SLUICE_HAS_FN(&v, sluice_sampler_vtbl, reconfigure));
}
}  // namespace
