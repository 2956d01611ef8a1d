// Many chats at once over one long system prompt, on the model that ships: what the prefix cache saves. Two servers, one
// with the cache off, take turns in the same run; both must give the same texts.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/server_process.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::bench {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

struct Settings {
  uint32_t rounds = 3, chats = 32, system_tokens = 1000, answer_tokens = 8;
};

struct Chat {
  double first_token_s = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0;
  std::string text;
};

struct Round {
  std::vector<Chat> chats;
  double mean_first_token_s = 0, cached_share = 0;
};

std::string configuration(bool prefix_cache, const Settings &settings) {
  return "[server]\nlog_level = \"warn\"\nport = 0\nmax_queued = 256\n"
         "[models.test]\npath = \"" SLUICE_SOURCE_DIR "/examples/model/sluice-tiny-q8_0.gguf\"\n"
         "max_seqs = " + std::to_string(settings.chats) + "\n"
         "kv = { prefix_cache = " + (prefix_cache ? "true" : "false") + " }\n";
}

/// A system prompt of at least so many tokens; `round` makes it new to every cache.
std::string system_prompt(uint16_t port, const Settings &settings, uint32_t round) {
  std::string text = "Round " + std::to_string(round) + ". You answer visitors of a small museum.";
  for (uint32_t line = 1;; ++line) {
    const auto answer = support::post(port, "/tokenize", json::serialize(json::object{{"content", text}}));
    if (answer.status != 200) throw std::runtime_error("/tokenize: " + answer.body);
    if (json::parse(answer.body).at("tokens").as_array().size() >= settings.system_tokens) return text;
    for (uint32_t k = 0; k < 8; ++k)
      text += " Rule " + std::to_string(8 * line + k) + ": be brief, be kind, and name the room of the thing asked for.";
  }
}

Chat talk(uint16_t port, const std::string &system, uint32_t who, const Settings &settings) {
  const json::object body{
      {"model", "test"},
      {"stream", true},
      {"stream_options", {{"include_usage", true}}},
      {"max_tokens", settings.answer_tokens},
      {"temperature", 0},
      {"ignore_eos", true},
      {"messages", json::array{{{"role", "system"}, {"content", system}},
                               {{"role", "user"}, {"content", "Visitor " + std::to_string(who) + " asks: where is it?"}}}}};
  Chat chat;
  const auto began = Clock::now();
  support::EventStream stream(port, "/v1/chat/completions", json::serialize(body));
  for (std::string data; stream.next(data) && data != "[DONE]";) {
    const auto event = json::parse(data).as_object();
    if (event.contains("error")) throw std::runtime_error(data);
    if (const auto *usage = event.if_contains("usage"); usage != nullptr && usage->is_object()) {
      chat.prompt_tokens = usage->at("prompt_tokens").to_number<uint64_t>();
      chat.cached_tokens = usage->at("prompt_tokens_details").at("cached_tokens").to_number<uint64_t>();
    }
    for (const auto &choice : event.at("choices").as_array()) {
      const auto *content = choice.at("delta").as_object().if_contains("content");
      if (content == nullptr || !content->is_string() || content->as_string().empty()) continue;
      if (chat.first_token_s == 0) chat.first_token_s = std::chrono::duration<double>(Clock::now() - began).count();
      chat.text += content->as_string();
    }
  }
  return chat;
}

Round run_round(uint16_t port, const std::string &system, const Settings &settings) {
  Round round;
  round.chats.resize(settings.chats);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < settings.chats; ++i)
    threads.emplace_back([&, i] { round.chats[i] = talk(port, system, i, settings); });
  for (auto &thread : threads) thread.join();
  uint64_t prompt = 0, cached = 0;
  for (const Chat &chat : round.chats) {
    round.mean_first_token_s += chat.first_token_s / settings.chats;
    prompt += chat.prompt_tokens, cached += chat.cached_tokens;
  }
  if (prompt == 0) throw std::runtime_error("no usage came back");
  round.cached_share = static_cast<double>(cached) / static_cast<double>(prompt);
  return round;
}

int measure(const Settings &settings) {
  const support::TempDir files;
  const support::ServerProcess with(std::vector<std::string>{files.write("on.toml", configuration(true, settings))});
  const support::ServerProcess without(std::vector<std::string>{files.write("off.toml", configuration(false, settings))});
  std::vector<double> ratios, shares;
  for (uint32_t n = 0; n < settings.rounds; ++n) {
    const std::string system = system_prompt(with.port(), settings, n);
    const Round off = run_round(without.port(), system, settings), on = run_round(with.port(), system, settings);
    ratios.push_back(off.mean_first_token_s / on.mean_first_token_s), shares.push_back(on.cached_share);
    std::printf("round %u: prompts of %llu tokens, %.1f %% from the cache; mean time to first token %.3f s, without the "
                "cache %.3f s: %.2fx\n", n + 1, static_cast<unsigned long long>(on.chats[0].prompt_tokens),
                100 * on.cached_share, on.mean_first_token_s, off.mean_first_token_s, ratios.back());
    for (uint32_t i = 0; i < settings.chats; ++i)
      if (on.chats[i].text != off.chats[i].text) throw std::runtime_error("the cache changes the answer: \"" +
                                                     on.chats[i].text + "\" and \"" + off.chats[i].text + "\"");
    // All but the first chat's share, and the partly filled last block of each.
    if (on.cached_share < 0.95 * (settings.chats - 1) / settings.chats - 32.0 / settings.system_tokens)
      throw std::runtime_error("too little comes from the cache");
    if (off.cached_share != 0) throw std::runtime_error("the cache that is off is not");
  }
  std::sort(ratios.begin(), ratios.end()), std::sort(shares.begin(), shares.end());
  std::printf("%u chats, median of %u rounds: %.1f %% of prompt tokens from the cache, time to first token %.2fx "
              "(%.2f..%.2f)\n", settings.chats, settings.rounds, 100 * shares[shares.size() / 2],
              ratios[ratios.size() / 2], ratios.front(), ratios.back());
  return 0;
}

int run(int argc, char **argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    uint32_t *target = nullptr;
    if (std::strcmp(argv[i], "--rounds") == 0) target = &settings.rounds;
    if (std::strcmp(argv[i], "--chats") == 0) target = &settings.chats;
    if (std::strcmp(argv[i], "--system-tokens") == 0) target = &settings.system_tokens;
    const char *end = i + 1 < argc ? argv[i + 1] + std::strlen(argv[i + 1]) : nullptr;
    if (target == nullptr || end == nullptr || std::from_chars(argv[i + 1], end, *target).ptr != end || *target == 0 ||
        *target > 1800) {
      std::fprintf(stderr, "usage: shared_prefix [--rounds N] [--chats N] [--system-tokens N], each 1..1800\n");
      return 2;
    }
  }
  return measure(settings);
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char **argv) {
  try {
    return sluice::bench::run(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "shared_prefix: %s\n", e.what());
    return 1;
  }
}
