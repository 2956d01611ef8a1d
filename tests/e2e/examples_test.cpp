// What an author outside this repository has: the installed tree, a compiler, the examples. Each is built there and
// served with by the installed program.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/child_process.hpp"
#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using std::chrono::seconds;

void must(const std::vector<std::string> &argv, const support::ChildOptions &options = {}) {
  const auto done = support::run(argv, options, seconds(300));
  if (done.exit.code != 0)
    throw std::runtime_error(argv[0] + " " + argv[1] + " failed:\n" + done.out + done.err);
}

/// The build installed into a folder of its own, and the examples copied beside it as an author would have them.
class Installed {
 public:
  Installed() {
    must({SLUICE_CMAKE, "--install", SLUICE_BUILD_DIR, "--prefix", prefix()});
    fs::create_directories(fs::path(folder()));
    fs::create_symlink(prefix() + "/share/sluice/models", folder() + "/model");
  }
  std::string prefix() const { return dir_.file("prefix"); }
  std::string folder() const { return dir_.file("examples"); }
  std::string program() const { return prefix() + "/bin/sluice"; }

  /// A copy of the example. returns  its folder
  std::string copy(const std::string &example) const {
    const std::string to = folder() + "/" + example;
    fs::copy(std::string(SLUICE_SOURCE_DIR) + "/examples/" + example, to, fs::copy_options::recursive);
    return to;
  }
  std::string build(const std::string &example) const { return build_at(copy(example)); }
  /// Configures, builds, and runs the check that sluice_add_plugin() has registered. returns  the folder
  std::string build_at(const std::string &at) const {
    must({SLUICE_CMAKE, "-S", at, "-B", at + "/build", "-DCMAKE_PREFIX_PATH=" + prefix(), "-DCMAKE_BUILD_TYPE=Release",
          "-DCMAKE_C_COMPILER=" SLUICE_CC, "-DCMAKE_CXX_COMPILER=" SLUICE_CXX});
    must({SLUICE_CMAKE, "--build", at + "/build"});
    support::ChildOptions here;
    here.working_dir = at + "/build";
    const auto checked = support::run({SLUICE_CTEST, "--output-on-failure"}, here, seconds(300));
    EXPECT_EQ(checked.exit.code, 0) << checked.out;
    EXPECT_NE(checked.out.find("out of 1"), std::string::npos) << "no check was registered\n" << checked.out;
    return at;
  }

 private:
  support::TempDir dir_;
};

