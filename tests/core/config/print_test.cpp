#include <map>

#include "tests/core/config/sandbox.hpp"

namespace sluice::config {
namespace {

class Print : public Sandbox {
 protected:
  static std::map<std::string, std::string> values(const Loaded &loaded) {
    std::map<std::string, std::string> out;
    for (const auto &line : loaded.lines) out[line.key] = line.value;
    return out;
  }
};

constexpr const char *kMuch = R"([server]
host = "::1"
api_keys = ["very-secret-1", "very-secret-2"]
allowed_hosts = ["a \" b", "tab\t"]
max_body = "1500B"
idle_timeout = "90s"
[plugins]
dirs = ["p"]
[backends.fast]
use = "cpu"
threads = 8
[models."a.b"]
path = "m.gguf"
backend = "fast"
scheduler = { use = "mlfq", queues = [1, 2, 3], "odd key" = { x = nan, when = 1979-05-27T07:32:00Z }, text = '''a
b''' }
samplers = ["chain", { use = "greedy", seed = -1 }]
kv = { memory = "2GiB", block_size = 32 }
[models.e]
engine = { use = "wrapped", url = "http://x" }
)";

TEST_F(Print, WhatIsPrintedLoadsAgainAndMeansTheSame) {
  const Loaded loaded = load_text(kMuch);
  ASSERT_EQ(all(loaded), "");
  for (const bool with_origin : {false, true}) {
    const std::string text = print(loaded, with_origin);
    const Loaded again = load({write("again.toml", text), {}, true});
    EXPECT_EQ(all(again), "") << text;
    auto expected = values(loaded);
    expected["server.api_keys"] = "[]";  // the one thing that is held back
    EXPECT_EQ(values(again), expected) << text;
    EXPECT_EQ(again.config.models.at(0).name, "a.b");
    EXPECT_EQ(again.config.models[0].scheduler.options->at_path("queues[2]").value<int>(), 3);
    EXPECT_EQ(again.config.models[0].scheduler.options->at("text").value<std::string>(), "a\nb");
  }
}

TEST_F(Print, SecretsAreMaskedWhereverTheyCameFrom) {
  variable("SLUICE_SERVER__API_KEYS", "very-secret-3,very-secret-4");
  write("keys", "very-secret-5\n");
  const Loaded loaded = load_text(std::string(kMuch) + "[server.x]\n");
  const std::string text = print(load_text("[server]\napi_key_file = 'keys'\napi_keys = ['very-secret-6']\n"), true);
  EXPECT_EQ(text.find("very-secret"), std::string::npos);
  EXPECT_NE(
      text.find("# api_keys = [\"***\", \"***\"] # env SLUICE_SERVER__API_KEYS, secret: put it back before use\n"),
      std::string::npos)
      << text;
  for (const auto &line : loaded.lines) EXPECT_EQ(line.value.find("very-secret"), std::string::npos);
}

TEST_F(Print, OriginsAreNamed) {
  variable("SLUICE_SERVER__MAX_N", "3");
  const std::string text = print(load_text("[server]\nthreads = 2\n", {{"server.port", "1", "--port"}}), true);
  EXPECT_NE(text.find("port = 1 # flag --port\n"), std::string::npos) << text;
  EXPECT_NE(text.find("max_n = 3 # env SLUICE_SERVER__MAX_N\n"), std::string::npos);
  EXPECT_NE(text.find("threads = 2 # from " + folder_ + "/c.toml:2\n"), std::string::npos);
  EXPECT_NE(text.find("max_stops = 16 # default\n"), std::string::npos);
  EXPECT_EQ(print(load({}), false).find('#'), std::string::npos);
}

TEST_F(Print, TheReferenceHasEveryKeyAndIsItselfAConfiguration) {
  const std::string text = reference();
  const Loaded loaded = load_text(text + "[models.NAME.more]\n");
  EXPECT_EQ(loaded.problems.size(), 1u) << all(loaded);  // what was added
  for (const auto &line : loaded.lines)
    EXPECT_NE(text.find("\n" + line.key.substr(line.section.size() + 1) + " = "), std::string::npos)
        << line.key << " is not in the reference with its default";
  EXPECT_NE(text.find("SLUICE_MODELS__NAME__KV__MEMORY"), std::string::npos);
}

/// Each file of configs/ is tried as its reader would: copied, with the keys that it asks for.
TEST_F(Print, EveryFileInConfigsLoadsAndRoundTrips) {
  int tried = 0;
  for (const auto &entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".toml") continue;
    const std::string copy = folder_ + "/" + entry.path().filename().string();
    std::filesystem::copy_file(entry.path(), copy);
    write("api_keys", "0123456789abcdef\n");
    const Loaded loaded = load({copy, {}, true});
    EXPECT_EQ(all(loaded), "") << entry.path();
    EXPECT_FALSE(loaded.config.models.empty()) << entry.path();
    const Loaded again = load({write("again.toml", print(loaded, true)), {}, true});
    EXPECT_EQ(all(again), "");
    EXPECT_EQ(values(again), values(loaded)) << entry.path();
    ++tried;
  }
  EXPECT_GE(tried, 4);
}

}  // namespace
}  // namespace sluice::config
