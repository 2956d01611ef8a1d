// Every subcommand of the built program as a user calls it.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/child_process.hpp"
#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;
using support::Finished;

Finished sluice(std::vector<std::string> arguments, const support::ChildOptions &options = {}) {
  arguments.insert(arguments.begin(), SLUICE_BINARY);
  return support::run(arguments, options);
}

size_t line_of(const std::string &text, std::string_view word) {
  const size_t at = text.find(word);
  return 1 + static_cast<size_t>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
}

TEST(CommandLine, VersionAndHelp) {
  const Finished version = sluice({"--version"});
  EXPECT_EQ(version.exit.code, 0);
  EXPECT_EQ(version.out.find("sluice 0."), 0u) << version.out;
  const Finished help = sluice({"--help"});
  EXPECT_EQ(help.exit.code, 0);
  for (const char *command : {"serve", "run", "chat", "tokenize", "eval", "bench", "synth", "plugins", "config"})
    EXPECT_NE(help.out.find(command), std::string::npos) << command;
  const Finished nothing = sluice({});
  EXPECT_EQ(nothing.exit.code, 2);
  const Finished unknown = sluice({"srve"});
  EXPECT_EQ(unknown.exit.code, 2);
  EXPECT_FALSE(unknown.err.empty());
}

TEST(CommandLine, PluginsAreListedAndExplained) {
  const Finished list = sluice({"plugins", "list"});
  ASSERT_EQ(list.exit.code, 0) << list.err;
  for (const char *name : {"mock", "reference", "cpu", "fcfs", "greedy", "chain", "plain"})
    EXPECT_NE(list.out.find(name), std::string::npos) << name << " is not in\n" << list.out;
  const Finished as_json = sluice({"plugins", "list", "--json"});
  ASSERT_EQ(as_json.exit.code, 0) << as_json.err;
  boost::system::error_code ec;
  json::parse(as_json.out, ec);
  EXPECT_FALSE(ec) << as_json.out;
  const Finished info = sluice({"plugins", "info", "mock"});
  ASSERT_EQ(info.exit.code, 0) << info.err;
  EXPECT_NE(info.out.find("step_us"), std::string::npos) << "the options belong to it\n" << info.out;
  const Finished unknown = sluice({"plugins", "info", "mokc"});
  EXPECT_EQ(unknown.exit.code, 1);
  EXPECT_NE(unknown.err.find("mokc"), std::string::npos) << unknown.err;
}

// Six mistakes of six kinds; all are told at once, each with its line.
TEST(CommandLine, ConfigCheckTellsEveryProblemWithItsLine) {
  const support::TempDir dir;
  const std::string text =
      "[server]\n"
      "port = 99999\n"
      "hots = \"127.0.0.1\"\n"
      "threads = \"two\"\n"
      "\n"
      "[models.m]\n"
      "path = \"" +
      support::tiny_model() +
      "\"\n"
      "backend = { use = \"mock\", setp_us = 3 }\n"
      "scheduler = \"fcsf\"\n"
      "max_seqs = 0\n";
  const std::string file = dir.write("bad.toml", text);
  const Finished check = sluice({"config", "check", file});
  EXPECT_EQ(check.exit.code, 1);
  const auto expect = [&](std::string_view at, std::string_view says) {
    const std::string where = file + ":" + std::to_string(line_of(text, at)) + ":";
    const size_t found = check.err.find(where);
    ASSERT_NE(found, std::string::npos) << where << " is missing from\n" << check.err;
    const std::string line = check.err.substr(found, check.err.find('\n', found) - found);
    EXPECT_NE(line.find(says), std::string::npos) << "'" << says << "' is missing from\n" << line;
  };
  expect("port", "65535");
  expect("hots", "host");
  expect("threads", "threads");
  expect("backend", "step_us");
  expect("scheduler", "fcfs");
  expect("max_seqs", "max_seqs");
}

TEST(CommandLine, ConfigCheckTellsASyntaxErrorWithItsLine) {
  const support::TempDir dir;
  const std::string file = dir.write("broken.toml", "[server]\nport = 1\nport = 2\n");
  const Finished check = sluice({"config", "check", file});
  EXPECT_EQ(check.exit.code, 1);
  EXPECT_NE(check.err.find(file + ":3"), std::string::npos) << check.err;
  EXPECT_EQ(sluice({"config", "check", dir.file("absent.toml")}).exit.code, 1);
}

