// The same seed gives the same tokens: alone, among fifteen others, and after other traffic.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <thread>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;

support::ServerSetup cpu_setup() {
  support::ServerSetup s;
  s.server = "log_level = \"error\"\n";
  s.backend = "\"cpu\"";
  s.samplers = "[\"chain\"]";
  s.model = "max_seqs = 16\ncontext = 256\n";
  return s;
}

struct Answer {
  std::string text;
  std::vector<std::string> tokens;
  std::vector<double> logprobs;
  bool operator==(const Answer &) const = default;
};

std::string body(const std::string &prompt, uint64_t seed, uint32_t max_tokens = 48) {
  return json::serialize(json::object{{"model", "test"},
                                      {"prompt", prompt},
                                      {"seed", seed},
                                      {"temperature", 0.8},
                                      {"top_p", 0.95},
                                      {"max_tokens", max_tokens},
                                      {"ignore_eos", true},
                                      {"logprobs", 1}});
}

Answer ask(uint16_t port, const std::string &body) {
  const auto response = support::post(port, "/v1/completions", body);
  if (response.status != 200) throw std::runtime_error(response.body);
  const auto choice = json::parse(response.body).at("choices").at(0);
  Answer answer;
  answer.text = choice.at("text").as_string();
  for (const auto &token : choice.at("logprobs").at("tokens").as_array()) answer.tokens.emplace_back(token.as_string());
  for (const auto &value : choice.at("logprobs").at("token_logprobs").as_array())
    answer.logprobs.push_back(value.to_number<double>());
  return answer;
}

// Sixteen at once, the one that counts somewhere in the middle.
Answer ask_in_a_crowd(uint16_t port, const std::string &wanted) {
  Answer answer;
  std::vector<std::thread> crowd;
  for (uint64_t i = 0; i < 16; ++i)
    crowd.emplace_back([&, i] {
      if (i == 7) {
        answer = ask(port, wanted);
      } else {
        ask(port, body(std::string(3 + 5 * i, static_cast<char>('a' + i)), 1000 + i, 64));
      }
    });
  for (std::thread &t : crowd) t.join();
  return answer;
}

TEST(SameSeed, SameTokensInAnyCompany) {
  const support::ServerProcess server(cpu_setup());
  const std::string wanted = body("Once upon a time", 42);
  const Answer alone = ask(server.port(), wanted);
  ASSERT_EQ(alone.tokens.size(), 48u);
  EXPECT_EQ(ask_in_a_crowd(server.port(), wanted), alone);
  for (uint64_t i = 0; i < 8; ++i) ask(server.port(), body("other traffic " + std::to_string(i), i, 20));
  EXPECT_EQ(ask(server.port(), wanted), alone);
  EXPECT_EQ(ask_in_a_crowd(server.port(), wanted), alone);
}

TEST(SameSeed, AnotherServerGivesTheSame) {
  const std::string wanted = body("Once upon a time", 42);
  const auto ask_once = [&] {
    const support::ServerProcess server(cpu_setup());
    return ask(server.port(), wanted);
  };
  EXPECT_EQ(ask_once(), ask_once());
}

TEST(SameSeed, AnotherSeedGivesAnotherText) {
  const support::ServerProcess server(cpu_setup());
  EXPECT_NE(ask(server.port(), body("Once upon a time", 42)).tokens,
            ask(server.port(), body("Once upon a time", 43)).tokens);
}

TEST(SameSeed, AnswersOfOneRequestDifferAndRepeat) {
  const support::ServerProcess server(cpu_setup());
  const std::string request =
      R"({"model":"test","prompt":"Once","seed":5,"temperature":0.8,"max_tokens":24,"n":3,"ignore_eos":true})";
  const auto texts = [&] {
    std::vector<std::string> out(3);
    const auto response = support::post(server.port(), "/v1/completions", request);
    EXPECT_EQ(response.status, 200) << response.body;
    const auto parsed = json::parse(response.body);
    for (const auto &choice : parsed.at("choices").as_array())
      out.at(choice.at("index").to_number<size_t>()) = choice.at("text").as_string();
    return out;
  };
  const auto first = texts();
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first[1], first[2]);
  EXPECT_EQ(texts(), first);
}

}  // namespace
}  // namespace sluice::e2e
