#pragma once
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <memory>
#include <string>
#include <vector>

#include "core/api/api.hpp"
#include "core/net/server.hpp"
#include "core/text/chat_template.hpp"
#include "tests/core/lifecycle/world.hpp"
#include "tests/core/net/raw_client.hpp"

namespace sluice::test {

/// The sampling keys of the chain sampler; what a request asks for is kept in `seen`.
inline lifecycle::RequestSchema fake_chain(std::shared_ptr<boost::json::object> seen) {
  return {"chain",
          {"temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
           "extra_knob"},
          [seen](const boost::json::object &table) -> Result<std::shared_ptr<const plugin::Options>> {
            if (table.contains("extra_knob") && !table.at("extra_knob").is_bool()) {
              return invalid_argument("extra_knob must be true or false", "extra_knob");
            }
            *seen = table;
            return std::shared_ptr<const plugin::Options>();
          }};
}

inline void add_chat_template(lifecycle::ServedModel &model) {
  auto made = text::ChatTemplate::compile("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]");
  ASSERT_TRUE(made);
  model.chat_template = std::make_shared<text::ChatTemplate>(std::move(*made));
}

/// A whole server over one FakeGenerator, which the test steps, or lets run.
struct ApiServer {
  explicit ApiServer(net::ServerOptions options = {}, lifecycle::ServiceOptions service_options = {})
      : service(service_options, std::make_shared<SteadyClock>()) {
    model->name = "tiny";
    model->tokenizer = tiny_tokenizer();
    model->generator = generator;
    model->metrics = metrics::ModelMetrics(registry, "tiny");
    model->samplers.push_back(fake_chain(sampling));
    add_chat_template(*model);
    model->state.ready();
    (void)service.add(model);
    options.port = 0;
    api::ApiOptions api_options;
    api_options.version = "1.2.3";
    api_options.limits = options.limits;
    context = std::make_shared<api::Context>(service, registry, api_options);
    server = std::make_unique<net::Server>(options, api::make_router(context), registry);
    EXPECT_TRUE(server->start());
  }
  ~ApiServer() {
    generator->stop();
    server->stop();
  }
  uint16_t port() const { return server->port(); }

  RawResponse call(const std::string &bytes) {
    RawClient client(port());
    client.send(bytes);
    return client.response(std::chrono::seconds(20)).value_or(RawResponse{});
  }
  /// POSTs and parses the JSON answer; `status` is added to it.
  boost::json::object json(const std::string &path, const std::string &body) {
    const auto response = call(post(path, body));
    boost::system::error_code ec;
    auto value = boost::json::parse(response.body, ec);
    boost::json::object out = !ec && value.is_object() ? value.get_object() : boost::json::object{{"unparsed", response.body}};
    out["status"] = response.status;
    return out;
  }
  template <class Condition> static bool eventually(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  metrics::Registry registry;
  std::shared_ptr<FakeGenerator> generator = std::make_shared<FakeGenerator>();
  std::shared_ptr<lifecycle::ServedModel> model = std::make_shared<lifecycle::ServedModel>();
  std::shared_ptr<boost::json::object> sampling = std::make_shared<boost::json::object>();
  lifecycle::Service service;
  std::shared_ptr<api::Context> context;
  std::unique_ptr<net::Server> server;
};

/// The data of every event of an SSE body; comments are left out, anything malformed fails the test.
inline std::vector<std::string> sse_events(const std::string &body) {
  std::vector<std::string> out;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "half an event";
    if (end == std::string::npos) break;
    const std::string event = body.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    EXPECT_EQ(event.find('\n'), std::string::npos) << event;
    out.push_back(event.substr(6));
  }
  return out;
}

}  // namespace sluice::test
