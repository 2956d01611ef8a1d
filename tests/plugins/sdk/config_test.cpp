#include <gtest/gtest.h>
#include <sluice/sdk/config.hpp>

namespace {
using namespace sluice::sdk;

std::string g_raw;

int32_t cfg_raw(const sluice_config *, const char *key, const char **toml, size_t *len) {
  if (std::string_view(key) != "logit_bias") return SLUICE_E_NOT_FOUND;
  *toml = g_raw.data(), *len = g_raw.size();
  return SLUICE_OK;
}

std::vector<std::pair<int32_t, double>> table(const std::string &raw) {
  g_raw = raw;
  sluice_host_api host{};
  host.cfg_raw = cfg_raw;
  const int some = 0;
  return Config(&host, reinterpret_cast<const sluice_config *>(&some)).table("logit_bias");
}

TEST(SdkConfig, ReadsATableOfIdsAndNumbers) {
  using Pairs = std::vector<std::pair<int32_t, double>>;
  EXPECT_EQ(table(""), Pairs{});
  EXPECT_EQ(table("5 = 1.5\n\"17\" = -100\n  9=+2e1 \n'3' = -inf"),
            (Pairs{{5, 1.5}, {17, -100}, {9, 20}, {3, -HUGE_VAL}}));
}

TEST(SdkConfig, NamesWhatIsNoIdOrNoNumber) {
  for (const char *bad : {"abc = 1", "-1 = 1", "1.5 = 1", "99999999999 = 1", "7 = true", "7 = nan", "7", "7 = ", " = 3",
                          "7 = 1 2", "[sub]"}) {
    try {
      table(bad);
      ADD_FAILURE() << bad;
    } catch (const Error &e) {
      EXPECT_EQ(e.code, SLUICE_E_INVALID_ARGUMENT);
      EXPECT_NE(std::string(e.what()).find("logit_bias"), std::string::npos);
    }
  }
}

TEST(SdkConfig, ANullTableGivesTheFallbacks) {
  const Config none(nullptr, nullptr);
  EXPECT_EQ(none.i64("x", 7), 7);
  EXPECT_EQ(none.str("x", "y"), "y");
  EXPECT_TRUE(none.list("x").empty());
}

}  // namespace
