// Bytes that no honest client sends, against the real server: whatever two parsers could read in two ways gets one
// answer and a closed connection.
#include <gtest/gtest.h>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::e2e {
namespace {

// Stands behind every vector; must never be answered.
constexpr std::string_view kSmuggled = "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

struct Vector {
  const char *name;
  std::string bytes;
  std::string body = {};
};

std::string post(const std::string &headers) {
  return "POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + headers + "\r\n";
}

std::vector<Vector> vectors() {
  return {
      {"length and chunked", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"},
      {"chunked and length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), "0\r\n\r\n"},
      {"gzip and length", post("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n"), "hello"},
      {"chunked, identity", post("Transfer-Encoding: chunked, identity\r\n"), "0\r\n\r\n"},
      {"identity, chunked", post("Transfer-Encoding: identity, chunked\r\n"), "0\r\n\r\n"},
      {"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), "0\r\n\r\n"},
      {"a quoted coding", post("Transfer-Encoding: \"chunked\"\r\n"), "0\r\n\r\n"},
      {"xchunked", post("Transfer-Encoding: xchunked\r\n"), "0\r\n\r\n"},
      {"a vertical tab before the coding",
       post("Transfer-Encoding: \x0b"
            "chunked\r\n"),
       "0\r\n\r\n"},
      {"chunked in HTTP/1.0",
       "POST /tokenize HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: "
       "chunked\r\n\r\n",
       "0\r\n\r\n"},
      {"two equal lengths", post("Content-Length: 2\r\nContent-Length: 2\r\n"), "{}"},
      {"two lengths", post("Content-Length: 2\r\nContent-Length: 7\r\n"), "{}"},
      {"a list of lengths", post("Content-Length: 2, 2\r\n"), "{}"},
      {"a signed length", post("Content-Length: +2\r\n"), "{}"},
      {"a negative length", post("Content-Length: -1\r\n"), "{}"},
      {"a hexadecimal length", post("Content-Length: 0x2\r\n"), "{}"},
      {"a length of 2^64 + 2", post("Content-Length: 18446744073709551618\r\n"), "{}"},
      {"an empty length", post("Content-Length:\r\n"), "{}"},
      {"a space before the colon", post("Content-Length : 2\r\n"), "{}"},
      {"a folded header", post("X-Folded: a\r\n b\r\nContent-Length: 2\r\n"), "{}"},
      {"a header without a colon", post("Content-Length\r\n"), "{}"},
      {"an empty header name", post(": 2\r\n"), "{}"},
      {"a bare line feed", "POST /tokenize HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 2\n\n", "{}"},
      {"a bare carriage return", post("X-A: b\rContent-Length: 2\r\n"), "{}"},
      {"a NUL in a header", post(std::string("X-A: b\0c\r\n", 10))},
      {"no host", "GET /health HTTP/1.1\r\n\r\n"},
      {"two hosts", "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"an absolute target", "GET http://127.0.0.1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"an authority target", "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"two spaces in the request line", "GET  /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"a tab in the request line", "GET\t/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"HTTP/1.10", "GET /health HTTP/1.10\r\nHost: 127.0.0.1\r\n\r\n"},
      {"HTTP/2.0", "GET /health HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n"},
      {"lower-case http", "GET /health http/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"a leading empty line", "\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"},
      {"a chunk extension", post("Transfer-Encoding: chunked\r\n"), "2;a=b\r\n{}\r\n0\r\n\r\n"},
      {"a line feed in a chunk extension", post("Transfer-Encoding: chunked\r\n"), "2;\n{}\r\n0\r\n\r\n"},
      {"a chunk size with a sign", post("Transfer-Encoding: chunked\r\n"), "+2\r\n{}\r\n0\r\n\r\n"},
      {"a chunk size with 0x", post("Transfer-Encoding: chunked\r\n"), "0x2\r\n{}\r\n0\r\n\r\n"},
      {"a chunk size of 2^64", post("Transfer-Encoding: chunked\r\n"), "10000000000000000\r\n{}\r\n0\r\n\r\n"},
      {"a chunk longer than it says", post("Transfer-Encoding: chunked\r\n"), "1\r\n{}\r\n0\r\n\r\n"},
      {"a chunk that ends in a line feed", post("Transfer-Encoding: chunked\r\n"), "2\r\n{}\n0\r\n\r\n"},
      {"a chunk size ended by a line feed", post("Transfer-Encoding: chunked\r\n"), "2\n{}\r\n0\r\n\r\n"},
  };
}

class Smuggling : public testing::Test {
 protected:
  static support::ServerSetup setup() {
    support::ServerSetup s;
    s.server = "log_level = \"error\"\n";
    return s;
  }
  support::ServerProcess server_{setup()};
};

size_t count(const std::string &text, std::string_view word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

TEST_F(Smuggling, OneAnswerAndAClosedConnection) {
  for (const Vector &vector : vectors()) {
    SCOPED_TRACE(vector.name);
    support::TcpClient client(server_.port());
    client.try_send(vector.bytes + vector.body + std::string(kSmuggled));
    const std::string answer = client.receive_all();
    EXPECT_EQ(count(answer, "HTTP/1.1 "), 1u) << answer;
    support::ResponseReader reader;
    reader.feed(answer);
    ASSERT_TRUE(reader.complete()) << answer;
    EXPECT_GE(reader.status(), 400) << answer;
    EXPECT_NE(reader.status(), 404) << answer;
    EXPECT_LE(reader.status(), 505) << answer;
    EXPECT_EQ(reader.header("connection"), "close");
  }
}

TEST_F(Smuggling, HonestNeighboursAreBothAnswered) {
  support::TcpClient client(server_.port());
  const std::string body = R"({"content":"abc"})";
  client.send(support::request_bytes("GET", "/health") + support::request_bytes("GET", "/v1/models"));
  std::string left;
  EXPECT_EQ(support::read_response(client, left).status, 200);
  const auto models = support::read_response(client, left);
  EXPECT_EQ(models.status, 200);
  EXPECT_NE(models.body.find("\"test\""), std::string::npos) << models.body;
}

TEST_F(Smuggling, AnAnswerBeforeTheBodyIsReadEndsTheConnection) {
  support::TcpClient client(server_.port());
  client.send("POST /nothing/here HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " +
              std::to_string(kSmuggled.size()) + "\r\n\r\n" + std::string(kSmuggled));
  const std::string answer = client.receive_all();
  EXPECT_EQ(count(answer, "HTTP/1.1 "), 1u) << answer;
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 404 ")) << answer;
}

TEST_F(Smuggling, OversizeIsRefusedBeforeItIsRead) {
  support::TcpClient head(server_.port());
  head.try_send("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + std::string(100'000, 'a'));
  EXPECT_TRUE(head.receive().starts_with("HTTP/1.1 431 "));
  support::TcpClient body(server_.port());
  body.send(post("Content-Length: 1000000000\r\n"));
  EXPECT_TRUE(body.receive().starts_with("HTTP/1.1 413 "));
  support::TcpClient target(server_.port());
  target.send("GET /" + std::string(4000, 'a') + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
  EXPECT_TRUE(target.receive().starts_with("HTTP/1.1 414 "));
}

TEST_F(Smuggling, ForeignHostsAndOriginsAreRefused) {
  support::TcpClient rebind(server_.port());
  rebind.send("GET /v1/models HTTP/1.1\r\nHost: attacker.example\r\n\r\n");
  EXPECT_TRUE(rebind.receive().starts_with("HTTP/1.1 421 "));
  for (const char *origin : {"https://attacker.example", "null"}) {
    const auto response = support::exchange(server_.port(), "GET", "/v1/models", {}, {{"Origin", origin}});
    EXPECT_EQ(response.status, 403) << origin;
  }
}

}  // namespace
}  // namespace sluice::e2e
