#include "core/plugin/options.hpp"

#include <gtest/gtest.h>
#include <sluice/sdk/config.hpp>

#include <boost/json.hpp>

#include "core/config/config.hpp"

namespace sluice::plugin {
namespace {
using namespace sluice::sdk;

std::shared_ptr<const Schema> schema() {
  static const std::vector<sluice_config_field> fields = {
      i64_field("top_k", "entries kept", "0", 0, 1000, SLUICE_CFGF_PER_REQUEST),
      f64_field("temperature", "divides the logits", "1.0", 0, 2, SLUICE_CFGF_PER_REQUEST),
      table_field("logit_bias", "added per token id", SLUICE_CFGF_PER_REQUEST),
      list_field("stop_words", "where to end", nullptr, SLUICE_CFGF_PER_REQUEST),
      str_field("mode", "how", "\"auto\"", "auto|on|off", SLUICE_CFGF_PER_REQUEST),
      bool_field("tree.deep", "whether deep", "false"),
      i64_field("tree.nodes", "tree size", "8", 1, 64),
      list_field("stages", "their order", "[\"a\"]"),
  };
  auto made = Schema::create("sampler x", fields.data(), fields.size(), sizeof fields[0]);
  EXPECT_TRUE(made) << made.error().message;
  return std::make_shared<const Schema>(std::move(*made));
}

struct FromToml {
  std::shared_ptr<const Options> options;
  std::vector<config::Problem> problems;
};
FromToml from_toml(const std::string &text, std::shared_ptr<const Schema> s = schema()) {
  FromToml r;
  config::Origin origin{config::Origin::Kind::kFile, "a.toml", 100};
  r.options = Options::from_toml(std::move(s), config::OptionTable(toml::parse(text)), "models.m.samplers", origin,
                                 r.problems);
  return r;
}
Result<std::shared_ptr<const Options>> from_json(const char *text, const char *base = "") {
  return Options::from_json(*from_toml(base).options, boost::json::parse(text).as_object());
}

sluice_host_api getters() {
  sluice_host_api api{};
  set_config_getters(api);
  return api;
}

TEST(Options, FillInDefaultsAndTakeWhatTheFileSays) {
  const auto [o, problems] = from_toml("temperature = 0\ntree.nodes = 16\nlogit_bias = { 5 = 1.5, \"7\" = -2 }");
  ASSERT_TRUE(o);
  const sluice_host_api api = getters();
  const Config c(&api, o->handle());
  EXPECT_EQ(c.f64("temperature", 9), 0.0);
  EXPECT_EQ(c.i64("tree.nodes"), 16);
  EXPECT_EQ(c.i64("top_k", 9), 0);
  EXPECT_EQ(c.str("mode"), "auto");
  EXPECT_EQ(c.list("stages"), std::vector<std::string>{"a"});
  EXPECT_TRUE(c.list("stop_words").empty());
  EXPECT_FALSE(c.flag("tree.deep", true));
  EXPECT_EQ(c.table("logit_bias"), (std::vector<std::pair<int32_t, double>>{{5, 1.5}, {7, -2.0}}));
  EXPECT_TRUE(o->is_set("temperature"));
  EXPECT_FALSE(o->is_set("top_k"));
}

TEST(Options, ReportAllProblemsAtOnceWithTheirLines) {
  const auto [o, problems] = from_toml(
      "temprature = 1\n"
      "top_k = \"many\"\n"
      "tree.nodes = 65\n"
      "tree.leaves = 1\n"
      "mode = \"of\"\n"
      "stages = [1]\n"
      "temperature = nan\n"
      "[logit_bias.deeper]\n"
      "a = 1\n");
  EXPECT_EQ(o, nullptr);
  std::string all;
  for (const auto &p : problems) all += to_string(p) + "\n";
  EXPECT_EQ(problems.size(), 7u) << all;
  for (const char *line :
       {"a.toml:1: models.m.samplers.temprature is not an option of sampler x; did you mean temperature (divides the "
        "logits)?",
        "a.toml:2: models.m.samplers.top_k must be an integer 0..1000 (entries kept)",
        "a.toml:3: models.m.samplers.tree.nodes is 65; it must be an integer 1..64 (tree size)",
        "a.toml:4: models.m.samplers.tree.leaves is not an option", "a.toml:5: models.m.samplers.mode is",
        "it must be one of auto, on, off (how)", "a.toml:6: models.m.samplers.stages must be an array of strings",
        "a.toml:7: models.m.samplers.temperature is nan"})
    EXPECT_NE(all.find(line), std::string::npos) << line << "\nin\n" << all;
}

TEST(Options, ARequiredOneMustBeThere) {
  const sluice_config_field field = str_field("path", "file with the tree", nullptr, nullptr, SLUICE_CFGF_REQUIRED);
  const auto s = std::make_shared<const Schema>(*Schema::create("decoder d", &field, 1, sizeof field));
  const auto [o, problems] = from_toml("", s);
  EXPECT_EQ(o, nullptr);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(to_string(problems[0]),
            "a.toml:100: models.m.samplers.path is missing; decoder d needs it (file with the tree)");
  EXPECT_FALSE(Options::defaults(s));
  EXPECT_TRUE(from_toml("path = \"x\"", s).options);
}

TEST(Options, ARequestOverridesTheFileFieldByField) {
  const auto o = from_json(R"({"temperature": 0, "logit_bias": {"9": 100, "12": -0.5}, "stop_words": ["a", "b"]})",
                           "temperature = 0.7\ntop_k = 40");
  ASSERT_TRUE(o) << o.error().message;
  const sluice_host_api api = getters();
  const Config c(&api, (*o)->handle());
  EXPECT_EQ(c.f64("temperature"), 0.0);
  EXPECT_EQ(c.i64("top_k"), 40) << "as the file says";
  EXPECT_EQ(c.list("stop_words").size(), 2u);
  EXPECT_EQ(c.table("logit_bias"), (std::vector<std::pair<int32_t, double>>{{9, 100.0}, {12, -0.5}}));
}

TEST(Options, ARequestsNullMeansNotSetAndAWholeFloatIsAnInteger) {
  const auto o = from_json(R"({"temperature": null, "top_k": 7.0})", "temperature = 0.7");
  ASSERT_TRUE(o);
  EXPECT_EQ(std::get<double>(*(*o)->find("temperature")), 0.7);
  EXPECT_EQ(std::get<int64_t>(*(*o)->find("top_k")), 7);
}

TEST(Options, ARequestsMistakeNamesTheField) {
  const auto wrong = [](const char *json, const char *field, const char *says) {
    const auto o = from_json(json);
    ASSERT_FALSE(o) << json;
    EXPECT_EQ(o.error().code, Code::kInvalidArgument);
    EXPECT_EQ(o.error().param, field) << json;
    EXPECT_NE(o.error().message.find(says), std::string::npos) << o.error().message;
  };
  wrong(R"({"temperature": "hot"})", "temperature", "a number 0..2");
  wrong(R"({"temperature": 2.5})", "temperature", "is 2.5; it must be a number 0..2");
  wrong(R"({"temperature": true})", "temperature", "a number");
  wrong(R"({"top_k": 1.5})", "top_k", "an integer");
  wrong(R"({"top_k": 18446744073709551615})", "top_k", "an integer");
  wrong(R"({"top_k": 1e300})", "top_k", "an integer");
  wrong(R"({"top_p": 1})", "top_p", "\"top_p\" is not a known field; did you mean top_k");
  wrong(R"({"stages": ["b"]})", "stages", "not a known field") ;
  wrong(R"({"mode": "maybe"})", "mode", "one of auto, on, off");
  wrong(R"({"logit_bias": [1]})", "logit_bias", "a table");
  wrong(R"({"logit_bias": {"1": {}}})", "logit_bias", "a table");
  wrong(R"({"stop_words": [1]})", "stop_words", "an array of strings");
}

TEST(Options, MessagesDoNotRepeatMegabytes) {
  const std::string json = R"({"mode": ")" + std::string(1 << 20, 'x') + "\"}";
  const auto o = from_json(json.c_str());
  ASSERT_FALSE(o);
  EXPECT_LT(o.error().message.size(), 300u);
}

TEST(Options, AHostileTableStaysOneLinePerKey) {
  const auto o = from_json(R"({"logit_bias": {"1\n2 = 3\n\"": 1, "x\"\\": 5}})");
  ASSERT_TRUE(o);
  const std::string toml = std::get<TableText>(*(*o)->find("logit_bias")).toml;
  EXPECT_EQ(std::count(toml.begin(), toml.end(), '\n'), 2) << toml;
  EXPECT_EQ(toml::parse(toml).size(), 2u);
}

TEST(Options, GettersSayNotFoundForNonsense) {
  const sluice_host_api api = getters();
  const auto o = from_toml("").options;
  int64_t i = 0;
  double d = 0;
  const char *p = nullptr;
  size_t n = 0;
  EXPECT_EQ(api.cfg_i64(o->handle(), "absent", &i), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(api.cfg_i64(o->handle(), "temperature", &i), SLUICE_E_NOT_FOUND) << "of another type";
  EXPECT_EQ(api.cfg_f64(nullptr, "temperature", &d), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(api.cfg_f64(o->handle(), nullptr, &d), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(api.cfg_list(o->handle(), "stages", 1, &p, &n), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(api.cfg_raw(o->handle(), "logit_bias", &p, &n), SLUICE_E_NOT_FOUND);
}

}  // namespace
}  // namespace sluice::plugin
