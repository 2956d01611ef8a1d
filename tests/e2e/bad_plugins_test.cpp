// Plugins that misbehave in every way that is written down: each ends in the refusal or the error that is documented,
// and a model beside them streams on as if nothing had happened.
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

std::string request(const std::string &model, const std::string &prompt, uint32_t max_tokens, bool stream = false,
                    const std::string &more = {}) {
  return R"({"model":")" + model + R"(","prompt":)" + support::tiny_ids(prompt) +
         R"(,"ignore_eos":true,"max_tokens":)" + std::to_string(max_tokens) + more +
         (stream ? R"(,"stream":true})" : "}");
}

std::string dirs(std::initializer_list<const char *> list) {
  std::string out = "dirs = [";
  for (const char *dir : list) out += (out.back() == '[' ? "\"" : ", \"") + std::string(dir) + "\"";
  return out + "]\n";
}

std::string model(const std::string &name, const std::string &rest) {
  return "[models." + name + "]\npath = \"" + support::tiny_model() + "\"\n" + rest + "\n";
}

/// The good model, streaming from its own thread without a pause; every stream is compared to the last letter.
class GoodStreams {
 public:
  explicit GoodStreams(uint16_t port) : thread_([this, port] {
    while (!quit_) {
      const auto whole = support::EventStream(port, "/v1/completions", request("test", "neighbour", 120, true)).read_all();
      std::string expected;
      while (expected.size() < 120) expected += "neighbour";
      expected.resize(120);
      const bool exact = whole.done && !whole.error && whole.text.size() == 1 && whole.text[0] == expected;
      ++(exact ? exact_ : wrong_);
    }
  }) {}
  ~GoodStreams() { stop(); }
  void stop() {
    quit_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int exact() const { return exact_; }
  int wrong() const { return wrong_; }

 private:
  std::atomic<bool> quit_{false};
  std::atomic<int> exact_{0}, wrong_{0};
  std::thread thread_;
};

/// What /health/ready says of one model.
std::string status_of(uint16_t port, const std::string &name) {
  const auto ready = boost::json::parse(support::get(port, "/health/ready").body).as_object();
  for (const auto &m : ready.at("models").as_array())
    if (m.at("id").as_string() == name) return std::string(m.at("status").as_string());
  return "unknown";
}

template <class F> bool eventually(F done, std::chrono::milliseconds patience = 15s) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(20ms);
  }
  return true;
}

double metric_of(uint16_t port, const std::string &name, const std::string &model) {
  const std::string text = support::get(port, "/metrics").body;
  const size_t at = text.find(name + "{model=\"" + model + "\"}");
  return at == std::string::npos ? -1 : std::stod(text.substr(text.find('}', at) + 1));
}

support::ServerSetup setup(const std::string &plugins, const std::string &models) {
  support::ServerSetup s;
  s.server = "log_level = \"warn\"\n";
  s.backend = R"({ use = "mock", script = "echo", step_us = 3000 })";
  s.plugins = plugins, s.plugin_dirs = {SLUICE_WICKED, SLUICE_RUDE};
  s.more = models;
  return s;
}

std::string mock(const char *faults) {
  return std::string("backend = { use = \"mock\", script = \"echo\", ") + faults + " }\nsamplers = [\"greedy\"]\n";
}