TEST(CommandLine, ConfigPrintSaysWhereEachValueComesFrom) {
  const support::TempDir dir;
  const std::string file = dir.write(
      "good.toml", "[server]\nthreads = 3\nport = 1234\napi_keys = [\"sesame-open-up\"]\n[models.m]\npath = \"" +
                       support::tiny_model() + "\"\n");
  support::ChildOptions options;
  options.environment = {{"SLUICE_SERVER__PORT", "4321"}};
  const Finished print = sluice({"config", "print", "--origin", file}, options);
  ASSERT_EQ(print.exit.code, 0) << print.err;
  const auto line_with = [&](std::string_view key) {
    const size_t at = print.out.find(std::string("\n") + std::string(key) + " = ");
    return at == std::string::npos ? std::string() : print.out.substr(at + 1, print.out.find('\n', at + 1) - at - 1);
  };
  EXPECT_NE(line_with("port").find("4321"), std::string::npos) << print.out;
  EXPECT_NE(line_with("port").find("SLUICE_SERVER__PORT"), std::string::npos) << print.out;
  EXPECT_NE(line_with("threads").find(file + ":2"), std::string::npos) << print.out;
  EXPECT_NE(line_with("max_queued").find("default"), std::string::npos) << print.out;
  EXPECT_EQ(print.out.find("sesame"), std::string::npos) << "a key was printed";
}

TEST(CommandLine, EveryConfigThatShipsIsSound) {
  const support::TempDir dir;  // a copy, beside which a key file may be made as the comments say
  std::filesystem::copy(SLUICE_SOURCE_DIR "/configs", dir.path());
  std::filesystem::permissions(dir.write("api_keys", "an-example-of-a-key\n"), std::filesystem::perms::owner_read);
  size_t n = 0;
  for (const auto &entry : std::filesystem::directory_iterator(dir.path())) {
    if (entry.path().extension() != ".toml") continue;
    ++n;
    const Finished check = sluice({"config", "check", entry.path().string()});
    EXPECT_EQ(check.exit.code, 0) << entry.path() << "\n" << check.err;
  }
  EXPECT_GT(n, 0u);
}

TEST(CommandLine, TokenizesWithTheModelsOwnVocabulary) {
  const Finished argument = sluice({"tokenize", "--model", support::tiny_model(), "Z z"});
  ASSERT_EQ(argument.exit.code, 0) << argument.err;
  support::ChildOptions options;
  options.stdin_text = "Z z";
  const Finished input = sluice({"tokenize", "--model", support::tiny_model()}, options);
  EXPECT_EQ(input.out, argument.out);
  EXPECT_EQ(argument.out.find(std::to_string(support::tiny_id('Z'))), 0u) << argument.out;
}

// Each call reads the whole vocabulary, hence every third text only; tests/core/text takes all of them.
TEST(CommandLine, TokenizesTheGoldenTexts) {
  const std::string folder = SLUICE_SHARED_DATA "/tokenizers/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  for (const char *name : {"llama-spm", "gpt-2"}) {
    SCOPED_TRACE(name);
    const std::string base = folder + "ggml-vocab-" + name + ".gguf";
    std::string texts = support::read_file(base + ".inp");
    std::istringstream expected(support::read_file(base + ".out"));
    const std::string separator = "\n__ggml_vocab_test__\n";
    size_t n = 0;
    for (std::string ids; std::getline(expected, ids); ++n) {
      const size_t end = texts.find(separator);
      support::ChildOptions options;
      options.stdin_text = texts.substr(0, end);
      texts.erase(0, end == std::string::npos ? texts.size() : end + separator.size());
      if (n % 3 != 0) continue;
      while (!ids.empty() && ids.front() == ' ') ids.erase(0, 1);
      while (!ids.empty() && ids.back() == ' ') ids.pop_back();
      const Finished got = sluice({"tokenize", "--model", base}, options);
      ASSERT_EQ(got.exit.code, 0) << got.err;
      EXPECT_EQ(got.out, ids + "\n") << "text " << n << ": " << options.stdin_text;
    }
    EXPECT_GT(n, 30u);
  }
}

std::vector<float> read_floats(const std::string &path) {
  const std::string bytes = support::read_file(path);
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

double nmse(const std::vector<float> &got, const std::vector<float> &wanted) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += (double{got[i]} - wanted[i]) * (double{got[i]} - wanted[i]);
    norm += double{wanted[i]} * wanted[i];
  }
  return error / norm;
}

constexpr const char *kGoldenTokens =
    "1 403 407 261 378 298 315 421 395 317 426 338 401 396 267 337 410 408 419 292 411 322 265 282 295 433 426 385 328 "
    "432";

