// Runs a fuzz target without a fuzzer.
//
//   replay                   the seeds, then 3000 changed ones, the same every time
//   replay FILE...           these inputs: a past crash, a corpus
//   replay --write FOLDER    writes the seeds, for libFuzzer to start from
#include "tests/fuzz/fuzz_target.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>

namespace {

void run(const std::string &input) {
  const std::vector<uint8_t> exact(input.begin(), input.end());  // on the heap, so that a sanitizer sees its end
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::string mutate(std::string input, const std::vector<std::string> &seeds, std::mt19937_64 &random) {
  static constexpr uint64_t kNumbers[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 42, 1ull << 63, ~0ull};
  for (uint64_t n = 1 + random() % 4; n > 0; --n) {
    if (input.empty()) input = "x";
    const size_t at = random() % input.size();
    switch (random() % 6) {
      case 0:
        input[at] = static_cast<char>(random());
        break;
      case 1:
        input.erase(at, 1 + random() % 16);
        break;
      case 2:
        input.insert(at, 1 + random() % 16, static_cast<char>(random()));
        break;
      case 3:
        input.insert(at, input.substr(random() % input.size(), random() % 64));
        break;
      case 4: {
        const std::string &other = seeds[random() % seeds.size()];
        if (!other.empty()) input.insert(at, other.substr(random() % other.size(), random() % 64));
        break;
      }
      default:
        for (size_t i = 0; i < 8 && at + i < input.size(); ++i)
          input[at + i] = static_cast<char>(kNumbers[random() % std::size(kNumbers)] >> (8 * i));
        break;
    }
  }
  return input;
}

void write_seeds(const std::filesystem::path &folder) {
  std::filesystem::create_directories(folder);
  size_t n = 0;
  for (const std::string &seed : fuzz_seeds()) std::ofstream(folder / std::to_string(n++), std::ios::binary) << seed;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--write") {
    write_seeds(argv[2]);
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    run({std::istreambuf_iterator<char>(in), {}});
  }
  if (argc > 1) return 0;
  const auto seeds = fuzz_seeds();
  std::mt19937_64 random(1);
  for (const std::string &seed : seeds) run(seed);
  for (int i = 0; i < 3000; ++i) run(mutate(seeds[random() % seeds.size()], seeds, random));
  return 0;
}
