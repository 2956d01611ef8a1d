// How close one-sequence decode on the cpu backend comes to the memory's read bandwidth, on the same threads.
//
// Interleaves the two, ROUNDS times: a stream over a buffer of the weights' size, then DECODE steps of one token.
// Prints medians with minimum and maximum. It cannot pass or fail by time. Without a MODEL it writes a random one of the
// preset's shape to the temporary folder and leaves it there for the next run.
//
//   cpu_decode [MODEL.gguf] [--preset tinyllama-1.1b] [--type q8_0] [--threads N] [--context 128] [--batch 1]
//              [--tokens 16] [--rounds 5] [--prompt 512]
#include "core/model_file/gguf.hpp"
#include "core/model_file/synth.hpp"
#include "tests/backends/plugin_model.hpp"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <thread>

#include <ctime>

namespace sluice::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint32_t kBlockTokens = 32;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
/// Of all threads of the process: what is left of a comparison when others use the machine too.
double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Figures {
  std::vector<double> values;
  double median() {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  void print(const char *name, const char *unit) {
    const double m = median();
    std::printf("%-34s %8.2f %-8s (min %.2f, max %.2f)\n", name, m, unit, values.front(), values.back());
  }
};

__attribute__((target("avx2"))) uint64_t read_avx2(const std::byte *p, size_t n) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= n; i += 128)
    for (size_t j = 0; j < 4; ++j)
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + i + 32 * j)));
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3));
}
uint64_t read_sse2(const std::byte *p, size_t n) {
  __m128i sum[4] = {};
  for (size_t i = 0; i + 64 <= n; i += 64)
    for (size_t j = 0; j < 4; ++j)
      sum[j] = _mm_xor_si128(sum[j], _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + i + 16 * j)));
  const __m128i all = _mm_xor_si128(_mm_xor_si128(sum[0], sum[1]), _mm_xor_si128(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(all));
}

/// GB/s of one pass over the buffer on all workers, in the pieces of a weight matrix.
double stream(Host &host, const std::vector<std::byte> &buffer) {
  struct Job {
    const std::vector<std::byte> &buffer;
    uint64_t sink[64] = {};
  } job{buffer, {}};
  constexpr size_t kPiece = size_t{512} << 10;
  const auto start = Clock::now();
  host.pool.run(
      static_cast<uint32_t>(buffer.size() / kPiece),
      [](void *ctx, uint32_t i, uint32_t worker) {
        Job &j = *static_cast<Job *>(ctx);
        const std::byte *p = j.buffer.data() + i * kPiece;
        j.sink[worker % 64] ^= __builtin_cpu_supports("avx2") ? read_avx2(p, kPiece) : read_sse2(p, kPiece);
      },
      &job);
  return static_cast<double>(buffer.size()) / seconds_since(start) / 1e9;
}

uint32_t blocks_for(uint32_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

/// One step of `batch` sequences with n tokens each after kv_len cached ones; draws greedily for the last token of
/// each.
void step(PluginModel &m, uint32_t batch, uint32_t n, uint32_t kv_len) {
  std::vector<SequenceInput> sequences(batch);
  for (uint32_t s = 0; s < batch; ++s) {
    for (uint32_t i = 0; i < n; ++i)
      sequences[s].tokens.push_back(static_cast<int32_t>((kv_len + 7 * i + s) % 100 + 3));
    sequences[s].kv_len = kv_len;
    for (uint32_t b = 0; b < blocks_for(kv_len + n); ++b) sequences[s].blocks.push_back(b * batch + s);
  }
  StepInput input(sequences, kBlockTokens);
  std::vector<uint32_t> last;
  for (uint32_t s = 0; s < batch; ++s) last.push_back((s + 1) * n - 1);
  input.row_want.assign(batch, SLUICE_ROW_TOKEN);
  input.step.n_rows = batch;
  input.step.row_token = last.data();
  sluice_ticket ticket = 0;
  if (m.submit(input.step, &ticket) != SLUICE_OK) throw std::runtime_error(m.status.msg);
  sluice_step_result result{};
  result.struct_size = sizeof result;
  if (m.table->wait(m.model, ticket, UINT64_MAX, &result, &m.status) != SLUICE_OK)
    throw std::runtime_error(m.status.msg);
  m.table->release(m.model, ticket);
}

std::map<std::string, std::string> arguments(int argc, char **argv) {
  std::map<std::string, std::string> a{{"--preset", "tinyllama-1.1b"},
                                       {"--type", "q8_0"},
                                       {"--context", "128"},
                                       {"--tokens", "16"},
                                       {"--rounds", "5"},
                                       {"--batch", "1"},
                                       {"--prompt", "512"},
                                       {"--threads", std::to_string(std::thread::hardware_concurrency())},
                                       {"model", ""}};
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--", 2) != 0)
      a["model"] = argv[i];
    else if (a.count(argv[i]) != 0 && i + 1 < argc)
      a[argv[i]] = argv[i + 1], ++i;
    else
      throw std::runtime_error(std::string("unknown or incomplete argument ") + argv[i]);
  }
  return a;
}

