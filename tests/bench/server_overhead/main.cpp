// What the server adds to a token: the whole way from the engine to checked JSON in a client, next to a bare Beast loop
// that writes the same bytes, in turns, in one run.
//   server_overhead [--rounds N] [--streams N] [--tokens N] [--io-threads N] [--step-us N]
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/bench/server_overhead/bare_loop.hpp"
#include "tests/bench/server_overhead/stream_client.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::bench {
namespace {

struct Settings {
  uint32_t rounds = 5, streams = 16, tokens = 20'000, io_threads = 1;
  uint32_t step_us = 0;  ///< of the mock; 0 = as fast as the engine goes
};

constexpr uint32_t kPromptTokens = 32;

// A prompt of its own for every stream; the mock says it again and again. No character of the stop string is in it.
std::string prompt_of(uint32_t stream) {
  std::string out;
  uint32_t state = 1234567u + 7919u * stream;
  for (uint32_t i = 0; i < kPromptTokens; ++i) {
    state = state * 1664525u + 1013904223u;
    out += "abcdefghijklmnopqrstuvwxyz"[(state >> 16) % 26];
  }
  return out;
}

std::vector<StreamPlan> plans_of(const Settings &settings) {
  std::vector<StreamPlan> plans;
  for (uint32_t i = 0; i < settings.streams; ++i) {
    const std::string prompt = prompt_of(i);
    const std::string body =
        "{\"model\":\"test\",\"prompt\":" + support::tiny_ids(prompt) +
        ",\"stream\":true,\"ignore_eos\":true,\"temperature\":0,\"stop\":[\"#END\"],\"max_tokens\":" +
        std::to_string(settings.tokens) + "}";
    plans.push_back({support::request_bytes("POST", "/v1/completions", body), prompt, settings.tokens});
  }
  return plans;
}

support::ServerSetup setup_of(const Settings &settings) {
  const uint32_t context = settings.tokens + kPromptTokens + 64;
  support::ServerSetup setup;
  setup.server = "threads = " + std::to_string(settings.io_threads) + "\nlog_level = \"warn\"\n";
  setup.backend =
      "{ use = \"mock\", script = \"echo\", check_kv = false, step_us = " + std::to_string(settings.step_us) +
      ", max_context = " + std::to_string(context) +
      ", kv_tokens = " + std::to_string(context * settings.streams + 1024) + " }";
  setup.model = "max_seqs = " + std::to_string(settings.streams) + "\n";
  return setup;
}

uint16_t wait_for_port(support::ChildProcess &child) {
  constexpr std::string_view kLine = "listening on http://127.0.0.1:";
  for (int i = 0; i < 2000; ++i) {
    const std::string out = child.out();
    uint16_t port = 0;
    if (out.starts_with(kLine) && out.ends_with('\n'))
      std::from_chars(out.data() + kLine.size(), out.data() + out.size(), port);
    if (port != 0) return port;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw std::runtime_error("the bare loop did not start: " + child.err());
}

struct Spread {
  double median, min, max;
};
Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values.front(), values.back()};
}

std::string cpu_line(std::string_view key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return line.substr(std::min(line.find(": ") + 2, line.size()));
  return "unknown";
}

std::string commit() {
  const auto head = support::run({"/usr/bin/git", "-C", SLUICE_SOURCE_DIR, "describe", "--always", "--dirty"});
  return head.exit.code == 0 ? head.out.substr(0, head.out.find('\n')) : "unknown";
}

void print(const char *name, const Spread &s, const char *format) {
  std::printf("%-24s median ", name);
  std::printf(format, s.median);
  std::printf("  min ");
  std::printf(format, s.min);
  std::printf("  max ");
  std::printf(format, s.max);
  std::printf("\n");
}

double us(std::chrono::nanoseconds time, uint64_t events) {
  return static_cast<double>(time.count()) * 1e-3 / static_cast<double>(events);
}

