// The protocol sluice.v1 on /v1/ws, and what the framing below it must refuse.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <set>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"
#include "tests/support/websocket.hpp"

namespace sluice::e2e {
namespace {

namespace json = boost::json;

std::string completion(const std::string &prompt, uint32_t max_tokens) {
  return R"({"model":"test","prompt":)" + support::tiny_ids(prompt) +
         R"(,"temperature":0,"ignore_eos":true,"max_tokens":)" + std::to_string(max_tokens) + "}";
}
std::string request(const std::string &id, const std::string &body, const std::string &path = "/v1/completions") {
  return R"({"type":"request","id":")" + id + R"(","method":"POST","path":")" + path + R"(","body":)" + body + "}";
}
std::string text_at(const json::object &message, std::string_view key) {
  const auto *value = message.if_contains(key);
  return value == nullptr || !value->is_string() ? std::string() : std::string(value->get_string());
}
std::string echo(const std::string &prompt, size_t n) {
  std::string out;
  while (out.size() < n) out += prompt;
  return out.substr(0, n);
}

class WebSocket : public testing::Test {
 protected:
  static support::ServerSetup setup() {
    support::ServerSetup s;
    s.server = "log_level = \"error\"\n";
    s.backend = R"({ use = "mock", script = "echo", step_us = 500 })";
    return s;
  }
  /// The next message as an object; fails the test at a close.
  json::object receive(support::WsClient &socket) {
    const auto frame = socket.receive();
    if (!frame || frame->opcode != support::kText) throw std::runtime_error("the socket was closed");
    return json::parse(frame->payload).as_object();
  }
  /// Reads on to a message of that type.
  json::object receive(support::WsClient &socket, std::string_view type) {
    for (int i = 0; i < 10'000; ++i) {
      auto message = receive(socket);
      if (text_at(message, "type") == type) return message;
    }
    throw std::runtime_error("no " + std::string(type));
  }
  /// One whole request; checks its course and gives its text.
  std::string complete(support::WsClient &socket, const std::string &id, const std::string &body) {
    socket.send(request(id, body));
    std::string text;
    uint64_t seq = 0;
    bool accepted = false;
    while (true) {
      const auto message = receive(socket);
      if (message.at("type") == "hello") continue;
      EXPECT_EQ(text_at(message, "id"), id) << json::serialize(message);
      if (message.at("type") == "accepted") {
        EXPECT_FALSE(accepted);
        accepted = true;
        EXPECT_FALSE(message.at("request_id").as_string().empty());
      } else if (message.at("type") == "event") {
        EXPECT_TRUE(accepted) << "an event before accepted";
        EXPECT_EQ(message.at("seq").to_number<uint64_t>(), ++seq);
        support::StreamEvent event;
        EXPECT_TRUE(support::parse_stream_event(json::serialize(message.at("data")), event));
        text += event.text;
      } else {
        EXPECT_EQ(message.at("type"), "done") << json::serialize(message);
        return text;
      }
    }
  }

  support::ServerProcess server_{setup()};
};

TEST_F(WebSocket, SaysHelloAndEchoesTheSubprotocol) {
  support::WsClient socket(server_.port());
  EXPECT_EQ(socket.handshake().header("sec-websocket-protocol"), "sluice.v1");
  EXPECT_FALSE(socket.handshake().header("x-request-id").empty());
  EXPECT_EQ(receive(socket).at("type"), "hello");
}

TEST_F(WebSocket, CompletesOneAfterTheOther) {
  support::WsClient socket(server_.port());
  EXPECT_EQ(complete(socket, "one", completion("abc", 20)), echo("abc", 20));
  EXPECT_EQ(complete(socket, "two", completion("defg", 33)), echo("defg", 33));
  EXPECT_EQ(complete(socket, "one", completion("hi", 5)), echo("hi", 5)) << "an id is free again after its end";
}

TEST_F(WebSocket, DoneCarriesFinishReasonAndUsage) {
  support::WsClient socket(server_.port());
  socket.send(request("a", completion("abcd", 6)));
  const auto done = receive(socket, "done");
  EXPECT_EQ(done.at("finish_reason"), "length");
  EXPECT_EQ(done.at("usage").at("prompt_tokens"), 4);
  EXPECT_EQ(done.at("usage").at("completion_tokens"), 6);
  EXPECT_EQ(done.at("usage").at("total_tokens"), 10);
}

TEST_F(WebSocket, ChatsToo) {
  support::WsClient socket(server_.port());
  socket.send(
      request("c", R"({"model":"test","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"ignore_eos":true})",
              "/v1/chat/completions"));
  const auto event = receive(socket, "event");
  EXPECT_EQ(event.at("data").at("object"), "chat.completion.chunk");
  EXPECT_EQ(receive(socket, "done").at("id"), "c");
}

