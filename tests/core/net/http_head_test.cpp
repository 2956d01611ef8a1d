#include "core/net/http_head.hpp"

#include <gtest/gtest.h>

#include <random>

#include "core/net/body_decoder.hpp"

namespace sluice::net {
namespace {

TEST(HeadReader, ReadsWhatItAccepts) {
  const std::string bytes =
      "POST /v1/x?q=1 HTTP/1.1\r\nHost: a\r\nX-Y:  v w \r\nContent-Length: 12\r\nConnection: close\r\n\r\nrest";
  HeadReader reader({});
  ASSERT_EQ(reader.scan(bytes), HeadReader::Scan::kComplete);
  EXPECT_EQ(bytes.substr(reader.size()), "rest");
  RequestHead head;
  ASSERT_TRUE(reader.parse(bytes, head));
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.path, "/v1/x");
  EXPECT_EQ(head.query, "q=1");
  EXPECT_EQ(*head.field("x-y"), "v w");
  EXPECT_EQ(head.field("absent"), nullptr);
  EXPECT_EQ(head.framing, Framing::kLength);
  EXPECT_EQ(head.content_length, 12u);
  EXPECT_FALSE(head.keep_alive);
}

TEST(HeadReader, SeesAnUpgradeOnlyWithBothFields) {
  const auto wants = [](const std::string &fields) {
    const std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
    HeadReader reader({});
    EXPECT_EQ(reader.scan(bytes), HeadReader::Scan::kComplete);
    RequestHead head;
    EXPECT_TRUE(reader.parse(bytes, head));
    return head.wants_websocket;
  };
  EXPECT_TRUE(wants("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"));
  EXPECT_FALSE(wants("Upgrade: websocket\r\n"));
  EXPECT_FALSE(wants("Upgrade: h2c\r\nConnection: Upgrade\r\n"));
}

// Whatever the bytes: no crash, and the verdict does not depend on how they arrive.
TEST(HeadReader, VerdictDoesNotDependOnTheCuts) {
  std::mt19937 random(7);
  const std::string alphabet = "GET /HTP1.\r\n\r\n:  aHost\t%;";
  int complete = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = random() % 2 ? "GET / HTTP/1.1\r\nHost: a\r\n" : "";
    const size_t n = random() % 24;
    for (size_t i = 0; i < n; ++i) bytes += alphabet[random() % alphabet.size()];
    HeadReader whole({}), cut({});
    const auto verdict = whole.scan(bytes);
    auto last = HeadReader::Scan::kIncomplete;
    for (size_t end = 1; end <= bytes.size() && last == HeadReader::Scan::kIncomplete; ++end) last = cut.scan(bytes.substr(0, end));
    ASSERT_EQ(static_cast<int>(last), static_cast<int>(verdict)) << bytes;
    if (verdict != HeadReader::Scan::kComplete) continue;
    ++complete;
    ASSERT_EQ(whole.size(), cut.size());
    RequestHead a, b;
    ASSERT_EQ(whole.parse(bytes, a), cut.parse(bytes, b));
  }
  EXPECT_GT(complete, 20);
}

TEST(BodyDecoder, TakesAnyCutOfAChunkedBody) {
  RequestHead head;
  head.framing = Framing::kChunked;
  const std::string bytes = "5\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\nX: y\r\n\r\nNEXT";
  for (size_t step = 1; step < bytes.size(); ++step) {
    BodyDecoder decoder(head, {});
    std::string in, body;
    auto status = BodyDecoder::Status::kMore;
    for (size_t at = 0; at < bytes.size() && status == BodyDecoder::Status::kMore; at += step) {
      in += bytes.substr(at, step);
      size_t consumed = 0;
      status = decoder.feed(in, consumed, body);
      in.erase(0, consumed);
    }
    ASSERT_EQ(static_cast<int>(status), static_cast<int>(BodyDecoder::Status::kDone));
    EXPECT_EQ(body, "hello world");
    EXPECT_TRUE(std::string("NEXT").starts_with(in));
  }
}

}  // namespace
}  // namespace sluice::net
