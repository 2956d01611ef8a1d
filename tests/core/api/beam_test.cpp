// The fields of a beam search: handed to the decoder, or refused by name.
#include <gtest/gtest.h>

#include "core/api/fields.hpp"
#include "core/api/openai_parse.hpp"
#include "tests/core/api/api_server.hpp"

namespace sluice::api {
namespace {

using lifecycle::FailureKind;

lifecycle::RequestSchema fake_beam(std::shared_ptr<boost::json::object> seen) {
  return {"beam",
          {"use_beam_search", "num_beams", "length_penalty", "early_stopping"},
          [seen](const boost::json::object &table) -> Result<std::shared_ptr<const plugin::Options>> {
            *seen = table;
            return std::shared_ptr<const plugin::Options>();
          },
          4};
}

struct BeamWorld : test::World {
  BeamWorld() {
    model->samplers.push_back(test::fake_chain(sampling));
    model->decoder = fake_beam(searching);
    model->defaults.temperature = 0.7;
    generator->limits_.max_branches = 6;
  }
  boost::system::result<ParsedRequest, lifecycle::Failure> parse(const std::string &fields) {
    const auto object = parse_object(R"({"prompt":"hi",)" + fields + "}");
    return parse_request(Dialect::kCompletion, *object, service);
  }
  std::shared_ptr<boost::json::object> sampling = std::make_shared<boost::json::object>();
  std::shared_ptr<boost::json::object> searching = std::make_shared<boost::json::object>();
};

TEST(BeamFields, GoToTheDecoderByTheirNames) {
  BeamWorld w;
  const auto parsed = w.parse(
      R"("use_beam_search":true,"num_beams":5,"n":2,"length_penalty":-0.5,"early_stopping":"never","temperature":0,"top_p":1)");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->spec.beams, 5u);
  EXPECT_EQ(parsed->spec.n, 2u);
  EXPECT_EQ(*w.searching, (boost::json::object{{"use_beam_search", true},
                                               {"num_beams", 5},
                                               {"length_penalty", -0.5},
                                               {"early_stopping", "never"}}));
  EXPECT_EQ(parsed->ignored_fields, "");
  ASSERT_TRUE(w.parse(R"("use_beam_search":true,"early_stopping":true)"));
  EXPECT_EQ(w.searching->at("early_stopping"), "true");
}

TEST(BeamFields, BeamsAreAsConfiguredAndAtLeastTheAnswers) {
  BeamWorld w;
  EXPECT_EQ(w.parse(R"("use_beam_search":true)")->spec.beams, 4u);
  EXPECT_EQ(w.parse(R"("use_beam_search":true,"n":5)")->spec.beams, 5u);
  EXPECT_EQ(w.parse(R"("use_beam_search":true,"num_beams":1)")->spec.beams, 1u);
}

TEST(BeamFields, WithoutASearchTheSamplersDecide) {
  BeamWorld w;
  for (const char *fields : {R"("temperature":0.5)", R"("use_beam_search":false,"temperature":0.5)",
                             R"("num_beams":1,"temperature":0.5)"}) {
    const auto parsed = w.parse(fields);
    ASSERT_TRUE(parsed) << fields;
    EXPECT_EQ(parsed->spec.beams, 0u);
    EXPECT_EQ(w.sampling->at("temperature"), 0.5);
  }
}

TEST(BeamFields, WhatMakesNoSenseIsRefusedByName) {
  BeamWorld w;
  const std::vector<std::pair<const char *, const char *>> rows = {
      {R"("num_beams":2)", "num_beams"},
      {R"("use_beam_search":1)", "use_beam_search"},
      {R"("use_beam_search":true,"num_beams":0)", "num_beams"},
      {R"("use_beam_search":true,"num_beams":7)", "num_beams"},
      {R"("use_beam_search":true,"num_beams":2.5)", "num_beams"},
      {R"("use_beam_search":true,"num_beams":2,"n":3)", "n"},
      {R"("use_beam_search":true,"length_penalty":"1")", "length_penalty"},
      {R"("use_beam_search":true,"length_penalty":1e300)", "length_penalty"},
      {R"("use_beam_search":true,"early_stopping":"maybe")", "early_stopping"},
      {R"("use_beam_search":true,"early_stopping":1)", "early_stopping"},
      {R"("use_beam_search":true,"temperature":0.5)", "temperature"},
      {R"("use_beam_search":true,"top_p":0.5)", "top_p"},
      {R"("use_beam_search":true,"top_k":5)", "top_k"},
      {R"("use_beam_search":true,"min_p":0.1)", "min_p"},
      {R"("use_beam_search":true,"presence_penalty":1)", "presence_penalty"},
      {R"("use_beam_search":true,"repetition_penalty":1.2)", "repetition_penalty"},
      {R"("use_beam_search":true,"logit_bias":{"5":1})", "logit_bias"},
      {R"("use_beam_search":true,"extra_knob":true)", "extra_knob"},
  };
  for (const auto &[fields, param] : rows) {
    const auto parsed = w.parse(fields);
    ASSERT_FALSE(parsed) << fields;
    EXPECT_EQ(parsed.error().param, param) << parsed.error().message;
    EXPECT_NE(parsed.error().message.find(param), std::string::npos) << parsed.error().message;
  }
}

TEST(BeamFields, AModelThatKeepsNoBeamsSaysSo) {
  BeamWorld w;
  w.generator->limits_.max_branches = 1;
  w.model->decoder->plugin = "plain";
  const auto parsed = w.parse(R"("use_beam_search":true)");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().kind, FailureKind::kUnsupportedParameter);
  EXPECT_EQ(parsed.error().message, "use_beam_search is true, but the decoder of model 'tiny' is 'plain', which keeps no "
                                    "beams; leave it out, or configure decoder = \"beam\"");
  w.model->decoder.reset();
  EXPECT_EQ(w.parse(R"("use_beam_search":true)").error().param, "use_beam_search");
}

TEST(BeamFields, AStreamIsRefused) {
  test::ApiServer server;
  server.generator->limits_.max_branches = 6;
  server.model->decoder = fake_beam(std::make_shared<boost::json::object>());
  const auto answer = server.json("/v1/completions", R"({"prompt":"hi","use_beam_search":true,"stream":true})");
  EXPECT_EQ(answer.at("status"), 400);
  EXPECT_EQ(answer.at("error").at("param"), "stream");
}

}  // namespace
}  // namespace sluice::api