TEST(BadPlugins, EachCostsItsOwnRequestsAndNobodyElses) {
  support::ServerProcess server(setup(
      "reopen_delay = \"30ms\"\nmax_reopens = 50\ncall_deadline = \"3s\"\n",
      model("throws", "backend = { use = \"mock\", script = \"echo\" }\nsamplers = [\"throws\"]\n") +
          model("bad_token", "backend = { use = \"mock\", script = \"echo\" }\nsamplers = [{ use = \"wicked\", how = \"garbage\" }]\n") +
          model("bad_plan", mock("step_us = 0") + "scheduler = \"wicked\"\n") +
          model("bad_rows", mock("garbage_at = 3")) + model("lost", mock("lost_at = 3")) +
          model("bad_events", "engine = \"rude\"\n") +
          model("crash", mock("isolation = \"process\", crash_at = 6")) +
          model("hang", mock("isolation = \"process\", block_at = 6")) +
          model("leaks", mock("isolation = \"process\", leak_threads = true")) +
          model("child_events", "engine = { use = \"rude\", isolation = \"process\" }\n")));
  const uint16_t port = server.port();
  GoodStreams good(port);

  // The backend answers what nobody asked for, or is lost; a sampler throws, or chooses what does not exist.
  for (const char *name : {"throws", "bad_token", "bad_rows", "lost"}) {
    const auto failed = support::post(port, "/v1/completions", request(name, "abc", 20));
    EXPECT_EQ(failed.status, 500) << name << ": " << failed.body;
    EXPECT_NE(failed.body.find("engine_error"), std::string::npos) << failed.body;
    EXPECT_TRUE(eventually([&] { return metric_of(port, "sluice_model_reopens_total", name) >= 1; })) << name;
    EXPECT_TRUE(eventually([&] { return status_of(port, name) == "ready"; })) << name;
  }
  // A stream that has begun says so, and does not pretend to be whole.
  const auto cut = support::EventStream(port, "/v1/completions", request("lost", "abc", 20, true)).read_all();
  EXPECT_TRUE(cut.error);
  EXPECT_FALSE(cut.done);

  // A plan that makes no sense costs nothing: the host makes its own.
  const auto planned = support::post(port, "/v1/completions", request("bad_plan", "abc", 6));
  EXPECT_EQ(planned.status, 200) << planned.body;
  EXPECT_NE(planned.body.find("abcabc"), std::string::npos) << planned.body;
  EXPECT_GE(metric_of(port, "sluice_plan_fallbacks_total", "bad_plan"), 6);

  // Events of an engine, in this process and in a child: garbage of each kind ends its own request.
  for (const char *name : {"bad_events", "child_events"}) {
    for (const char *how : {"finish", "negative", "null", "both", "utf8", "too_many", "cached"}) {
      const auto bad = support::post(port, "/v1/completions",
                                     request(name, "abc", 6, false, R"(,"how":")" + std::string(how) + '"'));
      EXPECT_EQ(bad.status, 500) << name << ' ' << how << ": " << bad.body;
    }
    const auto nice = support::post(port, "/v1/completions", request(name, "abc", 6, false, R"(,"how":"nice")"));
    EXPECT_EQ(nice.status, 200) << name << ": " << nice.body;
    const auto thrown = support::post(port, "/v1/completions", request(name, "abc", 6, false, R"(,"how":"throws")"));
    EXPECT_EQ(thrown.status, 500) << name << ": " << thrown.body;
    EXPECT_TRUE(eventually([&] { return metric_of(port, "sluice_model_reopens_total", name) >= 1; })) << name;
    EXPECT_TRUE(eventually([&] { return status_of(port, name) == "ready"; })) << name;
  }

  // What ends a process, or never returns, does so in a child.
  for (const char *name : {"crash", "hang"}) {
    const auto fine = support::post(port, "/v1/completions", request(name, "abc", 3));
    EXPECT_EQ(fine.status, 200) << name << ": " << fine.body;
    const auto failed = support::post(port, "/v1/completions", request(name, "abc", 20));
    EXPECT_GE(failed.status, 500) << name << ": " << failed.body;
    EXPECT_TRUE(eventually([&] { return metric_of(port, "sluice_model_reopens_total", name) >= 1; })) << name;
    EXPECT_TRUE(eventually([&] { return status_of(port, name) == "ready"; })) << name;
    const auto again = support::post(port, "/v1/completions", request(name, "abc", 3));
    EXPECT_EQ(again.status, 200) << name << ": " << again.body;
  }
#ifndef __SANITIZE_ADDRESS__  // which makes an exit of the signal
  EXPECT_NE(server.log().find("signal 11"), std::string::npos) << server.log();
#endif
  const auto leaking = support::post(port, "/v1/completions", request("leaks", "abc", 6));
  EXPECT_EQ(leaking.status, 200) << leaking.body;

  good.stop();
  EXPECT_EQ(good.wrong(), 0) << "of " << good.exact() << " streams beside it";
  EXPECT_GE(good.exact(), 3);
  EXPECT_EQ(server.terminate().code, 0) << server.log();
}

TEST(BadPlugins, WhatKeepsFailingStaysDownAndSaysSo) {
  support::ServerProcess server(setup("reopen_delay = \"10ms\"\nmax_reopens = 2\n",
                                      model("broken", mock("lost_at = 1")) + model("slow", mock("lost_at = 1"))));
  const uint16_t port = server.port();
  GoodStreams good(port);
  int errors = 0;
  ASSERT_TRUE(eventually([&] {
    const auto r = support::post(port, "/v1/completions", request("broken", "abc", 3));
    errors += r.status == 500 ? 1 : 0;
    return r.status == 503 && r.header("retry-after").empty();
  })) << "after max_reopens there is no time to come back at";
  EXPECT_EQ(errors, 3) << "one for the first instance and one for each that was opened anew";
  EXPECT_EQ(status_of(port, "broken"), "unhealthy");
  EXPECT_EQ(status_of(port, "test"), "ready");
  EXPECT_EQ(support::get(port, "/health/ready").status, 503);
  EXPECT_EQ(metric_of(port, "sluice_model_healthy", "broken"), 0);
  EXPECT_EQ(metric_of(port, "sluice_model_healthy", "test"), 1);
  EXPECT_NE(server.log().find("broken stays down"), std::string::npos) << server.log();
  good.stop();
  EXPECT_EQ(good.wrong(), 0);
  EXPECT_EQ(server.terminate().code, 0) << server.log();
}

std::string wicked(const char *how) {
  return std::string("backend = { use = \"wicked\", how = \"") + how + "\" }\nsamplers = [\"greedy\"]\n";
}

TEST(BadPlugins, NumbersThatAreNoneAndRoomThatIsNot) {
  std::string models = model("huge", wicked("huge")) +
                       model("forks", "backend = { use = \"wicked\", isolation = \"process\", how = \"leaves_a_child\" }\n");
  const char *const garbage[] = {"nan_logprob", "nan_top", "top_twice", "nan_logits", "ages"};
  const char *const ranked[] = {"nan_top", "top_twice", "nan_logits"};
  for (const char *how : garbage) models += model(how, wicked(how));
  const std::string beams = "decoder = { use = \"beam\", max_beams = 2, num_beams = 2 }\n";
  for (const char *how : ranked) models += model(std::string("beams_") + how, wicked(how) + beams);
  support::ServerProcess server(setup("reopen_delay = \"30ms\"\nmax_reopens = 50\n", models));
  const uint16_t port = server.port();
  GoodStreams good(port);
  for (const char *how : garbage) {
    const auto failed = support::post(port, "/v1/completions", request(how, "abc", 3, false, R"(,"logprobs":2)"));
    EXPECT_EQ(failed.status, 500) << how << ": " << failed.body;
    EXPECT_TRUE(eventually([&] { return metric_of(port, "sluice_model_reopens_total", how) >= 1; })) << how;
    EXPECT_TRUE(eventually([&] { return status_of(port, how) == "ready"; })) << how;
  }
  for (const char *how : ranked) {
    const auto failed = support::post(port, "/v1/completions",
                                      request(std::string("beams_") + how, "abc", 3, false, R"(,"use_beam_search":true)"));
    EXPECT_EQ(failed.status, 500) << how << ": " << failed.body;
  }
  const auto served = support::post(port, "/v1/completions", request("huge", "abc", 3));
  EXPECT_EQ(served.status, 200) << served.body;

  EXPECT_GE(support::post(port, "/v1/completions", request("forks", "abc", 3)).status, 500);
  const std::string log = server.log();
  const size_t at = log.find("left child ");
  ASSERT_NE(at, std::string::npos) << log;
  const std::string pid = std::to_string(std::stoi(log.substr(at + 11)));
  EXPECT_TRUE(eventually([&] {
    std::ifstream in("/proc/" + pid + "/stat");
    const std::string stat((std::istreambuf_iterator<char>(in)), {});
    return stat.empty() || stat.find(") Z ") != std::string::npos;
  })) << "its process " << pid << " lives on";
  good.stop();
  EXPECT_EQ(good.wrong(), 0);
  EXPECT_EQ(server.terminate().code, 0) << server.log();
}

TEST(BadPlugins, AModelThatIsNeverUnloadedDoesNotKeepTheServer) {
  support::ServerProcess server(setup("call_deadline = \"1s\"\n", model("stays", wicked("never_unloads"))));
  EXPECT_EQ(server.terminate(30s).code, 1);
  EXPECT_NE(server.log().find("closing the plugins has not ended after 7000 ms"), std::string::npos) << server.log();
}

TEST(BadPlugins, WhileItIsDownTheAnswerIs503WithRetryAfter) {
  support::ServerProcess server(setup("reopen_delay = \"30s\"\n", model("broken", mock("lost_at = 1"))));
  const uint16_t port = server.port();
  EXPECT_EQ(support::post(port, "/v1/completions", request("broken", "abc", 3)).status, 500);
  ASSERT_TRUE(eventually([&] { return status_of(port, "broken") == "unhealthy"; }));
  ASSERT_TRUE(eventually([&] {
    const auto down = support::post(port, "/v1/completions", request("broken", "abc", 3));
    return down.status == 503 && !down.header("retry-after").empty() && std::stoi(down.header("retry-after")) > 5 &&
           down.body.find("model_failed") != std::string::npos;
  }));
  EXPECT_EQ(server.terminate().code, 0) << server.log();
}

TEST(BadPlugins, OneThatNeverReturnsIsLeftBehind) {
  support::ServerProcess server(setup("call_deadline = \"1500ms\"\n", model("never",
      "backend = { use = \"mock\", script = \"echo\" }\nsamplers = [{ use = \"wicked\", how = \"never_returns\" }]\n")));
  const uint16_t port = server.port();
  GoodStreams good(port);
  const auto failed = support::post(port, "/v1/completions", request("never", "abc", 3));
  EXPECT_EQ(failed.status, 504) << failed.body;
  EXPECT_EQ(status_of(port, "never"), "unhealthy");
  const auto refused = support::post(port, "/v1/completions", request("never", "abc", 3));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_FALSE(refused.header("retry-after").empty());
  EXPECT_NE(server.log().find("sampler wicked: apply takes longer than 1500 ms"), std::string::npos) << server.log();
  EXPECT_EQ(metric_of(port, "sluice_plugin_overruns_total", "never"), 1);
  good.stop();
  EXPECT_EQ(good.wrong(), 0);
  EXPECT_EQ(server.terminate(20s).code, 1) << "it ends all the same, and says that it had to\n" << server.log();
}

/// What a request is answered, without what differs from one to the next.
std::string choices_of(uint16_t port, const std::string &name, const std::string &more) {
  const auto answer = support::post(port, "/v1/completions", request(name, "the same words", 40, false, more));
  EXPECT_EQ(answer.status, 200) << name << ": " << answer.body;
  return answer.status == 200 ? boost::json::serialize(boost::json::parse(answer.body).at("choices")) : name;
}

TEST(Isolated, TheServedTextIsThatOfThisProcess) {
  const std::string own = "isolation = \"process\"";
  support::ServerProcess server(setup("",
      model("mock_here", mock("step_us = 0")) + model("mock_child", mock(own.c_str())) +
      model("cpu_here", "backend = \"cpu\"\n") + model("cpu_child", "backend = { use = \"cpu\", " + own + " }\n")));
  for (const char *more : {R"(,"seed":4,"logprobs":3)", R"(,"temperature":0.9,"seed":5)", R"(,"temperature":0)"})
    for (const std::string kind : {"mock", "cpu"}) {
      if (kind == "mock" && more[2] == 't') continue;  // it runs with the greedy sampler, which has no temperature
      EXPECT_EQ(choices_of(server.port(), kind + "_child", more), choices_of(server.port(), kind + "_here", more)) << more;
    }
  EXPECT_EQ(server.terminate().code, 0) << server.log();
}

// ---- refusals before anything is served ----

TEST(BadPlugins, WithAModelThatCannotBe) {
  const std::pair<const char *, const char *> all[] = {{"no_block", "block_size is 0, which cannot be"},
                                                       {"no_groups", "runs paged KV with one group"}};
  for (const auto &[how, said] : all) {
    const support::TempDir folder;
    const auto done = support::run({SLUICE_BINARY, "serve", folder.write("c.toml",
        "[server]\nport = 0\n[plugins]\n" + dirs({SLUICE_WICKED, SLUICE_PLUGIN_DIR}) + model("test", wicked(how)))});
    EXPECT_EQ(done.exit.code, 1) << done.err;
    EXPECT_NE(done.err.find(said), std::string::npos) << done.err;
  }
}

std::string refusal(const std::string &plugins, const std::string &rest) {
  const support::TempDir folder;
  const auto done = support::run({SLUICE_BINARY, "config", "check",
                                  folder.write("c.toml", "[plugins]\n" + plugins + model("test", rest))});
  EXPECT_EQ(done.exit.code, 1) << done.out << done.err;
  return done.out + done.err;
}

void expect_said(const std::string &text, std::initializer_list<const char *> words) {
  for (const char *word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " is not in: " << text;
}

TEST(BadPlugins, OfAnotherMajorVersion) {
  expect_said(refusal(dirs({SLUICE_WRONG}), "backend = \"mock\"\nsamplers = [\"other_major\"]\n"),
              {"other_major", "ABI 7.0", "rebuild it"});
}
// While the floor is 0 nothing can have been built below it (metadata_test.cpp moves the floor); above is the same rule.
TEST(BadPlugins, OutsideOfTheVersionsThatFit) {
  expect_said(refusal(dirs({SLUICE_WRONG}), "backend = \"mock\"\nsamplers = [\"too_new\"]\n"), {"too_new", "0.9", "rebuild it"});
}
TEST(BadPlugins, WithAFlagThatMustBeUnderstood) {
  expect_said(refusal(dirs({SLUICE_WRONG}), "backend = \"mock\"\nsamplers = [\"unknown_flag\"]\n"), {"unknown_flag", "0x4000"});
}
TEST(BadPlugins, WithAnOptionThatDoesNotExist) {
  expect_said(refusal(dirs({SLUICE_WICKED}), "backend = { use = \"mock\", stepus = 3 }\n"), {"stepus", "step_us"});
}
TEST(BadPlugins, InAFileThatAnybodyMayWrite) {
  const support::TempDir folder;
  const std::string copy = folder.file("libsluice_sampler_wicked.so");
  fs::copy_file(std::string(SLUICE_WICKED) + "/libsluice_sampler_wicked.so", copy);
  fs::permissions(copy, fs::perms::all);
  expect_said(refusal("dirs = [\"" + fs::path(copy).parent_path().string() + "\"]\n",
                      "backend = \"mock\"\nsamplers = [\"wicked\"]\n"), {"wicked", "written by others"});
}
TEST(BadPlugins, InAProcessOfItsOwnWhereThatCannotBe) {
  expect_said(refusal(dirs({SLUICE_WICKED}), "samplers = [{ use = \"wicked\", isolation = \"process\" }]\n"),
              {"isolation", "only backends and engines"});
  expect_said(refusal(dirs({SLUICE_WICKED}), "backend = { use = \"mock\", isolation = \"thread\" }\n"),
              {"isolation is", "\"process\""});
}

}  // namespace
}  // namespace sluice::e2e
