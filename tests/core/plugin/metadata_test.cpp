#include "core/plugin/metadata.hpp"

#include <elf.h>
#include <gtest/gtest.h>
#include <sluice/abi/plugin.h>

#include <cstring>
#include <random>

#include "tests/core/plugin/temporary_folder.hpp"

namespace sluice::plugin::test {
namespace {

TEST(Metadata, IsReadFromTheFile) {
  const auto m = read_metadata(fixture("sampler", "fine"));
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_EQ(m->name, "fine");
  EXPECT_EQ(m->version, "1.2.3");
  EXPECT_EQ(m->kinds, SLUICE_KIND_SAMPLER);
  EXPECT_EQ(m->needs, "");
  EXPECT_TRUE(check_abi(*m));
  EXPECT_TRUE(check_cpu(*m));
}

TEST(Metadata, SaysWhyAFileIsNone) {
  const TemporaryFolder folder;
  const auto why = [&](const std::string &bytes) {
    write_file(folder / "x.so", bytes);
    const auto m = read_metadata(folder / "x.so");
    return m ? "read" : m.error().message;
  };
  EXPECT_NE(why("").find("not an ELF file"), std::string::npos);
  EXPECT_NE(why("#!/bin/sh\n").find("not an ELF file"), std::string::npos);
  const auto missing = read_metadata(folder / "absent.so");
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_EQ(read_metadata(folder.path()).error().code, Code::kNotFound) << "a folder";
  const auto none = read_metadata(fixture("sampler", "no_metadata"));
  EXPECT_NE(none.error().message.find("SLUICE_PLUGIN_META"), std::string::npos);

  std::string other = read_file(fixture("sampler", "fine"));
  Elf64_Ehdr head;
  std::memcpy(&head, other.data(), sizeof head);
  head.e_machine = EM_S390;
  std::memcpy(other.data(), &head, sizeof head);
  EXPECT_NE(why(other).find("another kind of machine"), std::string::npos);
}

TEST(Metadata, SurvivesEveryTruncation) {
  const TemporaryFolder folder;
  const std::string whole = read_file(fixture("sampler", "fine"));
  ASSERT_GT(whole.size(), 4096u);
  for (size_t n = 0; n < whole.size(); n += n < 128 ? 1 : 331) {
    write_file(folder / "x.so", whole.substr(0, n));
    EXPECT_FALSE(read_metadata(folder / "x.so")) << n;
  }
}

TEST(Metadata, SurvivesDamageInEveryHeader) {
  const TemporaryFolder folder;
  const std::string whole = read_file(fixture("sampler", "fine"));
  Elf64_Ehdr head;
  std::memcpy(&head, whole.data(), sizeof head);
  std::mt19937_64 random(11);
  const size_t table = head.e_shoff, table_bytes = size_t{head.e_shnum} * sizeof(Elf64_Shdr);
  uint32_t refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string bytes = whole;
    for (int hits = 0; hits < 1 + i % 4; ++hits) {
      const size_t at = random() % 2 == 0 ? random() % sizeof head : table + random() % table_bytes;
      bytes[at] = static_cast<char>(random());
    }
    write_file(folder / "x.so", bytes);
    const auto m = read_metadata(folder / "x.so");
    if (!m) {
      ++refused;
    } else {
      EXPECT_TRUE(is_plugin_name(m->name));
    }
  }
  EXPECT_GT(refused, 50u);
}

TEST(Metadata, RefusesSegmentsThatTheLoaderWouldFaultOn) {
  const TemporaryFolder folder;
  const std::string whole = read_file(fixture("sampler", "fine"));
  Elf64_Ehdr head;
  std::memcpy(&head, whole.data(), sizeof head);
  for (uint16_t i = 0; i < head.e_phnum; ++i)
    for (const bool offset : {false, true}) {
      std::string bytes = whole;
      Elf64_Phdr segment;
      char *at = bytes.data() + head.e_phoff + i * sizeof segment;
      std::memcpy(&segment, at, sizeof segment);
      (offset ? segment.p_offset : segment.p_filesz) = offset ? UINT64_MAX : whole.size() + 1;
      std::memcpy(at, &segment, sizeof segment);
      write_file(folder / "x.so", bytes);
      const auto m = read_metadata(folder / "x.so");
      ASSERT_FALSE(m) << i;
      EXPECT_NE(m.error().message.find("beyond its end"), std::string::npos) << m.error().message;
    }
}

// Finds the record in the file and changes one of its fields.
std::string with_meta(const std::function<void(sluice_plugin_meta &)> &change) {
  std::string bytes = read_file(fixture("sampler", "fine"));
  const size_t at = bytes.find("SLUICEPM");
  sluice_plugin_meta meta;
  std::memcpy(&meta, bytes.data() + at, sizeof meta);
  change(meta);
  std::memcpy(bytes.data() + at, &meta, sizeof meta);
  return bytes;
}

TEST(Metadata, ChecksEveryFieldOfTheRecord) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::function<void(sluice_plugin_meta &)> &change) {
    write_file(folder / "x.so", with_meta(change));
    return !read_metadata(folder / "x.so");
  };
  EXPECT_FALSE(refused([](auto &) {}));
  EXPECT_TRUE(refused([](auto &m) { m.magic[0] = 'X'; }));
  EXPECT_TRUE(refused([](auto &m) { m.size = 8; }));
  EXPECT_TRUE(refused([](auto &m) { m.size = 1 << 30; }));
  EXPECT_TRUE(refused([](auto &m) { m.kinds = 0; }));
  EXPECT_TRUE(refused([](auto &m) { m.kinds = 1ull << 40; }));
  EXPECT_TRUE(refused([](auto &m) { std::memset(m.name, 'a', sizeof m.name); })) << "no terminator";
  EXPECT_TRUE(refused([](auto &m) { std::strcpy(m.name, "Not/A/Name"); }));
  EXPECT_TRUE(refused([](auto &m) { std::strcpy(m.name, ""); }));
  EXPECT_TRUE(refused([](auto &m) { std::strcpy(m.version, "1\n2"); }));
  EXPECT_TRUE(refused([](auto &m) { std::memset(m.needs, 'a', sizeof m.needs); }));
}

