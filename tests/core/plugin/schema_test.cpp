#include "core/plugin/schema.hpp"

#include <gtest/gtest.h>
#include <sluice/sdk/config.hpp>

#include <cmath>

namespace sluice::plugin {
namespace {
using namespace sluice::sdk;

Result<Schema> schema_of(std::vector<sluice_config_field> fields) {
  return Schema::create("sampler x", fields.data(), fields.size(), sizeof fields[0]);
}

TEST(Schema, CopiesFieldsAndParsesDefaults) {
  const auto s = schema_of({i64_field("k", "entries kept", "40", 1, 1000),
                            f64_field("temperature", "divisor", "1", 0, 2, SLUICE_CFGF_PER_REQUEST),
                            str_field("mode", "which", "\"auto\"", "auto|on"), bool_field("on", "switch", "true"),
                            list_field("stages", "order", "[\"a\", \"b\"]"), table_field("bias", "per token"),
                            i64_field("tree.max_nodes", "size", "8", 1, 0)});
  ASSERT_TRUE(s) << s.error().message;
  const auto at = [&](const char *key) { return s->fields()[*s->find(key)]; };
  EXPECT_EQ(std::get<int64_t>(*at("k").fallback), 40);
  EXPECT_EQ(std::get<double>(*at("temperature").fallback), 1.0) << "an integer is a number";
  EXPECT_EQ(std::get<std::string>(*at("mode").fallback), "auto");
  EXPECT_EQ(std::get<std::vector<std::string>>(*at("stages").fallback).size(), 2u);
  EXPECT_FALSE(at("bias").fallback);
  EXPECT_FALSE(at("tree.max_nodes").bounded);
  EXPECT_TRUE(s->has_below("tree"));
  EXPECT_EQ(s->keys(true), std::vector<std::string>{"temperature"});
  EXPECT_FALSE(s->find("nope"));
  EXPECT_EQ(at("k").expectation(), "an integer 1..1000");
  EXPECT_EQ(at("mode").expectation(), "one of auto, on");
}

TEST(Schema, RefusesFieldsThatCannotBe) {
  const auto refused = [](sluice_config_field f) { return !schema_of({f}); };
  auto good = i64_field("k", "doc", "1", 0, 2);
  EXPECT_FALSE(refused(good));
  for (const char *key : {"", ".", "a.", ".a", "a..b", "A", "a b", "use", "ü"}) {
    auto f = good;
    f.key = key;
    EXPECT_TRUE(refused(f)) << key;
  }
  auto f = good;
  f.key = nullptr;
  EXPECT_TRUE(refused(f));
  f = good, f.type = 99;
  EXPECT_TRUE(refused(f));
  f = good, f.flags = 1u << 20;
  EXPECT_TRUE(refused(f)) << "an unknown flag of the half that must be understood";
  f = good, f.flags = 1ull << 40;
  EXPECT_FALSE(refused(f)) << "of the advisory half";
  f = good, f.struct_size = 8;
  EXPECT_TRUE(refused(f));
  f = good, f.min = std::nan("");
  EXPECT_TRUE(refused(f));
  for (const char *def : {"3", "-1", "1.5", "\"x\"", "", "1\nk = 2", "]", "nan"}) {
    f = good, f.def = def;
    EXPECT_TRUE(refused(f)) << def;
  }
  EXPECT_TRUE(refused(str_field("mode", "", "\"off\"", "auto|on")));
  const std::string endless(10000, 'a');
  f = good, f.def = endless.c_str();
  EXPECT_TRUE(refused(f));
}

TEST(Schema, RefusesArraysThatCannotBe) {
  const sluice_config_field f = i64_field("k", "", "1", 0, 2);
  EXPECT_FALSE(Schema::create("x", &f, 1, 8));
  EXPECT_FALSE(Schema::create("x", &f, 1, 1 << 20));
  EXPECT_FALSE(Schema::create("x", &f, 1, sizeof f + 1));
  EXPECT_FALSE(Schema::create("x", nullptr, 1, sizeof f));
  EXPECT_FALSE(Schema::create("x", &f, 1u << 30, sizeof f));
  EXPECT_TRUE(Schema::create("x", nullptr, 0, 0));
  EXPECT_FALSE(schema_of({f, f})) << "twice";
  EXPECT_FALSE(schema_of({bool_field("a", "", "true"), bool_field("a.b", "", "true")})) << "a value and a table at once";
}

TEST(Schema, WalksEntriesOfAFutureSize) {
  struct Longer {
    sluice_config_field f;
    uint64_t later[2];
  } fields[2] = {{i64_field("a", "", "1", 0, 2), {}}, {i64_field("b", "", "2", 0, 2), {}}};
  const auto s = Schema::create("x", &fields[0].f, 2, sizeof fields[0]);
  ASSERT_TRUE(s);
  EXPECT_EQ(s->keys(), (std::vector<std::string>{"a", "b"}));
}

}  // namespace
}  // namespace sluice::plugin
