// What an operator sees of speculation: the checks before a start, the bench, and what is said of a request.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>

#include "tests/support/child_process.hpp"
#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;
using support::Finished;

const std::string kExamples = SLUICE_SOURCE_DIR "/examples/model/";

Finished sluice_with(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), SLUICE_BINARY);
  return support::run(arguments, {});
}

/// The tiny model with the letters A and B in each other's place.
std::string with_swapped_letters() {
  std::string file = support::read_file(support::tiny_model());
  const std::string one("\1\0\0\0\0\0\0\0", 8);
  const size_t at = file.find(one + "A" + one + "B");
  if (at == std::string::npos) throw std::runtime_error("the tiny model has no letters");
  file[at + 8] = 'B';
  file[at + 17] = 'A';
  return file;
}

TEST(SpeculationConfig, IsCheckedBeforeAnythingIsLoaded) {
  const support::TempDir dir;
  struct Case {
    const char *model;  ///< lines of [models.m]
    const char *more;
    const char *says;   ///< empty = sound
  };
  const Case cases[] = {
      {"decoder = { use = 'draft' }", "", "model is not set"},
      {"decoder = { use = 'draft', model = 'small' }", "", "there is no [models.small]"},
      {"decoder = { use = 'draft', model = 'm' }", "", "draft for itself"},
      {"decoder = { use = 'draft', model = 'small' }", "[models.small]\npath = '/nowhere/small.gguf'\n", ""},
      {"decoder = 'medusa'", "", "draft_heads"},
      {"decoder = 'medusa'\ndraft_heads = '/nowhere/heads.safetensors'", "", ""},
      {"decoder = { use = 'ngram', min_ngram = 5, max_ngram = 3 }", "", "min_ngram is 5"},
      {"decoder = { use = 'ngram' }", "", ""},
  };
  for (const auto &c : cases) {
    const std::string file = dir.write(
        "c.toml", "[models.m]\npath = \"" + support::tiny_model() + "\"\n" + c.model + "\n" + c.more);
    const Finished check = sluice_with({"config", "check", file});
    const bool sound = std::string(c.says).empty();
    EXPECT_EQ(check.exit.code, sound ? 0 : 1) << c.model << "\n" << check.err;
    if (sound) continue;
    EXPECT_NE(check.err.find(c.says), std::string::npos) << c.model << "\n" << check.err;
    EXPECT_NE(check.err.find("c.toml:3"), std::string::npos) << "the decoder's line is missing from\n" << check.err;
  }
}

TEST(SpeculationBench, RefusesADraftModelWithOtherTokens) {
  const support::TempDir dir;
  const std::string other = dir.write("other.gguf", with_swapped_letters());
  const std::vector<std::string> bench = {"bench", "--model", support::tiny_model(), "--decoder", "draft", "--rounds", "1",
                                          "--prompt-tokens", "8", "--gen-tokens", "8", "--json", "--draft-model"};
  auto same = bench, swapped = bench;
  same.push_back(support::tiny_model());
  swapped.push_back(other);
  const Finished good = sluice_with(same);
  EXPECT_EQ(good.exit.code, 0) << good.err;
  const Finished bad = sluice_with(swapped);
  EXPECT_EQ(bad.exit.code, 1);
  EXPECT_NE(bad.err.find("token 68 is 'B' there and 'A' here"), std::string::npos) << bad.err;
}

TEST(SpeculationBench, ComparesMedusaAndSaysWhyItCannotCompareASearch) {
  const std::string target = kExamples + "sluice-tiny-q8_0.gguf", heads = kExamples + "sluice-tiny-medusa.safetensors";
  if (!std::filesystem::exists(target) || !std::filesystem::exists(heads)) GTEST_SKIP() << "no model at " << target;
  const std::vector<std::string> bench = {"bench", "--model", target, "--rounds", "1", "--prompt-tokens", "8",
                                          "--gen-tokens", "12", "--json", "--decoder"};
  const auto with = [&](std::vector<std::string> rest) {
    rest.insert(rest.begin(), bench.begin(), bench.end());
    return sluice_with(rest);
  };
  const Finished medusa = with({"medusa", "--draft-heads", heads, "--decoder-option", "adaptive=false"});
  ASSERT_EQ(medusa.exit.code, 0) << medusa.err;
  const auto result = json::parse(medusa.out).at("results").at(0);
  EXPECT_GT(result.at("tokens_per_step").to_number<double>(), 1);
  const Finished headless = with({"medusa"});
  EXPECT_EQ(headless.exit.code, 1);
  EXPECT_NE(headless.err.find("draft_heads"), std::string::npos) << headless.err;
  const Finished beam = with({"beam"});
  EXPECT_EQ(beam.exit.code, 1);
  EXPECT_NE(beam.err.find("makes no drafts, it searches"), std::string::npos) << beam.err;
}

TEST(SpeculationServer, SaysWhatDraftsDidForARequest) {
  const support::TempDir dir;
  const std::string model = "path = \"" + support::tiny_model() + "\"\nbackend = { use = 'mock', script = 'count', ";
  const std::string file = dir.write(
      "c.toml", "[server]\nport = 0\nlog_format = 'json'\n[plugins]\ndirs = ['" SLUICE_PLUGIN_DIR "']\n[models.ngram]\n" + model +
                    "eos_token = -1, vocab_size = 512 }\ndecoder = { use = 'ngram', min_ngram = 1, adaptive = false }\n"
                    "[models.draft]\n" + model +
                    "eos_token = -1, vocab_size = 512 }\ndecoder = { use = 'draft', model = 'ngram', adaptive = false }\n");
  support::ServerProcess server(std::vector<std::string>{file});
  // The prompt counts, and so does the answer, once around the prompt's beginning.
  const auto ask = [&](const char *name, const std::string &fields) {
    return support::post(server.port(), "/v1/completions",
                         std::string(R"({"prompt":[400,401,402,403,404,405,406,399],"max_tokens":7,"ignore_eos":true,"model":")") +
                             name + "\"" + fields + "}");
  };
  const auto reply = ask("ngram", R"(,"rejection_sampling":true)");
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.header("x-sluice-ignored-fields"), "rejection_sampling") << "n-grams are not drawn";
  const auto details = json::parse(reply.body).at("usage").at("completion_tokens_details");
  EXPECT_GT(details.at("accepted_prediction_tokens").to_number<int>(), 2);
  EXPECT_GE(details.at("rejected_prediction_tokens").to_number<int>(), 0);
  const auto drawn = ask("draft", R"(,"rejection_sampling":true)");
  ASSERT_EQ(drawn.status, 200) << drawn.body;
  EXPECT_EQ(drawn.header("x-sluice-ignored-fields"), "");
  EXPECT_EQ(ask("draft", R"(,"rejection_sampling":true,"seed":1)").status, 400);
  const auto metrics = support::get(server.port(), "/metrics").body;
  EXPECT_NE(metrics.find("reason=\"sequence\""), std::string::npos);
  EXPECT_EQ(server.terminate().code, 0);
  const std::string log = server.log();
  for (const char *key : {"\"draft_rounds\":", "\"draft_verify_ms\":", "\"draft_accepted_tokens\":"})
    EXPECT_NE(log.find(key), std::string::npos) << key << " is not in\n" << log;
}

}  // namespace
}  // namespace sluice::e2e
