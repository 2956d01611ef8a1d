#include <gtest/gtest.h>
#include <sluice/abi/rng.h>

#include <array>

namespace {

std::array<uint32_t, 4> rng(uint64_t seed, uint32_t position, uint32_t stream, uint32_t index) {
  std::array<uint32_t, 4> out{};
  sluice_rng(seed, position, stream, index, out.data());
  return out;
}

// From the kat_vectors of Random123. Our fourth counter word is always 0, so of the three published vectors only this
// one can be asked for; the other two check the second implementation below, and that one checks ours.
TEST(Rng, GivesTheKnownAnswerOfPhilox) {
  const std::array<uint32_t, 4> want{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
  EXPECT_EQ(rng(0, 0, 0, 0), want);
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  const auto multiply = [](uint32_t a, uint32_t b, uint32_t &high) {
    const uint64_t product = uint64_t{a} * b;
    high = static_cast<uint32_t>(product >> 32);
    return static_cast<uint32_t>(product);
  };
  for (int round = 0; round < 10; ++round) {
    if (round > 0) k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
    uint32_t high0 = 0, high1 = 0;
    const uint32_t low0 = multiply(0xD2511F53u, c[0], high0), low1 = multiply(0xCD9E8D57u, c[2], high1);
    c = {high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0};
  }
  return c;
}

TEST(Rng, TheSecondImplementationIsPhilox) {
  const uint32_t f = 0xffffffffu;
  EXPECT_EQ(philox({f, f, f, f}, {f, f}),
            (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (std::array<uint32_t, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u,
                                     0x24126ea1u}));
}

TEST(Rng, KeyIsTheSeedAndCounterIsPositionStreamIndex) {
  for (uint32_t i = 0; i < 1000; ++i) {
    const uint64_t seed = 0x9E3779B97F4A7C15ull * (i + 1);
    const uint32_t position = i * 7919u, stream = i % 20, index = i * 31u;
    const auto want =
        philox({position, stream, index, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    EXPECT_EQ(rng(seed, position, stream, index), want) << i;
  }
}

TEST(Rng, UnitIsStrictlyBetweenZeroAndOne) {
  EXPECT_GT(sluice_rng_unit(0), 0.0f);
  EXPECT_LT(sluice_rng_unit(0xffffffffu), 1.0f);
  EXPECT_LT(sluice_rng_unit(0), sluice_rng_unit(1u << 9));
}

}  // namespace