TEST_F(WebSocket, RunsManyAtOnceAndMixesNothing) {
  support::WsClient socket(server_.port());
  std::map<std::string, std::string> text;
  std::map<std::string, uint64_t> seq;
  for (int i = 0; i < 12; ++i)
    socket.send(request("r" + std::to_string(i), completion("p" + std::to_string(i) + "x", 30)));
  for (size_t open = 12; open > 0;) {
    const auto message = receive(socket);
    if (message.at("type") == "hello" || message.at("type") == "accepted") continue;
    const std::string id(message.at("id").as_string());
    if (message.at("type") == "done") {
      --open;
      continue;
    }
    ASSERT_EQ(message.at("type"), "event") << json::serialize(message);
    EXPECT_EQ(message.at("seq").to_number<uint64_t>(), ++seq[id]);
    support::StreamEvent event;
    ASSERT_TRUE(support::parse_stream_event(json::serialize(message.at("data")), event));
    text[id] += event.text;
  }
  for (int i = 0; i < 12; ++i) EXPECT_EQ(text["r" + std::to_string(i)], echo("p" + std::to_string(i) + "x", 30));
}

TEST_F(WebSocket, CancelEndsOneRequestOnly) {
  support::WsClient socket(server_.port());
  socket.send(request("long", completion("abc", 3000)));
  socket.send(request("other", completion("xyz", 200)));
  std::string other;
  bool cancelled = false, sent = false;
  while (true) {
    const auto message = receive(socket);
    if (message.at("type") == "hello" || message.at("type") == "accepted") continue;
    const bool is_long = message.at("id") == "long";
    ASSERT_FALSE(cancelled && is_long) << "a message after cancelled: " << json::serialize(message);
    if (message.at("type") == "event" && is_long && !sent) {
      sent = true;
      socket.send(R"({"type":"cancel","id":"long"})");
    }
    if (message.at("type") == "event" && !is_long) {
      support::StreamEvent event;
      ASSERT_TRUE(support::parse_stream_event(json::serialize(message.at("data")), event));
      other += event.text;
    }
    if (message.at("type") == "cancelled") {
      EXPECT_TRUE(is_long);
      EXPECT_LT(message.at("usage").at("completion_tokens").to_number<int>(), 3000);
      cancelled = true;
    }
    if (message.at("type") == "done") {
      EXPECT_FALSE(is_long);
      break;
    }
  }
  EXPECT_TRUE(cancelled);
  EXPECT_EQ(other, echo("xyz", 200));
  socket.send(R"({"type":"cancel","id":"never-heard-of"})");
  EXPECT_EQ(complete(socket, "after", completion("abc", 5)), "abcab");
}

TEST_F(WebSocket, ErrorsConcernOneRequestAndLeaveTheSocketOpen) {
  support::WsClient socket(server_.port());
  const auto status_of = [&](const std::string &message) {
    socket.send(message);
    const auto error = receive(socket, "error");
    EXPECT_TRUE(error.at("error").at("message").is_string());
    return error.contains("status") ? error.at("status").to_number<int>() : 0;
  };
  EXPECT_EQ(status_of(request("a", R"({"model":"test","prompt":"x","temperature":9})")), 400);
  EXPECT_EQ(status_of(request("b", R"({"model":"none","prompt":"x"})")), 404);
  EXPECT_EQ(status_of(request("c", R"({"model":"test","prompt":"x"})", "/v1/nothing")), 404);
  EXPECT_EQ(status_of(request("d", R"({"model":"test","prompt":"x","tools":[{"type":"function"}]})")), 400);
  EXPECT_EQ(status_of(request("bad id!", completion("a", 1))), 400);
  status_of("this is not JSON");
  status_of(R"({"type":"surprise"})");
  status_of("[]");
  EXPECT_EQ(complete(socket, "fine", completion("abc", 5)), "abcab");
}

TEST_F(WebSocket, AnIdInUseIsRefused) {
  support::WsClient socket(server_.port());
  socket.send(request("same", completion("abc", 500)));
  receive(socket, "event");
  socket.send(request("same", completion("xyz", 5)));
  const auto error = receive(socket, "error");
  EXPECT_GE(error.at("status").to_number<int>(), 400);
  EXPECT_LT(error.at("status").to_number<int>(), 500);
}