void print_side(const char *name, const RoundResult &r) {
  std::printf("  %-9s %8.0f events/s; CPU per event: server %.2f us, client %.2f us; %.1f events per read\n", name,
              r.events_per_s(), us(r.server_cpu, r.events), us(r.client_cpu, r.events),
              static_cast<double>(r.events) / static_cast<double>(r.reads));
}

int measure(const Settings &settings) {
  const auto plans = plans_of(settings);
  support::ServerProcess server(setup_of(settings));
  const RoundResult warm = run_streams(server.port(), server.process().pid(), plans, false);
  support::ChildProcess bare({"/proc/self/exe", "--bare-loop", std::to_string(settings.tokens), warm.sample_event});
  const uint16_t bare_port = wait_for_port(bare);
  run_streams(bare_port, bare.pid(), plans, true);

  std::printf("commit %s, %u hardware threads, %s\nflags %s\n", commit().c_str(), std::thread::hardware_concurrency(),
              cpu_line("model name").c_str(), cpu_line("flags").c_str());
  std::printf(
      "%u streams x %u tokens, mock backend at %u us a step, greedy, fcfs, plain, %u I/O thread(s), %zu bytes per "
      "event\n",
      settings.streams, settings.tokens, settings.step_us, settings.io_threads, warm.sample_event.size());
  std::vector<double> ours, theirs, ratios, our_cpu, their_cpu;
  for (uint32_t round = 0; round < settings.rounds; ++round) {
    const RoundResult a = run_streams(server.port(), server.process().pid(), plans, false),
                      b = run_streams(bare_port, bare.pid(), plans, true);
    ours.push_back(a.events_per_s()), theirs.push_back(b.events_per_s());
    ratios.push_back(ours.back() / theirs.back());
    our_cpu.push_back(us(a.server_cpu + a.client_cpu, a.events)),
        their_cpu.push_back(us(b.server_cpu + b.client_cpu, b.events));
    std::printf("round %u: ratio %.3f\n", round + 1, ratios.back());
    print_side("sluice", a);
    print_side("bare loop", b);
    std::fflush(stdout);
  }
  print("sluice events/s", spread_of(ours), "%.0f");
  print("bare Beast loop events/s", spread_of(theirs), "%.0f");
  print("ratio", spread_of(ratios), "%.3f");
  // On a machine that others use too, time says how much of it was left over; this says what an event costs.
  print("sluice CPU us/event", spread_of(our_cpu), "%.2f");
  print("bare loop CPU us/event", spread_of(their_cpu), "%.2f");
  const support::Exit end = server.terminate();
  if (end.code != 0) throw std::runtime_error("the server ended with code " + std::to_string(end.code));
  return 0;
}

int usage() {
  std::fprintf(stderr,
               "usage: server_overhead [--rounds N] [--streams N] [--tokens N] [--io-threads N] [--step-us N]\n");
  return 2;
}

int run(int argc, char **argv) {
  if (argc == 4 && std::strcmp(argv[1], "--bare-loop") == 0)
    return run_bare_loop(argv[3], static_cast<uint32_t>(std::stoul(argv[2])));
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    uint32_t *target = nullptr;
    if (std::strcmp(argv[i], "--rounds") == 0) target = &settings.rounds;
    if (std::strcmp(argv[i], "--streams") == 0) target = &settings.streams;
    if (std::strcmp(argv[i], "--tokens") == 0) target = &settings.tokens;
    if (std::strcmp(argv[i], "--io-threads") == 0) target = &settings.io_threads;
    if (std::strcmp(argv[i], "--step-us") == 0) target = &settings.step_us;
    if (target == nullptr || i + 1 == argc) return usage();
    const char *end = argv[i + 1] + std::strlen(argv[i + 1]);
    const auto parsed = std::from_chars(argv[i + 1], end, *target);
    if (parsed.ec != std::errc() || parsed.ptr != end || *target == 0 || *target > 10'000'000) return usage();
  }
  return measure(settings);
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char **argv) {
  try {
    return sluice::bench::run(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "server_overhead: %s\n", e.what());
    return 1;
  }
}
