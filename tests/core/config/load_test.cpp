#include "tests/core/config/sandbox.hpp"

namespace sluice::config {
namespace {

using Kind = Origin::Kind;
using std::chrono::milliseconds;

class Load : public Sandbox {};

const Loaded::Line *line_of(const Loaded &loaded, const std::string &key) {
  for (const auto &line : loaded.lines)
    if (line.key == key) return &line;
  return nullptr;
}

TEST_F(Load, NothingAtAllIsUsable) {
  const Loaded loaded = load({});
  EXPECT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.server.host, "127.0.0.1");
  EXPECT_TRUE(loaded.config.models.empty());
}

TEST_F(Load, AModelGetsTheDefaultParts) {
  const Loaded loaded = load_text("[models.a]\npath = 'm.gguf'\n");
  ASSERT_EQ(all(loaded), "");
  const Model &m = loaded.config.models.at(0);
  EXPECT_EQ(m.name, "a");
  EXPECT_EQ(m.path, folder_ + "/m.gguf");
  EXPECT_EQ(m.backend.name, "cpu");
  EXPECT_EQ(m.scheduler.name, "fcfs");
  ASSERT_EQ(m.samplers.size(), 1u);
  EXPECT_EQ(m.samplers[0].name, "chain");
  EXPECT_EQ(m.decoder.name, "plain");
  EXPECT_FALSE(m.engine);
}

TEST_F(Load, EveryKindOfValueIsRead) {
  const Loaded loaded = load_text(R"(
[server]
port = 0
api_keys = ["0123456789", "abcdefghij"]
allow_unauthenticated = true
max_body = "512KiB"
header_timeout = "250ms"
idle_timeout = "2m"
log_level = "debug"
[plugins]
dirs = ["more", "/opt/plugins"]
[models.a]
path = "/m.gguf"
aliases = ["b", "c"]
context = "auto"
kv = { memory = "1GB", block_size = 16, blocks = "auto", dtype = "f16" }
samplers = ["greedy", { use = "other", weight = 2 }]
)");
  ASSERT_EQ(all(loaded), "");
  const Server &s = loaded.config.server;
  EXPECT_EQ(s.port, 0);
  EXPECT_EQ(s.api_keys, (std::vector<std::string>{"0123456789", "abcdefghij"}));
  EXPECT_TRUE(s.allow_unauthenticated);
  EXPECT_EQ(s.max_body_bytes, 512u * 1024);
  EXPECT_EQ(s.header_timeout, milliseconds(250));
  EXPECT_EQ(s.idle_timeout, milliseconds(120'000));
  EXPECT_EQ(s.log_level, "debug");
  EXPECT_EQ(loaded.config.plugins.dirs, (std::vector<std::string>{folder_ + "/more", "/opt/plugins"}));
  const Model &m = loaded.config.models.at(0);
  EXPECT_EQ(m.path, "/m.gguf");
  EXPECT_EQ(m.aliases, (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(m.context, 0u);
  EXPECT_EQ(m.kv.memory_bytes, 1'000'000'000u);
  EXPECT_EQ(m.kv.block_size, 16u);
  EXPECT_EQ(m.kv.blocks, 0u);
  EXPECT_EQ(m.kv.dtype, "f16");
  ASSERT_EQ(m.samplers.size(), 2u);
  EXPECT_EQ(m.samplers[1].name, "other");
  EXPECT_EQ(m.samplers[1].options->at("weight").value<int>(), 2);
}

TEST_F(Load, AFlagBeatsAVariableBeatsTheFileBeatsTheDefault) {
  variable("SLUICE_SERVER__PORT", "2000");
  variable("SLUICE_SERVER__MAX_N", "3");
  const Loaded loaded =
      load_text("[server]\nport = 1000\nmax_n = 2\nmax_stops = 4\n", {{"server.port", "3000", "--port"}});
  ASSERT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.server.port, 3000);
  EXPECT_EQ(loaded.config.server.max_n, 3u);
  EXPECT_EQ(loaded.config.server.max_stops, 4u);
  EXPECT_EQ(loaded.config.server.max_prompts, 16u);
  EXPECT_EQ(line_of(loaded, "server.port")->origin.kind, Kind::kFlag);
  EXPECT_EQ(line_of(loaded, "server.max_n")->origin.kind, Kind::kEnvironment);
  EXPECT_EQ(line_of(loaded, "server.max_stops")->origin.kind, Kind::kFile);
  EXPECT_EQ(line_of(loaded, "server.max_stops")->origin.line, 4u);
  EXPECT_EQ(line_of(loaded, "server.max_prompts")->origin.kind, Kind::kDefault);
}

TEST_F(Load, TheEnvironmentCanBeLeftAlone) {
  variable("SLUICE_SERVER__PORT", "2000");
  variable("SLUICE_SERVER__NONSENSE", "1");
  LoadInput input;
  input.read_environment = false;
  const Loaded loaded = load(input);
  EXPECT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.server.port, 8080);
}

TEST_F(Load, VariablesReachListsAndModelsOfTheFile) {
  variable("SLUICE_SERVER__ALLOWED_HOSTS", "a.example, b.example");
  variable("SLUICE_MODELS__LLAMA_3_2__PATH", "/elsewhere.gguf");
  variable("SLUICE_MODELS__LLAMA_3_2__KV__MEMORY", "2GiB");
  variable("SLUICE_MODELS__LLAMA_3_2__SAMPLERS", "greedy");
  const Loaded loaded = load_text("[models.\"llama-3.2\"]\npath = \"m\"\n");
  ASSERT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.server.allowed_hosts, (std::vector<std::string>{"a.example", "b.example"}));
  EXPECT_EQ(loaded.config.models.at(0).path, "/elsewhere.gguf");
  EXPECT_EQ(loaded.config.models.at(0).kv.memory_bytes, 2ull << 30);
  EXPECT_EQ(loaded.config.models.at(0).samplers.at(0).name, "greedy");
}

TEST_F(Load, AWrongVariableIsAProblemAndOtherProgramsVariablesAreNot) {
  variable("SLUICE_SERVER__PROT", "1");
  variable("SLUICE_SERVER__THREADS", "many");
  variable("SLUICE_MODELS__NOBODY__PATH", "x");
  variable("SLUICE_PLUGIN_PATH", "/x");
  variable("SLUICE_SERVER__HOST", "\xff");
  EXPECT_EQ(
      all(load({})),
      "SLUICE_MODELS__NOBODY__PATH: unknown variable; it names no key of a model that the file has, and a variable "
      "cannot add a model\n"
      "SLUICE_SERVER__HOST: server.host is not valid UTF-8; it must be a string\n"
      "SLUICE_SERVER__PROT: unknown variable; did you mean SLUICE_SERVER__PORT (TCP port; 0 = any free one, "
      "printed at the start)?\n"
      "SLUICE_SERVER__THREADS: server.threads is \"many\" (a string); it must be an integer 1..64: I/O threads\n");
}

TEST_F(Load, AVariableThatMeansTwoModelsIsRefused) {
  variable("SLUICE_MODELS__A_B__CONTEXT", "64");
  EXPECT_EQ(problems_of("[models.a-b]\npath = 'x'\n[models.a_b]\npath = 'y'\n"),
            "SLUICE_MODELS__A_B__CONTEXT: means both [models.a-b] and [models.a_b]; rename a model\n");
}

TEST_F(Load, AFlagCanMakeAModel) {
  const Loaded loaded =
      load({"", {{"models.tiny-1.1b.path", "m.gguf", "MODEL"}, {"models.tiny-1.1b.kv.memory", "1MiB", "--kv"}}, true});
  ASSERT_EQ(all(loaded), "");
  const Model &m = loaded.config.models.at(0);
  EXPECT_EQ(m.name, "tiny-1.1b");
  EXPECT_EQ(m.path, (std::filesystem::current_path() / "m.gguf").string());
  EXPECT_EQ(m.kv.memory_bytes, 1u << 20);
}

TEST_F(Load, AWrongFlagIsNamed) {
  EXPECT_EQ(
      all(load(
          {"", {{"server.port", "70000", "--port"}, {"server.hots", "x", "--set"}, {"nonsense", "x", "-n"}}, true})),
      "--port: server.port is 70000; it must be an integer 0..65535: TCP port; 0 = any free one, printed at the start\n"
      "--set: unknown key server.hots; did you mean server.host (address to listen on; one that others can reach "
      "needs an API key)?\n"
      "-n: unknown key nonsense; there are [server], [plugins], [models.NAME] and [backends.NAME]\n");
}

TEST_F(Load, ModelsKeepTheOrderOfTheFile) {
  const Loaded loaded =
      load_text("[models.z.kv]\nmemory = '1MiB'\n[models.m]\npath='1'\n[models.a]\npath='1'\n[models.z]\npath='1'\n");
  ASSERT_EQ(all(loaded), "");
  ASSERT_EQ(loaded.config.models.size(), 3u);
  EXPECT_EQ(loaded.config.models[0].name, "z");
  EXPECT_EQ(loaded.config.models[1].name, "m");
  EXPECT_EQ(loaded.config.models[2].name, "a");
}

TEST_F(Load, PluginOptionsStayRawAndKeepTheirLinesInCopies) {
  const Loaded loaded =
      load_text("[models.a]\npath = 'm'\n[models.a.backend]\nuse = 'cpu'\n\nthreads = 4\nlist = [1, 2]\n");
  ASSERT_EQ(all(loaded), "");
  const PluginUse use = loaded.config.models.at(0).backend;  // a copy
  EXPECT_EQ(use.name, "cpu");
  EXPECT_FALSE(use.options->contains("use"));
  EXPECT_EQ(use.options->at("threads").source().begin.line, 6u);
  EXPECT_EQ(use.options->at("list").source().begin.line, 7u);
  EXPECT_EQ(use.origin.line, 3u);
}

TEST_F(Load, ANamedBackendIsSharedByTheModelsThatNameIt) {
  const Loaded loaded = load_text(R"([backends.fast]
use = "cpu"
threads = 8
[backends.reference]
check = true
[models.a]
path = "m"
backend = "fast"
[models.b]
path = "m"
backend = "reference"
[models.c]
path = "m"
backend = { use = "reference" }
)");
  ASSERT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.models[0].backend.name, "cpu");
  EXPECT_EQ(loaded.config.models[0].backend.options->at("threads").source().begin.line, 3u);
  EXPECT_EQ(loaded.config.models[1].backend.name, "reference");
  EXPECT_TRUE(loaded.config.models[1].backend.options->contains("check"));
  EXPECT_TRUE(loaded.config.models[2].backend.options->contains("check"));
}

TEST_F(Load, AVariableKeepsTheOptionsOfTheSamePluginOnly) {
  const std::string text = "[models.a]\npath = 'm'\nbackend = { use = 'cpu', threads = 2 }\n";
  variable("SLUICE_MODELS__A__BACKEND", "cpu");
  EXPECT_TRUE(load_text(text).config.models.at(0).backend.options->contains("threads"));
  variable("SLUICE_MODELS__A__BACKEND", "mock");
  const Loaded other = load_text(text);
  EXPECT_EQ(other.config.models.at(0).backend.name, "mock");
  EXPECT_TRUE(other.config.models.at(0).backend.options.empty());
}

TEST_F(Load, AnEngineStandsAlone) {
  const Loaded loaded = load_text("[models.a]\nengine = { use = 'wrapped', url = 'x' }\n");
  ASSERT_EQ(all(loaded), "");
  const Model &m = loaded.config.models.at(0);
  ASSERT_TRUE(m.engine);
  EXPECT_EQ(m.engine->name, "wrapped");
  EXPECT_EQ(m.backend.name, "");
  EXPECT_TRUE(m.samplers.empty());
}

TEST_F(Load, KeysComeFromTheirFile) {
  write("keys", "# who may\n\n  first-key-1 \r\nsecond-key-2\n");
  const Loaded loaded = load_text("[server]\nhost = '0.0.0.0'\napi_key_file = 'keys'\napi_keys = ['third-key-3']\n");
  ASSERT_EQ(all(loaded), "");
  EXPECT_EQ(loaded.config.server.api_keys, (std::vector<std::string>{"third-key-3", "first-key-1", "second-key-2"}));
}

TEST(Nearest, NamesWhatWasMeantAndNothingFarAway) {
  EXPECT_EQ(nearest("prot", {"host", "port"}), "port");
  EXPECT_EQ(nearest("Max-N", {"max_n", "max_stops"}), "max_n");
  EXPECT_EQ(nearest("temperature", {"host", "port"}), "");
  EXPECT_EQ(nearest("x", {}), "");
  EXPECT_EQ(nearest(std::string(1 << 20, 'x'), {"x"}), "");
}

}  // namespace
}  // namespace sluice::config
