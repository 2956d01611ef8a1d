// Subprotocol sluice.v1.
#include <gtest/gtest.h>

#include "tests/core/api/api_server.hpp"
#include "tests/core/net/ws_client.hpp"

namespace sluice {
namespace {

namespace json = boost::json;
using test::ApiServer;

struct Socket {
  explicit Socket(ApiServer &s) : client(s.port(), "/v1/ws", "Sec-WebSocket-Protocol: sluice.v1\r\n") {
    EXPECT_EQ(client.handshake().status, 101);
    hello = next();
  }
  json::object next() {
    const auto frame = client.next();
    if (!frame || frame->opcode != 1) return {{"type", "none"}, {"code", frame ? frame->close_code() : 0}};
    boost::system::error_code ec;
    auto value = json::parse(frame->payload, ec);
    EXPECT_FALSE(ec) << frame->payload;
    return value.get_object();
  }
  /// The next frame of that type; others are passed over.
  json::object until(const std::string &type) {
    for (;;) {
      auto frame = next();
      const std::string got(frame.at("type").as_string());
      if (got == type || got == "none") return frame;
    }
  }
  void request(const std::string &id, const std::string &body, const std::string &path = "/v1/completions") {
    client.text(R"({"type":"request","id":")" + id + R"(","method":"POST","path":")" + path + R"(","body":)" + body + "}");
  }
  test::WsClient client;
  json::object hello;
};

TEST(Ws, SaysHello) {
  ApiServer s;
  Socket socket(s);
  EXPECT_EQ(socket.hello.at("type").as_string(), "hello");
  EXPECT_EQ(socket.hello.at("server").as_string(), "sluice/1.2.3");
  EXPECT_EQ(socket.hello.at("limits").at("max_inflight").as_int64(), 16);
  EXPECT_EQ(socket.hello.at("limits").at("max_message_bytes").as_int64(), 1024 * 1024);
}

TEST(Ws, OneRequestFromAcceptedToDone) {
  ApiServer s;
  Socket socket(s);
  socket.request("a.1", R"({"messages":[{"role":"user","content":"x"}],"max_tokens":3})", "/v1/chat/completions");
  ASSERT_TRUE(s.generator->wait_open(1));
  s.generator->steps(3);
  const auto accepted = socket.next();
  EXPECT_EQ(accepted.at("type").as_string(), "accepted");
  EXPECT_EQ(accepted.at("id").as_string(), "a.1");
  EXPECT_FALSE(accepted.at("request_id").as_string().empty());
  std::string text;
  for (int64_t seq = 1; seq <= 5; ++seq) {
    const auto event = socket.next();
    ASSERT_EQ(event.at("type").as_string(), "event");
    EXPECT_EQ(event.at("seq").as_int64(), seq);
    const auto &delta = event.at("data").at("choices").at(0).at("delta").as_object();
    if (delta.contains("content")) text += delta.at("content").as_string();
  }
  EXPECT_EQ(text, "abc");
  const auto done = socket.next();
  EXPECT_EQ(done.at("type").as_string(), "done");
  EXPECT_EQ(done.at("seq").as_int64(), 6);
  EXPECT_EQ(done.at("finish_reason").as_string(), "length");
  EXPECT_EQ(done.at("usage").at("completion_tokens").as_int64(), 3);
}

TEST(Ws, RequestsInterleave) {
  ApiServer s;
  s.generator->token_of = [](const request::Request &r, uint32_t) { return r.prompt.at(0); };
  Socket socket(s);
  for (int i = 0; i < 16; ++i) {
    const std::string letter(1, static_cast<char>('a' + i));
    socket.request(letter, R"({"max_tokens":4,"prompt":")" + letter + "\"}");
  }
  ASSERT_TRUE(s.generator->wait_open(16));
  socket.request("one-too-many", R"({"prompt":"x"})");
  const auto refused = socket.until("error");
  EXPECT_EQ(refused.at("id").as_string(), "one-too-many");
  EXPECT_EQ(refused.at("status").as_int64(), 429);
  EXPECT_EQ(refused.at("error").at("code").as_string(), "queue_full");
  s.generator->steps(4);
  std::map<std::string, std::string> texts;
  std::map<std::string, int64_t> seqs;
  for (int done = 0; done < 16;) {
    const auto frame = socket.next();
    const std::string type(frame.at("type").as_string()), id(frame.at("id").as_string());
    ASSERT_TRUE(type == "event" || type == "done") << type;
    EXPECT_EQ(frame.at("seq").as_int64(), ++seqs[id]);
    if (type == "done") {
      ++done;
    } else {
      texts[id] += frame.at("data").at("choices").at(0).at("text").as_string();
    }
  }
  for (const auto &[id, text] : texts) EXPECT_EQ(text, std::string(4, id[0]));
  socket.request("a", R"({"prompt":"a","max_tokens":1})");
  EXPECT_EQ(socket.until("accepted").at("id").as_string(), "a") << "an id is free again after its end";
}

TEST(Ws, CancelEndsOneRequestAndNotTheOthers) {
  ApiServer s;
  Socket socket(s);
  socket.request("keep", R"({"prompt":"x","max_tokens":6})");
  socket.request("drop", R"({"prompt":"x","max_tokens":600})");
  ASSERT_TRUE(s.generator->wait_open(2));
  s.generator->steps(2);
  socket.client.text(R"({"type":"cancel","id":"drop","reason":"bored"})");
  socket.client.text(R"({"type":"cancel","id":"drop"})");
  socket.client.text(R"({"type":"cancel","id":"nobody"})");
  ASSERT_TRUE(ApiServer::eventually([&] { return s.generator->cancelled().size() == 1; }));
  s.generator->steps(4);
  std::map<std::string, json::object> ends;  // in either order
  while (ends.size() < 2) {
    auto frame = socket.next();
    const std::string type(frame.at("type").as_string());
    ASSERT_NE(type, "none");
    if (type == "cancelled" || type == "done") ends[type] = frame;
  }
  EXPECT_EQ(ends["cancelled"].at("id").as_string(), "drop");
  EXPECT_LE(ends["cancelled"].at("usage").at("completion_tokens").as_int64(), 2);
  EXPECT_EQ(ends["done"].at("id").as_string(), "keep");
  EXPECT_EQ(s.generator->cancelled().at(0).second, request::CancelCause::kClient);
}

TEST(Ws, ErrorsOfARequestNameIt) {
  ApiServer s;
  Socket socket(s);
  const std::tuple<const char *, const char *, int, const char *> cases[] = {
      {R"({"prompt":"x","temperature":9})", "/v1/completions", 400, "temperature"},
      {R"({"prompt":"x","model":"gpt-9"})", "/v1/completions", 404, "model"},
      {R"({"prompt":"x"})", "/v1/embeddings", 404, "path"},
      {R"("text")", "/v1/completions", 400, "body"},
      {R"({"prompt":"x","max_tokens":99999})", "/v1/completions", 400, "max_tokens"},
  };
  for (const auto &[body, path, status, param] : cases) {
    socket.request("r", body, path);
    const auto error = socket.next();
    EXPECT_EQ(error.at("type").as_string(), "error") << body;
    EXPECT_EQ(error.at("id").as_string(), "r");
    EXPECT_EQ(error.at("status").as_int64(), status) << body;
    EXPECT_EQ(error.at("error").at("param").as_string(), param) << body;
  }
  socket.request("fine", R"({"prompt":"x","max_tokens":1})");
  EXPECT_EQ(socket.next().at("type").as_string(), "accepted") << "the socket is as good as new";
}

TEST(Ws, BadFramesAreAnsweredAndTenInARowAreEnough) {
  ApiServer s;
  Socket socket(s);
  const char *bad[] = {"", "{", "[]", "1", R"({"type":"dance"})", R"({"no":"type"})", R"({"type":"request"})",
                       R"({"type":"request","id":"a b","path":"/v1/completions","body":{}})", R"({"type":"cancel"})"};
  for (const char *frame : bad) {
    socket.client.text(frame);
    const auto error = socket.next();
    EXPECT_EQ(error.at("type").as_string(), "error") << frame;
    EXPECT_FALSE(error.contains("id")) << frame;
    EXPECT_EQ(error.at("status").as_int64(), 400);
  }
  socket.client.text(R"({"type":"ping","t":7})");
  const auto pong = socket.next();
  EXPECT_EQ(pong.at("type").as_string(), "pong");
  EXPECT_EQ(pong.at("t").as_int64(), 7);
  for (int i = 0; i < 10; ++i) socket.client.text("nonsense");
  const auto last = socket.until("none");
  EXPECT_EQ(last.at("code").to_number<int>(), 1008);
}

TEST(Ws, AnIdInUseIsRefusedWithoutEndingItsRequest) {
  ApiServer s;
  Socket socket(s);
  socket.request("a", R"({"prompt":"x","max_tokens":1})");
  socket.request("a", R"({"prompt":"x","max_tokens":1})");
  EXPECT_EQ(socket.next().at("type").as_string(), "accepted");
  EXPECT_FALSE(socket.next().contains("id"));
  s.generator->step();
  EXPECT_EQ(socket.until("done").at("id").as_string(), "a");
}

TEST(Ws, EngineErrorsAreTerminalForTheirRequest) {
  ApiServer s;
  Socket socket(s);
  socket.request("a", R"({"prompt":"x","max_tokens":9})");
  ASSERT_TRUE(s.generator->wait_open(1));
  s.generator->fail_next_step({Code::kInternal, "broken", ""});
  s.generator->step();
  const auto error = socket.until("error");
  EXPECT_EQ(error.at("status").as_int64(), 500);
  EXPECT_EQ(error.at("error").at("message").as_string(), "broken");
}

TEST(Ws, DrainSendsGoawayFinishesAndClosesWith1001) {
  ApiServer s;
  Socket socket(s), idle(s);
  socket.request("a", R"({"prompt":"x","max_tokens":3})");
  ASSERT_TRUE(s.generator->wait_open(1));
  s.service.begin_drain();
  s.server->drain();
  EXPECT_EQ(idle.until("goaway").at("reason").as_string(), "shutting_down");
  EXPECT_EQ(idle.next().at("code").to_number<int>(), 1001);
  EXPECT_EQ(socket.until("goaway").at("type").as_string(), "goaway");
  socket.request("late", R"({"prompt":"x"})");
  EXPECT_EQ(socket.until("error").at("status").as_int64(), 503);
  s.generator->steps(3);
  EXPECT_EQ(socket.until("done").at("id").as_string(), "a");
  EXPECT_EQ(socket.next().at("code").to_number<int>(), 1001);
}

}  // namespace
}  // namespace sluice
