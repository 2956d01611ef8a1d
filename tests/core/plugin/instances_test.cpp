#include "core/plugin/instances.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "core/base/clock.hpp"
#include "core/config/config.hpp"
#include "core/plugin/host.hpp"
#include "core/plugin/registry.hpp"

namespace sluice::plugin {
namespace {

class Instances : public testing::Test {
 protected:
  const Library &load(uint64_t kind) {
    auto l = registry_.load(kind, "toy", *host_.api());
    EXPECT_TRUE(l) << l.error().message;
    return **l;
  }
  static std::shared_ptr<const Options> options(const Library &l, const std::string &toml = "") {
    std::vector<config::Problem> problems;
    auto o = Options::from_toml(l.schema, config::OptionTable(toml::parse(toml)), "x", {}, problems);
    EXPECT_NE(o, nullptr);
    return o;
  }
  const SteadyClock clock_;
  metrics::Registry metrics_;
  Host host_{{&clock_, &metrics_, 1, "1.0.0"}};
  Registry registry_{{SLUICE_FIXTURES}};
};

TEST_F(Instances, ASamplerIsMadeValidatedAndRefuses) {
  const Library &l = load(SLUICE_KIND_SAMPLER);
  sluice_model_info model{};
  model.vocab_size = 77;
  const auto s = Sampler::create(l, host_.api_for("m", l.title()), *options(l), model);
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ((*s)->name(), "sampler toy");
  EXPECT_NE(metrics_.text().find("sluice_plugin_toys_total{model=\"m\",plugin=\"sampler toy\"} 1"), std::string::npos);

  const auto cool = Options::from_json(*options(l), {{"temperature", 1.0}});
  EXPECT_TRUE((*s)->validate(**cool));
  const auto hot = Options::from_json(*options(l), {{"temperature", 1.9}});
  const auto refused = (*s)->validate(**hot);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("too hot for a toy"), std::string::npos);
  EXPECT_FALSE((*s)->poisoned()) << "a refusal is no damage";

  const auto none = Sampler::create(l, host_.api(), *options(l, "refuse = true"), model);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kUnsupported);
  EXPECT_EQ(none.error().message, "sampler toy: create: vocabulary 77");
  EXPECT_EQ(Sampler::create(l, host_.api(), *options(l, "crash = true"), model).error().code, Code::kInternal);
}

TEST_F(Instances, ASamplerThatGivesNothingIsAnError) {
  const auto l = registry_.load(SLUICE_KIND_SAMPLER, "fine", *host_.api());
  ASSERT_TRUE(l);
  const auto s = Sampler::create(**l, host_.api(), *options(**l), {});
  ASSERT_FALSE(s);
  EXPECT_NE(s.error().message.find("gave nothing"), std::string::npos);
}

