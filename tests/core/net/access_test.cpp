#include "core/net/access.hpp"

#include <gtest/gtest.h>

namespace sluice::net {
namespace {

TEST(Access, TellsKeysApart) {
  const Access access({{"alpha", "beta"}, {}, {}}, "127.0.0.1");
  EXPECT_TRUE(access.keys_required());
  EXPECT_EQ(access.client_of("alpha"), 1u);
  EXPECT_EQ(access.client_of("beta"), 2u);
  for (const char *wrong : {"", "alph", "alphaa", "Alpha", "beta "}) EXPECT_FALSE(access.client_of(wrong)) << wrong;
}

TEST(Access, ReadsBearerKeys) {
  EXPECT_EQ(bearer_key("Bearer abc"), "abc");
  EXPECT_EQ(bearer_key("bearer   abc"), "abc");
  for (const char *other : {"", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc"}) EXPECT_EQ(bearer_key(other), "") << other;
}

struct HostCase {
  const char *host;
  bool allowed;
};

TEST(Access, KnowsItsOwnNames) {
  const Access access({{}, {"chat.example"}, {}}, "10.1.2.3");
  const HostCase cases[] = {
      {"localhost", true},        {"localhost:8000", true},  {"LOCALHOST", true},           {"127.0.0.1", true},
      {"127.0.0.1:1", true},      {"[::1]", true},           {"[::1]:8000", true},          {"10.1.2.3:80", true},
      {"chat.example", true},     {"Chat.Example:443", true}, {"192.168.7.7", true},        {"evil.example", false},
      {"localhost.evil", false},  {"127.0.0.1.evil", false}, {"chat.example.evil", false},  {"xlocalhost", false},
      {"192.168.7.8", false},     {"10.1.2.4", false},       {"foo.local", false},          {"foo.internal", false},
      {"localhost.", false},
  };
  for (const auto &c : cases) EXPECT_EQ(access.host_allowed(c.host, "192.168.7.7"), c.allowed) << c.host;
}

TEST(Access, JudgesOrigins) {
  const Access access({{}, {}, {"https://chat.example"}}, "127.0.0.1");
  const auto check = [&](std::string origin) { return access.check_origin(&origin, "localhost:8000"); };
  EXPECT_EQ(access.check_origin(nullptr, "localhost:8000"), Access::Origin::kAbsent);
  EXPECT_EQ(check("http://localhost:8000"), Access::Origin::kSame);
  EXPECT_EQ(check("https://chat.example"), Access::Origin::kListed);
  for (const char *bad : {"null", "", "http://localhost", "http://localhost:8001", "http://chat.example", "https://evil",
                          "https://chat.example.evil", "file://", "http://localhost:8000.evil"}) {
    EXPECT_EQ(check(bad), Access::Origin::kRefused) << bad;
  }
}

}  // namespace
}  // namespace sluice::net