/// Bytes of the matrices that every token reads: all but the table whose single row is looked up.
uint64_t bytes_per_token(const std::string &path) {
  const auto file = model_file::Gguf::open(path);
  if (!file) throw std::runtime_error(file.error().message);
  uint64_t bytes = 0;
  const bool tied = file->find_tensor("output.weight") == nullptr;
  for (const model_file::Tensor &t : file->tensors())
    if (tied || t.name != "token_embd.weight") bytes += t.bytes.size();
  return bytes;
}

int bench(int argc, char **argv) {
  auto a = arguments(argc, argv);
  const auto number = [&](const char *key) { return static_cast<uint32_t>(std::stoul(a[key])); };
  std::string path = a["model"];
  if (path.empty()) {
    path = std::filesystem::temp_directory_path() / ("sluice-" + a["--preset"] + "-" + a["--type"] + ".gguf");
    if (!std::filesystem::exists(path)) {
      const auto type = model_file::type_from_name(a["--type"]);
      if (!type) throw std::runtime_error("unknown type " + a["--type"]);
      model_file::SynthOptions options;
      options.preset = a["--preset"];
      options.type = *type;
      std::printf("writing %s\n", path.c_str());
      if (const auto done = model_file::synthesize(options, path); !done)
        throw std::runtime_error(done.error().message);
    }
  }
  const uint32_t threads = number("--threads"), context = number("--context"), batch = number("--batch");
  const uint32_t tokens = number("--tokens"), prompt = number("--prompt");
  Host host(threads);
  PluginModel model(host, "cpu", path);
  const uint32_t blocks = batch * blocks_for(std::max(context + tokens, prompt));
  model.configure(std::max({prompt, batch * context, 64u}), blocks, kBlockTokens, SLUICE_DT_F16);
  const uint64_t bytes = bytes_per_token(path);
  const std::vector<std::byte> buffer(bytes, std::byte{1});
  step(model, batch, context, 0);
  Figures bandwidth, decode, prefill, cpu_ratio;
  for (uint32_t round = 0; round < number("--rounds"); ++round) {
    const double cpu_start = cpu_seconds();
    bandwidth.values.push_back(stream(host, buffer));
    const double cpu_stream = cpu_seconds() - cpu_start;
    auto start = Clock::now();
    for (uint32_t t = 0; t < tokens; ++t) step(model, batch, 1, context + t);
    decode.values.push_back(seconds_since(start) / tokens);
    cpu_ratio.values.push_back(cpu_stream / ((cpu_seconds() - cpu_start - cpu_stream) / tokens));
    if (prompt == 0) continue;
    start = Clock::now();
    step(model, 1, prompt, 0);
    prefill.values.push_back(prompt / seconds_since(start));
    step(model, batch, context, 0);
  }
  std::printf("%s, %u threads, %u cached tokens, batch %u, %.3f GB of weights per step\n", path.c_str(), threads,
              context, batch, static_cast<double>(bytes) / 1e9);
  Figures speed, used;
  for (const double s : decode.values)
    speed.values.push_back(batch / s), used.values.push_back(static_cast<double>(bytes) / s / 1e9);
  bandwidth.print("read bandwidth", "GB/s");
  used.print("weights read in decode", "GB/s");
  speed.print("decode", "tok/s");
  if (prompt > 0) prefill.print("prefill", "tok/s");
  std::printf("ratio of medians: %.2f of the read bandwidth\n", used.median() / bandwidth.median());
  cpu_ratio.print("the same by CPU time", "");
  return 0;
}

}  // namespace
}  // namespace sluice::test

int main(int argc, char **argv) {
  try {
    return sluice::test::bench(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "cpu_decode: %s\n", e.what());
    return 1;
  }
}
