// The instruments themselves: a client that overlooks a fault makes every test behind it worthless.
#include <gtest/gtest.h>

#include "tests/support/response_reader.hpp"
#include "tests/support/stream_event.hpp"
#include "tests/support/tcp_client.hpp"
#include "tests/support/websocket.hpp"

namespace sluice::support {
namespace {

TEST(ResponseReader, ReadsTheSameInPiecesOfAnySize) {
  const std::string bytes =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b c\r\n\r\n5\r\ndata:\r\n1a\r\n one\n\ndata: two\n\ndata: "
      "[DO\r\n6\r\nNE]\n\n\n\r\n0\r\n\r\n";
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    ResponseReader reader;
    for (size_t at = 0; at < bytes.size(); at += piece) reader.feed(std::string_view(bytes).substr(at, piece));
    ASSERT_TRUE(reader.complete()) << piece << ' ' << reader.why();
    EXPECT_EQ(reader.status(), 200);
    EXPECT_EQ(reader.header("x-a"), "b c");
    EXPECT_EQ(reader.body, "data: one\n\ndata: two\n\ndata: [DONE]\n\n\n");
  }
}

TEST(ResponseReader, StopsAtTheEndOfTheFirstOfTwo) {
  const std::string one = "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc";
  ResponseReader reader;
  EXPECT_EQ(reader.feed(one + one), one.size());
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(reader.body, "abc");
}

TEST(ResponseReader, KnowsABrokenOrACutResponse) {
  for (const char *bytes : {"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"}) {
    ResponseReader reader;
    reader.feed(bytes);
    EXPECT_TRUE(reader.broken()) << bytes;
  }
  ResponseReader cut;
  cut.feed("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_FALSE(cut.feed_end());
}

TEST(SseReader, CutsEventsAndCountsTheRest) {
  std::string body = "data: one\n\n: ping\n\ndata: two\n\nnonsense\n\ndata: unfin";
  SseReader reader;
  std::string_view data;
  ASSERT_TRUE(reader.next(body, data));
  EXPECT_EQ(data, "one");
  ASSERT_TRUE(reader.next(body, data));
  EXPECT_EQ(data, "two");
  EXPECT_FALSE(reader.next(body, data));
  EXPECT_EQ(reader.comments(), 1u);
  EXPECT_EQ(reader.malformed(), 1u);
  reader.compact(body);
  body += "ished\n\n";
  ASSERT_TRUE(reader.next(body, data));
  EXPECT_EQ(data, "unfinished");
}

TEST(StreamEvent, ReadsCompletionsAndChats) {
  StreamEvent e;
  ASSERT_TRUE(parse_stream_event(
      R"({"id":"cmpl-1","choices":[{"index":3,"text":"a\"\\\n\u00e9\ud83d\ude00","logprobs":{"tokens":["]}"]},"finish_reason":"stop"}],"usage":null})",
      e));
  EXPECT_EQ(e.id, "cmpl-1");
  EXPECT_EQ(e.index, 3u);
  EXPECT_EQ(e.text, "a\"\\\n\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(e.finish_reason, "stop");
  EXPECT_FALSE(e.has_usage);
  ASSERT_TRUE(
      parse_stream_event(R"( {"choices":[{"delta":{"role":"assistant","content":"hi"},"finish_reason":null}]} )", e));
  EXPECT_EQ(e.text, "hi");
  EXPECT_EQ(e.finish_reason, "");
  ASSERT_TRUE(parse_stream_event(R"({"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":42}})", e));
  EXPECT_EQ(e.n_choices, 0u);
  EXPECT_EQ(e.completion_tokens, 42u);
  ASSERT_TRUE(parse_stream_event(R"({"error":{"message":"x"}})", e));
  EXPECT_TRUE(e.has_error);
}

TEST(StreamEvent, RefusesWhatIsNotOneWholeObject) {
  const std::string whole = R"({"choices":[{"index":0,"text":"abc","finish_reason":null}]})";
  StreamEvent e;
  ASSERT_TRUE(parse_stream_event(whole, e));
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(parse_stream_event(whole.substr(0, n), e)) << n;
  EXPECT_FALSE(parse_stream_event(whole + whole, e));
  EXPECT_FALSE(parse_stream_event("[]", e));
  EXPECT_FALSE(parse_stream_event(R"({"choices":[{"text":"\x"}]})", e));
}

TEST(Metric, SumsOverLabelsAndTellsAbsence) {
  const std::string text = "# HELP a x\na{m=\"1\"} 2\na{m=\"2\"} 3.5\nab 7\n";
  EXPECT_EQ(metric(text, "a"), 5.5);
  EXPECT_EQ(metric(text, "ab"), 7);
  EXPECT_EQ(metric(text, "b"), -1);
}

TEST(WebSocketFrames, ComeBackAsTheyWere) {
  for (const size_t n : {0, 1, 125, 126, 65535, 65536}) {
    const Frame frame{true, 0, kBinary, std::string(n, 'x')};
    FrameReader reader;
    const std::string bytes = client_frame(frame, Mask::kNo);
    reader.feed(bytes.substr(0, bytes.size() / 2));
    EXPECT_FALSE(reader.next().has_value());
    reader.feed(bytes.substr(bytes.size() / 2));
    const auto back = reader.next();
    ASSERT_TRUE(back.has_value()) << n;
    EXPECT_EQ(back->payload, frame.payload);
    EXPECT_EQ(back->opcode, kBinary);
  }
  FrameReader masked;
  masked.feed(client_text("x"));
  EXPECT_FALSE(masked.next().has_value());
  EXPECT_TRUE(masked.broken());
}

}  // namespace
}  // namespace sluice::support
