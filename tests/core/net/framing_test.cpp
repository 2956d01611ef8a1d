// Raw bytes against a live server: what two parsers could read in two ways gets exactly one answer, and the connection
// is closed, so that nothing behind it is ever taken for a request.
#include <gtest/gtest.h>

#include "tests/core/net/test_server.hpp"

namespace sluice {
namespace {

using test::RawClient;
using test::TestServer;

const std::string kSmuggled = "GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Vector {
  std::string name, bytes;
  int status;
};

std::string head(const std::string &line, const std::string &fields, const std::string &rest = "") {
  return line + "\r\n" + fields + "\r\n" + rest;
}
std::string echo(const std::string &fields, const std::string &rest = "") {
  return head("POST /echo HTTP/1.1", "Host: localhost\r\nContent-Type: application/json\r\n" + fields, rest);
}
std::string chunked(const std::string &rest) { return echo("Transfer-Encoding: chunked\r\n", rest); }
std::string ok(const std::string &fields) { return head("GET /ok HTTP/1.1", fields); }
std::string line(const std::string &request_line) { return head(request_line, "Host: localhost\r\n"); }

std::vector<Vector> refused() {
  const std::string nul(1, '\0');
  std::string many_chunks;
  for (int i = 0; i < 40; ++i) many_chunks += "1\r\nx\r\n";
  return {
      // Two lengths.
      {"cl then te", echo("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      {"te then cl", echo("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), 400},
      {"te then cl 0", echo("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"), 400},
      {"cl twice, different", echo("Content-Length: 4\r\nContent-Length: 5\r\n", "abcde"), 400},
      {"cl twice, same", echo("Content-Length: 4\r\nContent-Length: 4\r\n", "abcd"), 400},
      {"cl list", echo("Content-Length: 4, 4\r\n", "abcd"), 400},
      {"te twice", echo("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      // Lengths that are no lengths.
      {"cl plus", echo("Content-Length: +4\r\n", "abcd"), 400},
      {"cl minus", echo("Content-Length: -4\r\n", "abcd"), 400},
      {"cl minus zero", echo("Content-Length: -0\r\n"), 400},
      {"cl hex", echo("Content-Length: 0x4\r\n", "abcd"), 400},
      {"cl inner space", echo("Content-Length: 4 4\r\n", "abcd"), 400},
      {"cl empty", echo("Content-Length:\r\n"), 400},
      {"cl point", echo("Content-Length: 4.0\r\n", "abcd"), 400},
      {"cl exponent", echo("Content-Length: 1e1\r\n", "abcd"), 400},
      {"cl overflow", echo("Content-Length: 18446744073709551620\r\n", "abcd"), 400},
      {"cl huge", echo("Content-Length: 99999999999999999999999999\r\n", "abcd"), 400},
      {"cl semicolon", echo("Content-Length: 4;\r\n", "abcd"), 400},
      {"cl quoted", echo("Content-Length: \"4\"\r\n", "abcd"), 400},
      {"cl vertical tab", echo("Content-Length: \x0b""4\r\n", "abcd"), 400},
      // Codings that are not exactly chunked.
      {"te gzip", echo("Transfer-Encoding: gzip\r\n", "abcd"), 400},
      {"te gzip with cl", echo("Transfer-Encoding: gzip\r\nContent-Length: 4\r\n", "abcd"), 400},
      {"te gzip, chunked", echo("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400},
      {"te chunked, gzip", echo("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), 400},
      {"te chunked, identity", echo("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400},
      {"te identity", echo("Transfer-Encoding: identity\r\n", "abcd"), 400},
      {"te identity with cl", echo("Transfer-Encoding: identity\r\nContent-Length: 4\r\n", "abcd"), 400},
      {"te empty", echo("Transfer-Encoding:\r\n", "0\r\n\r\n"), 400},
      {"te chunked twice in a list", echo("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400},
      {"te quoted", echo("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 400},
      {"te parameter", echo("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 400},
      {"te xchunked", echo("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400},
      {"te trailing comma", echo("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"), 400},
      {"te vertical tab", echo("Transfer-Encoding: \x0b""chunked\r\n", "0\r\n\r\n"), 400},
      {"te in 1.0", head("POST /echo HTTP/1.0", "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      // Names that hide a field from one of two parsers.
      {"space before colon, te", echo("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400},
      {"space before colon, cl", echo("Content-Length : 4\r\n", "abcd"), 400},
      {"tab before colon", echo("Content-Length\t: 4\r\n", "abcd"), 400},
      {"empty name", ok("Host: localhost\r\n: x\r\n"), 400},
      {"no colon", ok("Host: localhost\r\nnonsense\r\n"), 400},
      {"name with slash", ok("Host: localhost\r\na/b: x\r\n"), 400},
      {"name with high byte", ok("Host: localhost\r\n\xc3\xa9: x\r\n"), 400},
      {"folded value", ok("Host: localhost\r\nX: a\r\n b\r\n"), 400},
      {"folded te", echo("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400},
      {"folded with tab", ok("Host: localhost\r\nX: a\r\n\tb\r\n"), 400},
      {"first header folded", ok(" Host: localhost\r\n"), 400},
      // Line ends and bytes.
      {"bare lf lines", "GET /ok HTTP/1.1\nHost: localhost\n\n", 400},
      {"bare lf in one header", "GET /ok HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400},
      {"bare lf at the end", "GET /ok HTTP/1.1\r\nHost: localhost\r\n\n", 400},
      {"bare cr in a value", ok("Host: localhost\r\nX: a\rb\r\n"), 400},
      {"cr cr lf", "GET /ok HTTP/1.1\r\r\nHost: localhost\r\n\r\n", 400},
      {"nul in a value", ok("Host: localhost\r\nX: a" + nul + "b\r\n"), 400},
      {"nul in a name", ok("Host: localhost\r\nX" + nul + ": b\r\n"), 400},
      {"nul in the target", "GET /o" + nul + "k HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"del in a value", ok("Host: localhost\r\nX: a\x7f\r\n"), 400},
      {"escape in a value", ok("Host: localhost\r\nX: \x1b[2J\r\n"), 400},
      {"leading empty line", "\r\nGET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"binary", "\x16\x03\x01\x02", 400},
      // Host.
      {"no host", ok(""), 400},
      {"two hosts", ok("Host: localhost\r\nHost: localhost\r\n"), 400},
      {"two hosts in a list", ok("Host: localhost, evil\r\n"), 400},
      {"empty host", ok("Host:\r\n"), 400},
      {"host with path", ok("Host: localhost/x\r\n"), 400},
      {"host with user", ok("Host: a@localhost\r\n"), 400},
      {"host with space", ok("Host: local host\r\n"), 400},
      {"host with empty port", ok("Host: localhost:\r\n"), 400},
      {"host with bad port", ok("Host: localhost:8x\r\n"), 400},
      {"host with open bracket", ok("Host: [::1\r\n"), 400},
      // Request lines.
      {"two spaces", line("GET  /ok HTTP/1.1"), 400},
      {"trailing space", line("GET /ok HTTP/1.1 "), 400},
      {"leading space", line(" GET /ok HTTP/1.1"), 400},
      {"tab", line("GET\t/ok HTTP/1.1"), 400},
      {"no version", line("GET /ok"), 400},
      {"no target", line("GET HTTP/1.1"), 400},
      {"method with at", line("G@T /ok HTTP/1.1"), 400},
      {"method too long", line("ABCDEFGHIJKLMNOPQRSTUVWXYZ /ok HTTP/1.1"), 400},
      {"absolute target", line("GET http://localhost/ok HTTP/1.1"), 400},
      {"authority target", line("CONNECT localhost:80 HTTP/1.1"), 400},
      {"star with get", line("GET * HTTP/1.1"), 400},
      {"relative target", line("GET ok HTTP/1.1"), 400},
      {"fragment", line("GET /ok#x HTTP/1.1"), 400},
      {"quote in target", line("GET /\"ok HTTP/1.1"), 400},
      {"backslash in target", line("GET /ok\\x HTTP/1.1"), 400},
      {"high byte in target", line("GET /\xc3\xa9 HTTP/1.1"), 400},
      {"half an escape", line("GET /%4 HTTP/1.1"), 400},
      {"wrong escape", line("GET /%zz HTTP/1.1"), 400},
      {"encoded nul", line("GET /%00 HTTP/1.1"), 400},
      {"http 0.9", "GET /ok\r\n\r\n", 400},
      {"http 2", line("GET /ok HTTP/2.0"), 505},
      {"http 1.2", line("GET /ok HTTP/1.2"), 505},
      {"http lower case", line("GET /ok http/1.1"), 400},
      {"http 1.10", line("GET /ok HTTP/1.10"), 400},
      {"http2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      // Chunks.
      {"chunk extension", chunked("1;a=b\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk extension with lf", chunked("1;\nx\r\n0\r\n\r\n"), 400},
      {"chunk size empty", chunked("\r\n"), 400},
      {"chunk size minus", chunked("-1\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size plus", chunked("+1\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size 0x", chunked("0x1\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size space", chunked("1 \r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size leading space", chunked(" 1\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size not hex", chunked("g\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size overflow", chunked("fffffffffffffffff\r\n"), 400},
      {"chunk size 16 f", chunked("ffffffffffffffff\r\n"), 413},
      {"chunk size too long", chunked("00000000000000000000001\r\nx\r\n0\r\n\r\n"), 400},
      {"chunk size bare lf", chunked("1\nx\r\n0\r\n\r\n"), 400},
      {"chunk size bare cr", chunked("1\rx\r\n0\r\n\r\n"), 400},
      {"chunk data too long", chunked("1\r\nxy\r\n0\r\n\r\n"), 400},
      {"chunk data end lf", chunked("1\r\nx\n0\r\n\r\n"), 400},
      {"trailer without colon", chunked("0\r\nnonsense\r\n\r\n"), 400},
      {"trailer bare lf", chunked("0\r\nX: y\n\r\n"), 400},
      {"trailer name space", chunked("0\r\nX : y\r\n\r\n"), 400},
      {"trailer nul", chunked("0\r\nX: " + nul + "\r\n\r\n"), 400},
      {"trailers too long", chunked("0\r\n" + std::string("X: ") + std::string(300, 'y') + "\r\n\r\n"), 400},
      {"too many chunks", chunked(many_chunks + "0\r\n\r\n"), 400},
      // Sizes.
      {"body over the limit, announced", echo("Content-Length: 5000\r\n"), 413},
      {"body over the limit, chunked", chunked("7d0\r\n" + std::string(2000, 'x') + "\r\n1\r\nx\r\n0\r\n\r\n"), 413},
      {"head too large", ok("Host: localhost\r\nX: " + std::string(9000, 'x') + "\r\n"), 431},
      {"too many fields", ok("Host: localhost\r\n" + [] { std::string s; for (int i = 0; i < 70; ++i) s += "X: y\r\n"; return s; }()), 431},
      {"target too long", line("GET /" + std::string(3000, 'x') + " HTTP/1.1"), 414},
      {"unknown expectation", echo("Expect: 200-ok\r\nContent-Length: 1\r\n", "x"), 417},
  };
}

net::ServerOptions small_limits() {
  net::ServerOptions options;
  options.io_threads = 1;
  options.limits.body_bytes = 2000;
  options.limits.chunks = 32;
  options.limits.trailer_bytes = 256;
  return options;
}

TEST(Framing, HasEnoughVectors) { EXPECT_GE(refused().size(), 80u); }

TEST(Framing, RefusedRequestsGetOneAnswerAndTheConnectionCloses) {
  TestServer server(small_limits());
  for (const auto &v : refused()) {
    SCOPED_TRACE(v.name);
    RawClient client(server.port());
    client.send(v.bytes + kSmuggled);
    const auto response = client.response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, v.status);
    EXPECT_EQ(response->headers.at("connection"), "close");
    EXPECT_NE(response->body.find("\"message\":"), std::string::npos);
    EXPECT_TRUE(client.closed());
    EXPECT_EQ(client.buffered(), "") << "a second answer";
  }
  EXPECT_EQ(server.handled, 0);
}

TEST(Framing, RefusedOneByteAtATimeTheSame) {
  TestServer server(small_limits());
  for (const auto &v : refused()) {
    if (v.bytes.size() > 400) continue;
    SCOPED_TRACE(v.name);
    RawClient client(server.port());
    for (const char c : v.bytes) client.send(std::string_view(&c, 1));
    client.send(kSmuggled);
    const auto response = client.response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, v.status);
    EXPECT_TRUE(client.closed());
    EXPECT_EQ(client.buffered(), "");
  }
  EXPECT_EQ(server.handled, 0);
}

TEST(Framing, GoodRequestsPass) {
  TestServer server(small_limits());
  const Vector good[] = {
      {"plain", ok("Host: localhost\r\n"), 200},
      {"port", ok("Host: localhost:1234\r\n"), 200},
      {"space around values", ok("Host:   localhost\t\r\nX:\t a \r\n"), 200},
      {"no space after colon", ok("Host:localhost\r\n"), 200},
      {"high bytes in a value", ok("Host: localhost\r\nX: \xc3\xa9\r\n"), 200},
      {"query", line("GET /ok?a=b&c=%20 HTTP/1.1"), 200},
      {"length", echo("Content-Length: 4\r\n", "abcd"), 200},
      {"length with zeros", echo("Content-Length: 0004\r\n", "abcd"), 200},
      {"length zero", echo("Content-Length: 0\r\n"), 200},
      {"chunked", chunked("4\r\nabcd\r\n0\r\n\r\n"), 200},
      {"chunked upper case", echo("TRANSFER-ENCODING: Chunked\r\n", "4\r\nabcd\r\n0\r\n\r\n"), 200},
      {"chunk size with zeros", chunked("0004\r\nabcd\r\n000\r\n\r\n"), 200},
      {"chunk size hex", chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), 200},
      {"trailers are dropped", chunked("1\r\nx\r\n0\r\nContent-Length: 7\r\nHost: evil\r\n\r\n"), 200},
      {"get with body", head("GET /ok HTTP/1.1", "Host: localhost\r\nContent-Length: 3\r\n", "abc"), 200},
  };
  for (const auto &v : good) {
    SCOPED_TRACE(v.name);
    RawClient client(server.port());
    client.send(v.bytes + kSmuggled);
    const auto first = client.response(), second = client.response();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->status, v.status);
    EXPECT_EQ(second->body, "ok");
  }
}

TEST(Framing, Http10ClosesAndNeedsNoHost) {
  TestServer server(small_limits());
  RawClient client(server.port());
  client.send("GET /ok HTTP/1.0\r\n\r\n" + kSmuggled);
  const auto response = client.response();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(client.buffered(), "");
}

}  // namespace
}  // namespace sluice
