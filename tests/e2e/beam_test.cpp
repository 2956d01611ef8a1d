// Beam search over HTTP, with the model that ships and the configuration that does.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <set>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;

struct Answer {
  std::string text, finish;
  double sum = 0;  // of its logprobs
  size_t tokens = 0;
};

class Beam : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = new support::ServerProcess(
        std::vector<std::string>{SLUICE_SOURCE_DIR "/configs/beam.toml", "--port", "0"});
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  static json::value post(const std::string &fields, uint32_t status = 200) {
    const auto response = support::post(server_->port(), "/v1/completions",
                                        R"({"prompt":"Once upon a time","max_tokens":24,"logprobs":0,)" + fields + "}");
    EXPECT_EQ(response.status, status) << response.body;
    return json::parse(response.body);
  }
  static std::vector<Answer> ask(const std::string &fields) {
    const auto reply = post(fields);
    std::vector<Answer> out(reply.at("choices").as_array().size());
    for (const auto &choice : reply.at("choices").as_array()) {
      Answer &answer = out.at(choice.at("index").to_number<size_t>());
      answer.text = choice.at("text").as_string();
      answer.finish = choice.at("finish_reason").as_string();
      for (const auto &value : choice.at("logprobs").at("token_logprobs").as_array())
        answer.sum += value.to_number<double>(), ++answer.tokens;
    }
    return out;
  }
  static std::string error_param(const std::string &fields) {
    return std::string(post(fields, 400).at("error").at("param").as_string());
  }
  static inline support::ServerProcess *server_ = nullptr;
};

TEST_F(Beam, OneBeamIsGreedy) {
  const auto greedy = ask(R"("temperature":0)");
  const auto one = ask(R"("use_beam_search":true,"num_beams":1)");
  EXPECT_EQ(one.at(0).text, greedy.at(0).text);
  EXPECT_EQ(one.at(0).finish, greedy.at(0).finish);
  EXPECT_NEAR(one.at(0).sum, greedy.at(0).sum, 1e-4);
}

TEST_F(Beam, AnswersComeBestFirstAndScoreBetterThanGreedy) {
  const double greedy = ask(R"("temperature":0,"ignore_eos":true)").at(0).sum;
  for (const int beams : {2, 4, 8}) {
    const auto answers = ask(R"("use_beam_search":true,"ignore_eos":true,"num_beams":)" + std::to_string(beams) +
                             R"(,"n":)" + std::to_string(beams));
    ASSERT_EQ(answers.size(), static_cast<size_t>(beams));
    std::set<std::string> texts;
    for (size_t k = 0; k < answers.size(); ++k) {
      EXPECT_EQ(answers[k].tokens, 24u);
      EXPECT_EQ(answers[k].finish, "length");
      if (k > 0) {
        EXPECT_LE(answers[k].sum, answers[k - 1].sum + 1e-4);
      }
      texts.insert(answers[k].text);
    }
    EXPECT_EQ(texts.size(), answers.size());
    EXPECT_GE(answers[0].sum, greedy - 1e-4) << beams << " beams";
  }
}

TEST_F(Beam, UsageCountsTheAnswersAndThePromptOnce) {
  const auto reply = post(R"("use_beam_search":true,"num_beams":4,"n":3,"ignore_eos":true)");
  EXPECT_EQ(reply.at("usage").at("completion_tokens"), 72);
  EXPECT_EQ(reply.at("usage").at("prompt_tokens"),
            post(R"("temperature":0)").at("usage").at("prompt_tokens"));
}

TEST_F(Beam, AStopStringCutsAnAnswer) {
  const auto whole = ask(R"("use_beam_search":true,"ignore_eos":true)").at(0);
  ASSERT_GT(whole.text.size(), 12u);
  const std::string stop = whole.text.substr(8, 4);
  const auto cut = ask(R"("use_beam_search":true,"ignore_eos":true,"stop":)" + json::serialize(json::string(stop))).at(0);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(cut.finish, "stop");
}

TEST_F(Beam, WhatMakesNoSenseIsRefusedByName) {
  EXPECT_EQ(error_param(R"("use_beam_search":true,"num_beams":9)"), "num_beams");
  EXPECT_EQ(error_param(R"("use_beam_search":true,"temperature":0.7)"), "temperature");
  EXPECT_EQ(error_param(R"("use_beam_search":true,"stream":true)"), "stream");
  EXPECT_EQ(error_param(R"("num_beams":4)"), "num_beams");
  EXPECT_EQ(error_param(R"("use_beam_search":true,"num_beams":2,"n":3)"), "n");
}

TEST_F(Beam, OthersAreSampledMeanwhile) {
  EXPECT_EQ(ask(R"("seed":4,"temperature":0.8)").at(0).text, ask(R"("seed":4,"temperature":0.8)").at(0).text);
  const auto response = support::post(server_->port(), "/v1/completions",
                                      R"({"prompt":"Once","max_tokens":4,"stream":true,"seed":1})");
  EXPECT_EQ(response.status, 200);
  EXPECT_NE(response.body.find("data: [DONE]"), std::string::npos);
}

}  // namespace
}  // namespace sluice::e2e