std::string complete(uint16_t port, const std::string &prompt, uint32_t max_tokens) {
  const auto response = support::post(
      port, "/v1/completions",
      json::serialize(json::object{{"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}}));
  if (response.status != 200) throw std::runtime_error(response.body);
  return std::string(json::parse(response.body).at("choices").at(0).at("text").as_string());
}

/// The answers of the installed server to some prompts at once.
std::vector<std::string> serve(const Installed &tree, const std::string &toml, const std::vector<std::string> &prompts,
                               uint32_t max_tokens) {
  const support::ServerProcess server({toml, "--port", "0"}, tree.program());
  std::vector<std::string> answers(prompts.size());
  std::vector<std::thread> clients;
  for (size_t i = 0; i < prompts.size(); ++i)
    clients.emplace_back([&, i] {
      try {
        answers[i] = complete(server.port(), prompts[i], max_tokens);
      } catch (const std::exception &e) {
        answers[i] = std::string("failed: ") + e.what();
      }
    });
  for (auto &client : clients) client.join();
  return answers;
}

std::string first_party(const Installed &tree) {
  const std::string path = tree.folder() + "/first_party.toml";
  std::ofstream(path) << "[models.tiny]\npath = \"model/sluice-tiny-q8_0.gguf\"\n";
  return path;
}

const std::vector<std::string> kPrompts = {"Once upon a time", "The cat and the dog went to the park. They saw a big",
                                           "Tom", "One day a little girl found a red ball in the garden. She"};

TEST(Examples, TheCSamplerAnswersLikeGreedy) {
  const Installed tree;
  const std::string at = tree.build("sampler_c");
  EXPECT_EQ(serve(tree, at + "/serve.toml", kPrompts, 12), serve(tree, first_party(tree), kPrompts, 12));
}

TEST(Examples, TheCSamplerNeedsNoCMake) {
  const Installed tree;
  const std::string at = tree.copy("sampler_c");
  fs::create_directory(at + "/build");
  support::ChildOptions options;
  options.working_dir = at;
  options.environment = {{"PKG_CONFIG_PATH", tree.prefix() + "/lib/pkgconfig"}};
  must({"/bin/sh", "-c", "cc -std=c99 -shared -fPIC -fvisibility=hidden $(pkg-config --cflags sluice) argmax.c "
                         "-o build/libsluice_sampler_argmax.so"}, options);
  const auto answers = serve(tree, at + "/serve.toml", {"Once upon a time"}, 8);
  EXPECT_EQ(answers[0].find("failed"), std::string::npos) << answers[0];
  EXPECT_FALSE(answers[0].empty());
}

TEST(Examples, TheSchedulerChangesNoAnswer) {
  const Installed tree;
  const std::string at = tree.build("scheduler_cpp");
  EXPECT_EQ(serve(tree, at + "/serve.toml", kPrompts, 12), serve(tree, first_party(tree), kPrompts, 12));
}

TEST(Examples, TheBackendRepeatsWhatItHasSeen) {
  const Installed tree;
  const std::string at = tree.build("backend_cpp");
  const auto answers = serve(tree, at + "/serve.toml", {"the dog the dog the dog the", "a b a b a b a"}, 4);
  EXPECT_EQ(answers[0].find(" dog the dog"), 0u) << answers[0];
  EXPECT_EQ(answers[1].find(" b a b"), 0u) << answers[1];
}

TEST(Examples, TheEngineEchoesAndStopsWhenToldTo) {
  const Installed tree;
  const std::string at = tree.build("engine_c");
  const support::ServerProcess server({at + "/serve.toml", "--port", "0"}, tree.program());
  const auto ask = [&](json::object body) {
    const auto response = support::post(server.port(), "/v1/completions", json::serialize(body));
    EXPECT_EQ(response.status, 200) << response.body;
    return json::parse(response.body).at("choices").at(0).as_object();
  };
  const auto whole = ask({{"prompt", "The cat sat on the mat"}, {"max_tokens", 100}});
  EXPECT_NE(whole.at("text").as_string().find("The cat sat on the mat"), json::string::npos) << whole;
  EXPECT_EQ(whole.at("finish_reason").as_string(), "stop");
  const auto cut = ask({{"prompt", "The cat sat on the mat"}, {"max_tokens", 3}});
  EXPECT_EQ(cut.at("finish_reason").as_string(), "length");
  const auto stopped = ask({{"prompt", "The cat sat on the mat"}, {"max_tokens", 100}, {"stop", " sat"}});
  EXPECT_EQ(stopped.at("text").as_string().find("sat"), json::string::npos) << stopped;
  EXPECT_EQ(stopped.at("finish_reason").as_string(), "stop");
  const auto refused = support::post(server.port(), "/v1/completions", R"({"prompt": "a", "logprobs": 2})");
  EXPECT_EQ(refused.status, 400) << refused.body;
}

TEST(Skeletons, EveryKindBuildsAndPassesTheCheck) {
  const Installed tree;
  const std::pair<const char *, const char *> all[] = {{"sampler", "c"},     {"sampler", "cpp"}, {"scheduler", "cpp"},
                                                       {"backend", "cpp"}, {"engine", "cpp"},  {"decoder", "cpp"}};
  for (const auto &[kind, lang] : all) {
    const std::string at = tree.folder() + "/new-" + kind + "-" + lang;
    must({tree.program(), "plugins", "new", "--kind", kind, "--name", "my-own", "--lang", lang, "--dir", at});
    tree.build_at(at);
  }
  // A folder with something in it is left alone.
  const auto again = support::run({tree.program(), "plugins", "new", "--kind", "sampler", "--name", "x", "--dir",
                                   tree.folder() + "/new-sampler-c"});
  EXPECT_EQ(again.exit.code, 1);
  EXPECT_NE(again.err.find("not empty"), std::string::npos) << again.err;
  for (const std::vector<std::string> &wrong : std::vector<std::vector<std::string>>{
           {"--kind", "smapler", "--name", "x"}, {"--kind", "sampler", "--name", "../x"}, {"--kind", "backend", "--name", "x", "--lang", "c"}}) {
    std::vector<std::string> argv{tree.program(), "plugins", "new", "--dir", tree.folder() + "/nowhere"};
    argv.insert(argv.end(), wrong.begin(), wrong.end());
    EXPECT_EQ(support::run(argv).exit.code, 1);
    EXPECT_FALSE(fs::exists(tree.folder() + "/nowhere"));
  }
}

TEST(PluginsInfo, MarkdownIsATableOfTheOptions) {
  const auto info = support::run({SLUICE_BINARY, "plugins", "info", "chain", "--markdown"});
  ASSERT_EQ(info.exit.code, 0) << info.err;
  EXPECT_EQ(info.out.find("## sampler `chain`"), 0u) << info.out;
  EXPECT_NE(info.out.find("| `top_k` |"), std::string::npos) << info.out;
}

TEST(PluginsCheck, ExitsWithZeroOneAndTwo) {
  const Installed tree;
  const std::string own = tree.prefix() + "/lib/sluice/plugins/libsluice_sampler_greedy.so";
  const auto good = support::run({tree.program(), "plugins", "check", own, "--json"});
  EXPECT_EQ(good.exit.code, 0) << good.out;
  EXPECT_EQ(json::parse(good.out).at("outcome").as_string(), "passed");
  fs::permissions(own, fs::perms::others_write, fs::perm_options::add);
  const auto writable = support::run({tree.program(), "plugins", "check", own});
  EXPECT_EQ(writable.exit.code, 1) << writable.out;
  EXPECT_NE(writable.out.find("fix: chmod go-w"), std::string::npos) << writable.out;
  EXPECT_EQ(support::run({tree.program(), "plugins", "check", tree.prefix() + "/lib/pkgconfig/sluice.pc"}).exit.code, 2);
}

}  // namespace
}  // namespace sluice::e2e