TEST_F(WebSocket, AnswersPings) {
  support::TcpClient client(server_.port());
  client.send(support::upgrade_bytes());
  std::string left;
  ASSERT_EQ(support::read_response(client, left).status, 101);
  client.send(support::client_frame({true, 0, support::kPing, "are you there"}));
  support::FrameReader frames;
  frames.feed(left);
  while (true) {
    const auto frame = frames.next();
    if (!frame) {
      frames.feed(client.receive());
      continue;
    }
    if (frame->opcode != support::kPong) continue;
    EXPECT_EQ(frame->payload, "are you there");
    return;
  }
}

TEST_F(WebSocket, TakesAMessageInFragments) {
  support::WsClient socket(server_.port());
  const std::string message = request("f", completion("abc", 7));
  socket.send({false, 0, support::kText, message.substr(0, 20)});
  socket.send({true, 0, support::kPing, ""});
  socket.send({false, 0, support::kContinuation, message.substr(20, 30)});
  socket.send({true, 0, support::kContinuation, message.substr(50)});
  EXPECT_EQ(receive(socket, "done").at("id"), "f");
}

TEST_F(WebSocket, ClosesOnWhatTheFramingForbids) {
  const auto code_after = [&](const std::string &bytes) {
    support::WsClient socket(server_.port());
    socket.connection().try_send(bytes);
    return socket.close_code();
  };
  using support::client_frame;
  const std::set<int> protocol_error{1002,
                                     1006};  // some are answered by a close frame, some by the end of the connection
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({true, 0, support::kText, "{}"}, support::Mask::kNo))))
      << "unmasked";
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({true, 4, support::kText, "{}"}))))
      << "RSV1 without an extension";
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({true, 0, 3, "{}"})))) << "a reserved opcode";
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({false, 0, support::kPing, ""})))) << "a fragmented ping";
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({true, 0, support::kPing, std::string(126, 'a')}))))
      << "a long ping";
  EXPECT_TRUE(protocol_error.contains(code_after(client_frame({true, 0, support::kContinuation, "{}"}))))
      << "a continuation of nothing";
  EXPECT_EQ(code_after(client_frame({true, 0, support::kText, "\xc3\x28"})), 1007) << "invalid UTF-8";
  EXPECT_EQ(code_after(client_frame({true, 0, support::kBinary, "{}"})), 1003);
  EXPECT_EQ(code_after(client_frame({true, 0, support::kText, std::string(2 << 20, ' ')})), 1009) << "2 MiB";
  EXPECT_EQ(code_after(client_frame({true, 0, support::kClose, std::string("\x03\xe8", 2)})), 1000);
  std::string endless = client_frame({false, 0, support::kText, std::string(60'000, ' ')});
  for (int i = 0; i < 40; ++i) endless += client_frame({false, 0, support::kContinuation, std::string(60'000, ' ')});
  EXPECT_EQ(code_after(endless), 1009) << "an endless message in fragments";
}

TEST_F(WebSocket, PlainHttpGets426AndForeignOriginsGet403) {
  EXPECT_EQ(support::get(server_.port(), "/v1/ws").status, 426);
  for (const char *origin : {"https://attacker.example", "null"}) {
    support::TcpClient client(server_.port());
    client.send(support::upgrade_bytes({{"Origin", origin}}));
    std::string left;
    EXPECT_EQ(support::read_response(client, left).status, 403) << origin;
  }
}

TEST(WebSocketKeys, AKeyIsAskedForAndMayComeAsASubprotocol) {
  support::ServerSetup setup;
  setup.server = "log_level = \"error\"\napi_keys = [\"sesame-open-up\"]\n";
  const support::ServerProcess server(setup);
  const auto status_with = [&](const support::Headers &headers) {
    support::TcpClient client(server.port());
    client.send(support::upgrade_bytes(headers));
    std::string left;
    const auto response = support::read_response(client, left);
    EXPECT_EQ(response.header("sec-websocket-protocol").find("sesame"), std::string::npos) << "the key was echoed";
    return response.status;
  };
  EXPECT_EQ(status_with({{"Sec-WebSocket-Protocol", "sluice.v1"}}), 401);
  EXPECT_EQ(status_with({{"Authorization", "Bearer wrong-key-here"}}), 401);
  EXPECT_EQ(status_with({{"Authorization", "Bearer sesame-open-up"}}), 101);
  EXPECT_EQ(status_with({{"Sec-WebSocket-Protocol", "sluice.v1, openai-insecure-api-key.sesame-open-up"}}), 101);
}

}  // namespace
}  // namespace sluice::e2e