TEST(CommandLine, EvalLogitsGivesTheGoldenLogits) {
  const std::string folder = SLUICE_SHARED_DATA "/golden/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const support::TempDir dir;
  const struct {
    const char *name;
    double cpu_limit;
  } models[] = {{"llama", 1e-5},      {"llama-F16", 1e-4},  {"llama-BF16", 1e-3}, {"llama-Q8_0", 5e-3},
                {"llama-Q4_0", 5e-3}, {"llama-Q4_K", 5e-3}, {"llama-Q6_K", 5e-3}};
  for (const auto &model : models) {
    const auto wanted = read_floats(folder + model.name + ".f32");
    for (const char *backend : {"reference", "cpu"}) {
      SCOPED_TRACE(std::string(model.name) + " with " + backend);
      const std::string out = dir.file("logits.f32");
      const Finished eval = sluice({"eval", "logits", "--model", folder + model.name + ".gguf", "--backend", backend,
                                    "--tokens", kGoldenTokens, "--out", out});
      ASSERT_EQ(eval.exit.code, 0) << eval.err;
      const auto got = read_floats(out);
      ASSERT_EQ(got.size(), wanted.size());
      const double error = nmse(got, wanted);
      EXPECT_LE(error, std::string(backend) == "reference" ? 1e-6 : model.cpu_limit);
      std::printf("%-10s %-9s NMSE %.3g\n", model.name, backend, error);
    }
  }
}

TEST(CommandLine, EvalRefusesATokenOutsideTheVocabulary) {
  const support::TempDir dir;
  const Finished eval = sluice({"eval", "logits", "--model", support::tiny_model(), "--backend", "reference",
                                "--tokens", "1 512", "--out", dir.file("x")});
  EXPECT_EQ(eval.exit.code, 1);
  EXPECT_NE(eval.err.find("512"), std::string::npos) << eval.err;
  EXPECT_FALSE(std::filesystem::exists(dir.file("x")));
}

TEST(CommandLine, SynthIsRepeatableAndRuns) {
  const support::TempDir dir;
  for (const char *name : {"a.gguf", "b.gguf"}) {
    const Finished synth =
        sluice({"synth", "--preset", "tiny", "--type", "q4_k", "--seed", "3", "--out", dir.file(name)});
    ASSERT_EQ(synth.exit.code, 0) << synth.err;
  }
  EXPECT_EQ(support::read_file(dir.file("a.gguf")), support::read_file(dir.file("b.gguf")));
  const std::vector<std::string> command{"run", "--model", dir.file("a.gguf"), "--temperature", "0", "--max-tokens",
                                         "12",  "Hello"};
  const Finished first = sluice(command), second = sluice(command);
  ASSERT_EQ(first.exit.code, 0) << first.err;
  EXPECT_FALSE(first.out.empty());
  EXPECT_EQ(first.out, second.out) << "temperature 0 must repeat";
  EXPECT_EQ(sluice({"synth", "--preset", "tiny", "--out", "/proc/nowhere/x.gguf"}).exit.code, 1);
}

TEST(CommandLine, RunRefusesWhatIsNoModel) {
  const support::TempDir dir;
  const Finished absent = sluice({"run", "--model", dir.file("absent.gguf"), "Hello"});
  EXPECT_EQ(absent.exit.code, 1);
  EXPECT_NE(absent.err.find("absent.gguf"), std::string::npos) << absent.err;
  const Finished text = sluice({"run", "--model", dir.write("text.gguf", "This is no model."), "Hello"});
  EXPECT_EQ(text.exit.code, 1);
  EXPECT_NE(text.err.find("text.gguf"), std::string::npos) << text.err;
  std::string cut = support::read_file(support::tiny_model());
  const Finished half = sluice({"run", "--model", dir.write("half.gguf", cut.substr(0, cut.size() / 2)), "Hello"});
  EXPECT_EQ(half.exit.code, 1);
  EXPECT_EQ(half.exit.signal, 0);
}

TEST(CommandLine, BenchSpeaksJson) {
  const Finished bench = sluice({"bench", "--model", support::tiny_model(), "--backend", "cpu", "--prompt-tokens", "32",
                                 "--gen-tokens", "8", "--batch", "1,4", "--json"});
  ASSERT_EQ(bench.exit.code, 0) << bench.err;
  boost::system::error_code ec;
  json::parse(bench.out, ec);
  EXPECT_FALSE(ec) << bench.out;
}

TEST(CommandLine, ServesAModelFileWithoutAConfig) {
  support::ServerProcess server(std::vector<std::string>{support::tiny_model(), "--port", "0"});
  const auto models = json::parse(support::get(server.port(), "/v1/models").body);
  ASSERT_EQ(models.at("data").as_array().size(), 1u);
  const std::string name(models.at("data").at(0).at("id").as_string());
  const auto chat = support::post(server.port(), "/v1/chat/completions",
                                  R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"temperature":0})");
  EXPECT_EQ(chat.status, 200) << chat.body;
  EXPECT_EQ(std::string(json::parse(chat.body).at("model").as_string()), name);
  EXPECT_EQ(server.terminate().code, 0);
}

