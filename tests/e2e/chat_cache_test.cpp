// A chat's next turn computes only what is new in it.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;

TEST(ChatCache, ATurnComputesOnlyItsNewTokens) {
  support::ServerSetup setup;
  setup.backend = R"({ use = "mock", script = "count", eos_token = -1 })";
  setup.model = "kv = { block_size = 16 }\n";
  const support::ServerProcess server(setup);
  // As ids, since a text may be cut into other tokens once more stands behind it.
  json::array history(100, 300);
  uint64_t known = 0;
  for (int turn = 0; turn < 4; ++turn) {
    for (const int id : {40, 41, 60, 12, 19}) history.push_back(id);  // a question; the mock goes on with 20, 21, ...
    const json::object body{{"model", "test"}, {"prompt", history}, {"max_tokens", 30}, {"ignore_eos", true}};
    const auto answer = support::post(server.port(), "/v1/completions", json::serialize(body));
    ASSERT_EQ(answer.status, 200) << answer.body;
    const auto usage = json::parse(answer.body).at("usage");
    ASSERT_EQ(usage.at("completion_tokens").to_number<uint64_t>(), 30U);
    EXPECT_EQ(usage.at("prompt_tokens").to_number<uint64_t>(), history.size());
    EXPECT_EQ(usage.at("prompt_tokens_details").at("cached_tokens").to_number<uint64_t>(), known / 16 * 16)
        << "every full block of the turns before, their answers included";
    for (int id = 20; id < 50; ++id) history.push_back(id);
    known = history.size() - 1;  // of the last token no keys and values were ever needed
  }
}

}  // namespace
}  // namespace sluice::e2e