TEST_F(Instances, ABackendLoadsAModel) {
  const Library &l = load(SLUICE_KIND_BACKEND);
  const auto devices = Backend::devices(l, host_.api(), *options(l));
  ASSERT_TRUE(devices);
  EXPECT_EQ(devices->size(), 1u);
  const auto b = Backend::open(l, host_.api(), *options(l));
  ASSERT_TRUE(b) << b.error().message;
  EXPECT_TRUE((*b)->health());

  std::vector<uint64_t> seen;
  const auto m = LoadedModel::load(**b, {"/m", {}, [&](const char *, uint64_t done, uint64_t) {
                                           seen.push_back(done);
                                           return true;
                                         }},
                                   *options(l));
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_EQ(seen, (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ((*m)->arch(), std::string(63, 'x')) << "terminated here, since the plugin did not";
  sluice_model_setup setup{};
  EXPECT_EQ((*m)->plan_memory(setup)->block_size, 16u);
  setup.block_size = 64;
  EXPECT_EQ((*m)->plan_memory(setup).error().message, "backend toy: plan_memory: block_size is above 32");
  EXPECT_EQ((*m)->kv_groups(setup)->at(1).bytes_per_block, 4096u);
  const uint32_t blocks[] = {9, 7};
  EXPECT_TRUE((*m)->configure(setup, blocks));
  EXPECT_EQ((*m)->sample_caps()->forms, SLUICE_ROW_LOGITS_HOST);
  EXPECT_TRUE((*m)->warmup({}, {}));
}

TEST_F(Instances, LoadingCanBeStopped) {
  const Library &l = load(SLUICE_KIND_BACKEND);
  const auto b = Backend::open(l, host_.api(), *options(l));
  const auto m = LoadedModel::load(**b, {"/m", {}, [](const char *, uint64_t, uint64_t) { return false; }}, *options(l));
  ASSERT_FALSE(m);
  EXPECT_EQ(m.error().code, Code::kCancelled);
}

TEST_F(Instances, AModelThatCannotBeIsRefused) {
  const Library &l = load(SLUICE_KIND_BACKEND);
  for (const char *lie : {"vocab", "kv_mode", "groups"}) {
    const auto b = Backend::open(l, host_.api(), *options(l, std::string("lie = '") + lie + "'"));
    ASSERT_TRUE(b);
    const auto m = LoadedModel::load(**b, {"/m", {}, {}}, *options(l));
    ASSERT_FALSE(m) << lie;
    EXPECT_NE(m.error().message.find("cannot be"), std::string::npos) << m.error().message;
  }
  const auto b = Backend::open(l, host_.api(), *options(l, "lie = 'bytes'"));
  const auto m = LoadedModel::load(**b, {"/m", {}, {}}, *options(l));
  ASSERT_TRUE(m);
  EXPECT_FALSE((*m)->kv_groups({}));
}

TEST_F(Instances, APlanThatCannotBeIsRefused) {
  const Library &l = load(SLUICE_KIND_BACKEND);
  const auto plan = [&](const char *lie, uint32_t block_size) {
    const auto b = Backend::open(l, host_.api(), *options(l, std::string("lie = '") + lie + "'"));
    const auto m = LoadedModel::load(**b, {"/m", {}, {}}, *options(l));
    sluice_model_setup setup{};
    setup.block_size = block_size;
    const auto planned = (*m)->plan_memory(setup);
    return planned ? std::string() : planned.error().message;
  };
  EXPECT_EQ(plan("", 16), "");
  EXPECT_NE(plan("no_block", 16).find("block_size is 0, which cannot be"), std::string::npos);
  EXPECT_NE(plan("long_block", 0).find("block_size is 65 where the whole context is 64"), std::string::npos);
  EXPECT_NE(plan("any_block", 16).find("17 where 16 was asked for"), std::string::npos);
}

TEST_F(Instances, ALostDevicePoisonsTheInstance) {
  const Library &l = load(SLUICE_KIND_BACKEND);
  const auto b = Backend::open(l, host_.api(), *options(l, "lie = 'health'"));
  EXPECT_EQ((*b)->health().error().code, Code::kDeviceLost);
  EXPECT_TRUE((*b)->poisoned());
  EXPECT_EQ((*b)->health().error().code, Code::kUnavailable) << "not called again";
}

TEST_F(Instances, ADecoderMustBeAbleToDoWhatItAsksFor) {
  const Library &l = load(SLUICE_KIND_DECODER);
  const auto plain = Decoder::create(l, host_.api(), *options(l), 4, {});
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ((*plain)->needs().max_nodes, 0u);
  const auto boaster = Decoder::create(l, host_.api(), *options(l, "boast = true"), 4, {});
  ASSERT_FALSE(boaster);
  EXPECT_NE(boaster.error().message.find("no function draft"), std::string::npos);
}

TEST_F(Instances, AForeignEngineAnswersThroughItsSink) {
  struct Sink : EngineEventSink {
    std::string text;
    bool gone = false;
    int32_t on_engine_event(const sluice_engine_event &e) override {
      text.append(e.text, e.text_bytes);
      return gone ? SLUICE_E_CANCELLED : SLUICE_OK;
    }
  } sink;
  const Library &l = load(SLUICE_KIND_ENGINE);
  const auto e = ForeignEngine::open(l, host_.api_for("m", l.title(), &sink), *options(l), "toy://");
  ASSERT_TRUE(e) << e.error().message;
  EXPECT_EQ((*e)->info().inputs, SLUICE_INPUT_TEXT);
  sluice_engine_request request{};
  EXPECT_TRUE((*e)->generate(request));
  EXPECT_EQ(sink.text, "hello");
  sink.gone = true;
  EXPECT_EQ((*e)->generate(request).error().code, Code::kCancelled);
  EXPECT_EQ((*e)->cancel(1).error().code, Code::kNotFound);
  EXPECT_TRUE((*e)->health());
}

}  // namespace
}  // namespace sluice::plugin