// One prompt, one model, two ways in: the template, the tokens and the choice must be the same.
TEST(CommandLine, RunAndServeGiveTheSameAnswer) {
  const Finished run =
      sluice({"run", "--model", support::tiny_model(), "--temperature", "0", "--max-tokens", "12", "Hello there"});
  ASSERT_EQ(run.exit.code, 0) << run.err;
  support::ServerProcess server(std::vector<std::string>{support::tiny_model(), "--port", "0"});
  const auto chat =
      support::post(server.port(), "/v1/chat/completions",
                    R"({"messages":[{"role":"user","content":"Hello there"}],"max_tokens":12,"temperature":0})");
  ASSERT_EQ(chat.status, 200) << chat.body;
  const auto content = json::parse(chat.body).at("choices").at(0).at("message").at("content");
  EXPECT_EQ(std::string(content.as_string()) + "\n", run.out);
}

TEST(CommandLine, ChatsFromStandardInput) {
  support::ChildOptions options;
  options.stdin_text = "Hello\n/clear\nHello\n/bye\nnever read\n";
  const Finished chat =
      sluice({"chat", "--model", support::tiny_model(), "--temperature", "0", "--max-tokens", "6"}, options);
  ASSERT_EQ(chat.exit.code, 0) << chat.err;
  const size_t half = chat.out.size() / 2;
  EXPECT_EQ(chat.out.substr(0, half), chat.out.substr(half)) << "the same prompt twice, the second after /clear";
  EXPECT_FALSE(chat.out.empty());
}

TEST(CommandLine, FlagsBeatTheFile) {
  const support::TempDir dir;
  const std::string file = dir.write("s.toml", "[server]\nport = 1\nmax_n = 2\n[plugins]\ndirs = [\"" SLUICE_PLUGIN_DIR
                                               "\"]\n[models.m]\npath = \"" +
                                                   support::tiny_model() + "\"\nbackend = \"mock\"\n");
  support::ServerProcess server(std::vector<std::string>{file, "--port", "0"});
  const auto three = support::post(server.port(), "/v1/completions", R"({"prompt":"x","n":3,"max_tokens":1})");
  EXPECT_EQ(three.status, 400) << three.body;
  EXPECT_EQ(server.terminate().code, 0);
}

TEST(CommandLine, EveryConfigurationThatShipsServesAChat) {
  size_t n_served = 0;
  for (const auto &entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/configs")) {
    // public.toml wants a file of keys and an address of the machine.
    if (entry.path().extension() != ".toml" || entry.path().filename() == "public.toml") continue;
    support::ServerProcess server(std::vector<std::string>{entry.path().string(), "--port", "0"});
    const auto models = boost::json::parse(support::get(server.port(), "/v1/models").body).at("data").as_array();
    ASSERT_FALSE(models.empty()) << entry.path();
    const boost::json::object chat{{"model", models.front().at("id")},
                                   {"max_tokens", 4},
                                   {"messages", {{{"role", "user"}, {"content", "What is 2 + 3?"}}}}};
    const auto reply = support::post(server.port(), "/v1/chat/completions", boost::json::serialize(chat));
    EXPECT_EQ(reply.status, 200) << entry.path() << ": " << reply.body;
    ++n_served;
  }
  EXPECT_GE(n_served, 5U);
}

TEST(CommandLine, ServeRefusesABadStartAndSaysWhy) {
  const support::TempDir dir;
  const std::string open = dir.write(
      "open.toml", "[server]\nhost = \"0.0.0.0\"\nport = 0\n[models.m]\npath = \"" + support::tiny_model() + "\"\n");
  const Finished exposed = sluice({"serve", open});
  EXPECT_NE(exposed.exit.code, 0) << "a public address without a key";
  EXPECT_NE(exposed.err.find("key"), std::string::npos) << exposed.err;
  const Finished absent = sluice({"serve", dir.file("absent.gguf"), "--port", "0"});
  EXPECT_EQ(absent.exit.code, 1);
  EXPECT_NE(absent.err.find("absent.gguf"), std::string::npos) << absent.err;
  support::ServerProcess first(std::vector<std::string>{support::tiny_model(), "--port", "0"});
  const Finished taken = sluice({"serve", support::tiny_model(), "--port", std::to_string(first.port())});
  EXPECT_EQ(taken.exit.code, 1);
  EXPECT_NE(taken.err.find(std::to_string(first.port())), std::string::npos) << taken.err;
}

}  // namespace
}  // namespace sluice::e2e