TEST(Metadata, VersionRules) {
  Metadata m;
  m.name = "x", m.version = "1";
  m.abi_major = SLUICE_ABI_MAJOR, m.abi_minor_built = SLUICE_ABI_MINOR;
  EXPECT_TRUE(check_abi(m));
  m.abi_minor_built = 500;  // a later header, whose author says that he gets along with ours
  EXPECT_TRUE(check_abi(m));
  m.abi_minor_min = SLUICE_ABI_MINOR + 1;
  const auto newer = check_abi(m);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, Code::kAbi);
  EXPECT_NE(newer.error().message.find("0.500"), std::string::npos) << newer.error().message;
  m.abi_minor_min = 0;
  m.abi_minor_built = 4;
  EXPECT_TRUE(check_abi(m, 6, 4));
  const auto below = check_abi(m, 6, 5);  // a host whose last break was at minor 5
  ASSERT_FALSE(below);
  EXPECT_EQ(below.error().code, Code::kAbi);
  EXPECT_NE(below.error().message.find("built for ABI 0.4"), std::string::npos) << below.error().message;
  EXPECT_NE(below.error().message.find("built for 0.5 or later"), std::string::npos) << below.error().message;
  m.abi_major = SLUICE_ABI_MAJOR + 1;
  EXPECT_FALSE(check_abi(m));
}

TEST(Metadata, NamesTheCpuFeaturesThatAreMissing) {
  Metadata m;
  m.name = "x";
  m.needs = "cpu:sluice_no_such_feature";
  const auto r = check_cpu(m);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kUnsupported);
  EXPECT_NE(r.error().message.find("sluice_no_such_feature"), std::string::npos);
  m.needs = "cuda>=12.4";
  EXPECT_TRUE(check_cpu(m)) << "not for the host to judge";
#if defined(__x86_64__)
  m.needs = "cpu:sse2";
  EXPECT_TRUE(check_cpu(m));
#endif
}

TEST(Kinds, HaveNames) {
  EXPECT_STREQ(kind_name(SLUICE_KIND_DECODER), "decoder");
  EXPECT_STREQ(kind_name(3), "");
  EXPECT_EQ(kind_of("engine"), SLUICE_KIND_ENGINE);
  EXPECT_EQ(kind_of("x"), 0u);
  EXPECT_EQ(kind_names(SLUICE_KIND_SAMPLER | SLUICE_KIND_DECODER), "sampler, decoder");
}

}  // namespace
}  // namespace sluice::plugin::test
