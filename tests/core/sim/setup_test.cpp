#include <filesystem>
#include <fstream>

#include "tests/core/sim/laboratory.hpp"

namespace sluice::sim::testing {
namespace {

TEST(Setup, EveryFileInConfigsIsAccepted) {
  int n = 0;
  for (const auto &entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/configs/sim")) {
    EXPECT_GE(shipped(entry.path().filename().string()).policies.size(), 2U) << entry.path();
    ++n;
  }
  EXPECT_GE(n, 5);
}

TEST(Setup, CardsAreThoseOfTheirNames) {
  const auto s = shipped("setup_s.toml"), r = shipped("setup_r.toml");
  const auto ns = [](const sim::Setup &setup, uint32_t tokens, uint64_t context) {
    return StepModel::create(setup.device)->ns(tokens, context);
  };
  EXPECT_EQ(ns(s, 16, 10'000), 28'300'000U);
  EXPECT_EQ(ns(s, 2048, 0), 268'240'000U);
  EXPECT_EQ(ns(r, 32, 100'000), 11'900'000U);
  EXPECT_EQ(kv_blocks(s), 762U);
  EXPECT_EQ(host_blocks(s), 3048U);
  EXPECT_EQ(kv_blocks(r), 25'000U);
}

class File : public ::testing::Test {
 protected:
  std::vector<std::string> problems_of(const std::string &text) {
    std::ofstream(path_) << text;
    std::vector<config::Problem> problems;
    read_setup(path_, problems);
    std::vector<std::string> words;
    for (const auto &problem : problems) words.push_back(config::to_string(problem));
    return words;
  }
  ~File() override { std::remove(path_.c_str()); }
  const std::string path_ = ::testing::TempDir() + "sim_setup_" + std::to_string(::getpid()) + ".toml";
  const std::string good_ = "[load]\nrates_per_s = [1]\n[lengths]\ninput = [{ mean = 10 }]\noutput = [{ mean = 10 }]\n"
                            "[device]\nfloor_us = 1\nkv_tokens = 1600\n[[policies]]\nuse = \"fcfs\"\n";
};

TEST_F(File, ErrorsNameKeyValueLineAndRemedy) {
  EXPECT_TRUE(problems_of(good_).empty());
  const auto one = [&](const std::string &text) {
    const auto all = problems_of(text);
    return all.size() == 1 ? all[0] : std::to_string(all.size()) + " problems";
  };
  EXPECT_EQ(one("requests = 0\n" + good_), path_ + ":1: requests is 0; it must be an integer 1..100000000");
  EXPECT_EQ(one("request = 5\n" + good_), path_ + ":1: request is not a key of a setup; did you mean requests?");
  EXPECT_EQ(one(good_ + "[engine]\nmax_seqs = \"many\"\n"), path_ + ":12: engine.max_seqs is 'many'; it must be an integer 1..65536");
  EXPECT_NE(one(good_ + "[engine]\nmax_seqs = 64\ntoken_budget = 32\n").find("token_budget is 32; it must be at least"), std::string::npos);
  EXPECT_NE(one(good_ + "[[policies]]\nuse = \"fcfs\"\n").find("two policies are called fcfs"), std::string::npos);
}

TEST_F(File, GarbageIsRefused) {
  EXPECT_EQ(problems_of("= =").size(), 1U);
  EXPECT_EQ(problems_of("load = 5\n" + good_.substr(good_.find("[lengths]"))).size(), 1U);
  EXPECT_FALSE(problems_of(std::string(100, '[')).empty());
  EXPECT_FALSE(problems_of("[[policies]]\nuse = 5\n").empty());
  std::vector<config::Problem> problems;
  read_setup("/nonexistent/setup.toml", problems);
  EXPECT_EQ(problems.size(), 1U);
}

}  // namespace
}  // namespace sluice::sim::testing
