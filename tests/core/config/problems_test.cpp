#include <random>

#include "core/config/document.hpp"
#include "core/config/units.hpp"
#include "tests/core/config/sandbox.hpp"

namespace sluice::config {
namespace {

class Problems : public Sandbox {};

TEST_F(Problems, AllAreReportedAtOnceByLine) {
  EXPECT_EQ(
      problems_of(R"([server]
prot = 80
port = 70000
threads = "two"
idle_timeout = 75
max_body = 4
header_timeout = "5 s"
log_level = "loud"
allow_unauthenticated = "yes"
sse_keepalive = "1ms"
allowed_hosts = ["a", 1]
[modles.x]
[models.a]
path = 5
token_budget = 0
kv = { block_size = 0, blokcs = 3 }
decoder = ["plain"]
samplers = []
scheduler = { useful = "x" }
)"),
      R"(c.toml:2: unknown key server.prot; did you mean server.port (TCP port; 0 = any free one, printed at the start)?
c.toml:3: server.port is 70000; it must be an integer 0..65535: TCP port; 0 = any free one, printed at the start
c.toml:4: server.threads is "two" (a string); it must be an integer 1..64: I/O threads
c.toml:5: server.idle_timeout is 75 (an integer); it must be a duration such as "5s", 100ms..24h (did you mean "75s"?): between two requests on a connection
c.toml:6: server.max_body is 4 (an integer); it must be a size such as "4MiB", 1KiB..1GiB (did you mean "4MiB"?): size of a request body
c.toml:7: server.header_timeout is "5 s" (a string); it must be a duration such as "5s", 100ms..1h: for a request's headers to arrive
c.toml:8: server.log_level is "loud" (a string); it must be one of trace, debug, info, warn, error: least severe message that is logged
c.toml:9: server.allow_unauthenticated is "yes" (a string); it must be true or false: serve an address that others can reach without any API key
c.toml:10: server.sse_keepalive is "1ms" (a string); it must be a duration such as "5s", 100ms..1h: silence in a stream before a keep-alive comment
c.toml:11: server.allowed_hosts holds an integer; it must be an array of strings: further values of the Host header that are answered
c.toml:12: unknown key modles; did you mean [models.NAME]?
c.toml:13: [models.a] has no path; it must name a model file
c.toml:14: models.a.path is 5 (an integer); it must be a path: model file (GGUF)
c.toml:15: models.a.token_budget is 0; it must be an integer 1..1048576: tokens in one step; at least max_seqs
c.toml:16: models.a.kv.block_size is 0; it must be an integer 8..256 or "auto": tokens in a KV block; auto = the backend's choice
c.toml:16: unknown key models.a.kv.blokcs; did you mean models.a.kv.blocks (number of KV blocks; auto = from kv.memory)?
c.toml:17: models.a.decoder is an array; it must be a plugin's name or a table { use = "name", ... }: plugin that drafts tokens ahead
c.toml:18: models.a.samplers is empty; it must be an array of plugin names or tables { use = "name", ... }: plugins that choose tokens, in order
c.toml:19: models.a.scheduler has no string `use`; it must be a plugin's name or a table { use = "name", ... }: plugin that decides who runs next
)");
}

TEST_F(Problems, AKeyInTheWrongPlaceIsSentToTheRightOne) {
  EXPECT_EQ(
      problems_of("port = 1\n"),
      "c.toml:1: unknown key port; did you mean server.port (TCP port; 0 = any free one, printed at the start)?\n");
  EXPECT_EQ(problems_of("server = 1\nmodels = 2\n"),
            "c.toml:1: server is an integer; it must be a table\nc.toml:2: models is an integer; it must be a table\n");
  EXPECT_EQ(problems_of("[models]\na = 1\n[models.b]\npath = 'm'\nkv = 3\n"),
            "c.toml:2: models.a is an integer; it must be a table: [models.a] with path = \"...\"\n"
            "c.toml:5: models.b.kv is an integer; it must be a table\n");
}

TEST_F(Problems, SyntaxErrorsHaveALine) {
  EXPECT_EQ(problems_of("[server]\nport = = 1\n").substr(0, 10), "c.toml:2: ");
  EXPECT_EQ(problems_of("[server]\n\nhost = \"\xff\"\n"), "c.toml:3: Encountered invalid utf-8 sequence\n");
  EXPECT_EQ(problems_of("[server]\n[server]\n").substr(0, 10), "c.toml:2: ");
}

TEST_F(Problems, AFileThatCannotBeReadSaysWhy) {
  EXPECT_EQ(all(load({folder_ + "/none", {}, true})),
            folder_ + "/none: the configuration file cannot be read: No such file or directory\n");
  EXPECT_EQ(all(load({folder_, {}, true})), folder_ + ": the configuration file is a folder; it must be a file\n");
  EXPECT_EQ(all(load({"/dev/zero", {}, true})), "/dev/zero: the configuration file is not a regular file\n");
  EXPECT_EQ(problems_of("#" + std::string(kMaxFileBytes, ' ')),
            "c.toml: the configuration file is larger than 1048576 bytes\n");
}

TEST_F(Problems, AnAddressThatOthersReachNeedsAKey) {
  const std::string refused = problems_of("[server]\nhost = '0.0.0.0'\n");
  EXPECT_EQ(refused,
            "c.toml:2: server.host \"0.0.0.0\" can be reached by others and there is no API key; set "
            "server.api_key_file, listen "
            "on \"127.0.0.1\", or set server.allow_unauthenticated = true\n");
  for (const char *host : {"::", "192.168.1.5", "example.com", "128.0.0.1", "::ffff:10.0.0.1", "127.evil.example"})
    EXPECT_NE(problems_of("[server]\nhost = '" + std::string(host) + "'\n"), "") << host;
  for (const char *host : {"127.0.0.1", "127.9.9.9", "::1", "localhost"})
    EXPECT_EQ(problems_of("[server]\nhost = '" + std::string(host) + "'\n"), "") << host;
  EXPECT_EQ(problems_of("[server]\nhost = '::'\nallow_unauthenticated = true\n"), "");
  EXPECT_EQ(problems_of("[server]\nhost = '::'\napi_keys = ['12345678']\n"), "");
  EXPECT_NE(problems_of("", {{"server.host", "::", "--host"}}), "");
}

TEST_F(Problems, KeysAreCheckedAndNeverShown) {
  write("open", "0123456789\n", 0644);
  write("short", "# c\nsecret7\nblank inside key\n");
  write("empty", "# none\n");
  const std::string path = folder_;
  EXPECT_NE(problems_of("[server]\napi_key_file = 'open'\n")
                .find("has mode 0644, so that others can read or change it; run: chmod 600"),
            std::string::npos);
  const std::string shorts = problems_of("[server]\napi_key_file = 'short'\n");
  EXPECT_NE(shorts.find("short:2: the API key has 7 characters; it must have 8..512"), std::string::npos) << shorts;
  EXPECT_NE(shorts.find("short:3: the API key holds a blank"), std::string::npos) << shorts;
  EXPECT_EQ(shorts.find("secret7"), std::string::npos);
  EXPECT_NE(problems_of("[server]\napi_key_file = 'empty'\n").find("holds no key"), std::string::npos);
  EXPECT_NE(problems_of("[server]\napi_key_file = 'absent'\n").find("No such file"), std::string::npos);
  for (const char *keys : {"['secret7']", "'secret77'", "['secret77', 5]"}) {
    const std::string text = problems_of("[server]\napi_keys = " + std::string(keys) + "\n");
    EXPECT_NE(text, "");
    EXPECT_EQ(text.find("secret7"), std::string::npos) << text;
  }
}

TEST_F(Problems, ModelNamesAreCheckedAndUnique) {
  EXPECT_EQ(
      problems_of(
          "[models.\"a b\"]\npath = 'm'\n[models.a]\npath = 'm'\naliases = ['b', 'x y']\n[models.b]\npath = 'm'\n"),
      "c.toml:1: a model is called \"a b\"; a name is 1 to 128 letters, digits, '.', '_' and '-'\n"
      "c.toml:5: models.a.aliases holds \"b\", which model \"b\" answers to already\n"
      "c.toml:5: models.a.aliases holds \"x y\"; a name is 1 to 128 letters, digits, '.', '_' and '-'\n");
  EXPECT_EQ(problems_of("[models." + std::string(128, 'a') + "]\npath = 'm'\n"), "");
  EXPECT_NE(problems_of("[models." + std::string(129, 'a') + "]\npath = 'm'\n"), "");
}

TEST_F(Problems, ValuesThatContradictEachOther) {
  EXPECT_EQ(problems_of("[models.a]\npath = 'm'\nmax_seqs = 64\ntoken_budget = 32\n"),
            "c.toml:4: models.a.token_budget is 32 and max_seqs 64; the budget must have a token for each sequence\n");
  EXPECT_EQ(
      problems_of("[models.a]\nengine = 'x'\nbackend = 'cpu'\nkv.memory = '1MiB'\n"),
      "c.toml:3: models.a.backend has no effect beside models.a.engine \"x\", which does all of it; remove one\n"
      "c.toml:4: models.a.kv.memory has no effect beside models.a.engine \"x\", which does all of it; remove one\n");
  EXPECT_EQ(
      problems_of("[backends.f]\nuse = 'cpu'\n[models.a]\npath = 'm'\nbackend = { use = 'f', n = 1 }\n"),
      "c.toml:5: models.a.backend has options of its own and uses \"f\", which is [backends.f]; write backend = \"f\" "
      "without options, or use = \"cpu\"\n");
}

TEST_F(Problems, AHostileValueCannotSteerATerminalOrFillIt) {
  const std::string text = problems_of("[server]\nlog_level = \"\\u001b[2J\"\nlog_format = \"" +
                                       std::string(5000, 'x') + "\"\n\"\\u001b]0;x\" = 1\n");
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(text.size(), 1500u);
  std::string many = "[server]\n";
  for (int i = 0; i < 5000; ++i) many += "k" + std::to_string(i) + " = 1\n";
  EXPECT_EQ(load_text(many).problems.size(), 101u);
}

TEST_F(Problems, DeepNestingIsRefusedWhereItStands) {
  const auto repeated = [](const std::string &part, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += part;
    return out;
  };
  for (const std::string &deep :
       {"[a" + repeated(".a", 400'000) + "]", "a" + repeated(".a", 400'000) + " = 1",
        "a" + repeated(".\"=,\"", 150'000) + " = 1", "a = " + repeated("[", 900'000), "a = " + repeated("{a=", 300'000),
        "a = [\"\"\"x\"\"\"\"\", {a" + repeated(".a", 400'000) + " = 1}]", "a" + repeated(" . a", 200'000) + " = 1",
        "[[a" + repeated(".a", 400'000) + "]]"})
    EXPECT_EQ(problems_of("[server]\n" + deep + "\n"), "c.toml:2: keys, arrays or tables nest deeper than 32\n")
        << deep.substr(0, 40);
  // Many dots and brackets that do not nest.
  std::string wide = "[models.a]\npath = '" + std::string(200, '.') + "'\nbackend = { use = 'x', table = [";
  for (int i = 0; i < 5000; ++i) wide += "[1.5, 2.5],\n";
  EXPECT_EQ(problems_of(wide + "] } # " + std::string(100, '.') + std::string(100, '[')), "");
}

/// Bytes changed at random: whatever comes out, it comes back, and a refusal names the file.
TEST_F(Problems, DamagedFilesNeverCrash) {
  const std::string whole = R"(# comment
[server]
host = "127.0.0.1"
api_keys = ["0123456789"]
idle_timeout = '75s'
[backends.fast]
use = "cpu"
nested.deeper = { a = [1, 2.5, 1979-05-27], b = """x""" }
[models."a.b"]
path = "m.gguf"
kv = { memory = "1GiB" }
samplers = ["chain", { use = "greedy" }]
)";
  std::mt19937 random(7);
  const std::string alphabet = "[]{}.=,\"'\n#\\ a1\xff-";
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = whole;
    for (int i = 0; i <= round % 4; ++i) {
      const size_t at = random() % damaged.size();
      if (random() % 2 == 0)
        damaged[at] = alphabet[random() % alphabet.size()];
      else
        damaged.insert(at, random() % 40, alphabet[random() % alphabet.size()]);
    }
    const Loaded loaded = load_text(damaged);
    for (const Problem &problem : loaded.problems) ASSERT_FALSE(problem.message.empty());
    if (!loaded.problems.empty()) continue;
    const Override key{"server.api_keys", "0123456789", "--api-keys"};  // which print() holds back
    const Loaded again = load({write("again.toml", print(loaded, true)), {key}, true});
    ASSERT_EQ(all(again), "") << damaged << "\n---\n" << print(loaded, true);
  }
}

TEST(Units, DurationsAndSizes) {
  using std::chrono::milliseconds;
  EXPECT_EQ(parse_duration("250ms"), milliseconds(250));
  EXPECT_EQ(parse_duration("2m"), milliseconds(120'000));
  EXPECT_EQ(parse_duration("1h"), milliseconds(3'600'000));
  for (const char *bad :
       {"", "5", "s", "-5s", "+5s", "5 s", "5S", "1.5s", "99999999999999999999s", "9223372036854775807s", "5sx"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
  EXPECT_EQ(parse_size("4MiB"), 4u << 20);
  EXPECT_EQ(parse_size("1GB"), 1'000'000'000u);
  EXPECT_EQ(parse_size("7B"), 7u);
  for (const char *bad : {"", "4", "MiB", "4mib", "4M", "-1B", "9999999999TiB", "4MiB "})
    EXPECT_FALSE(parse_size(bad)) << bad;
  for (const uint64_t bytes : {0ull, 1ull, 1000ull, 1024ull, 1'000'000ull, 3ull << 30, 12345ull, 5ull << 40})
    EXPECT_EQ(parse_size(format_size(bytes)), bytes);
  for (const int64_t ms : {0, 1, 999, 1000, 90'000, 7'200'000})
    EXPECT_EQ(parse_duration(format_duration(milliseconds(ms))), milliseconds(ms));
}

}  // namespace
}  // namespace sluice::config
