#include "options.hpp"

#include <fstream>
#include <sstream>
#include <string>

namespace sluice::mock {
namespace {

std::vector<int32_t> parse_ids(std::istream &in, const std::string &name, uint32_t vocab_size) {
  std::vector<int32_t> ids;
  for (std::string word; in >> word;) {
    int32_t id = -1;
    if (!sdk::detail::parse_whole(word, id) || id < 0 || static_cast<uint32_t>(id) >= vocab_size)
      throw sdk::Error(SLUICE_E_INVALID_ARGUMENT,
                       name + ": '" + word.substr(0, 40) + "' is not an id of 0.." + std::to_string(vocab_size - 1));
    ids.push_back(id);
  }
  return ids;
}

std::vector<int32_t> read_text(const sdk::Config &config, uint32_t vocab_size) {
  const std::string tokens = config.str("tokens"), replay = config.str("replay");
  if (tokens.empty() == replay.empty())
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "script is 'text'; set one of `tokens` and `replay`");
  std::istringstream inline_ids(tokens);
  if (replay.empty()) return parse_ids(inline_ids, "tokens", vocab_size);
  std::ifstream file(replay);
  if (!file) throw sdk::Error(SLUICE_E_NOT_FOUND, "replay '" + replay + "' cannot be read");
  std::vector<int32_t> ids = parse_ids(file, "replay " + replay, vocab_size);
  if (ids.empty()) throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "replay '" + replay + "' holds no id");
  return ids;
}

Script script_of(const std::string &name) {
  if (name == "echo") return Script::kEcho;
  if (name == "text") return Script::kText;
  return name == "hash" ? Script::kHash : Script::kCount;
}

int32_t code_of(const std::string &name) {
  if (name == "internal") return SLUICE_E_INTERNAL;
  if (name == "resource_exhausted") return SLUICE_E_RESOURCE_EXHAUSTED;
  if (name == "invalid_argument") return SLUICE_E_INVALID_ARGUMENT;
  if (name == "unsupported") return SLUICE_E_UNSUPPORTED;
  return name == "cancelled" ? SLUICE_E_CANCELLED : SLUICE_E_UNAVAILABLE;
}

ScriptOptions read_script(const sdk::Config &config) {
  ScriptOptions s;
  s.script = script_of(config.str("script", "count"));
  s.vocab_size = static_cast<uint32_t>(config.i64("vocab_size", s.vocab_size));
  s.eos_token = static_cast<int32_t>(config.i64("eos_token", s.eos_token));
  s.eos_probability = config.f64("eos_probability", 0);
  s.eos_at = static_cast<uint32_t>(config.i64("eos_at", 0));
  s.hash_tokens = static_cast<uint32_t>(config.i64("hash_tokens", s.hash_tokens));
  s.spread = config.f64("spread", s.spread);
  s.seed = static_cast<uint64_t>(config.i64("seed", 0));
  if (s.eos_token >= static_cast<int32_t>(s.vocab_size))
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, "eos_token is " + std::to_string(s.eos_token) +
                                                    "; it must be below vocab_size, " + std::to_string(s.vocab_size));
  if (s.script == Script::kText) s.text = read_text(config, s.vocab_size);
  return s;
}

StepTime read_time(const sdk::Config &config) {
  StepTime t;
  t.step_us = config.f64("step_us", 0), t.token_us = config.f64("token_us", 0), t.jitter = config.f64("jitter", 0);
  t.seed = static_cast<uint64_t>(config.i64("seed", 0));
  const std::string table = config.str("step_table");
  try {
    if (!table.empty()) t.table = StepTable::read(table);
  } catch (const std::runtime_error &e) {
    throw sdk::Error(SLUICE_E_INVALID_ARGUMENT, e.what());
  }
  return t;
}

}  // namespace

Options read_options(const sdk::Config &config) {
  Options o;
  o.script = read_script(config);
  o.time = read_time(config);
  o.faults.fail_every = static_cast<uint64_t>(config.i64("fail_every", 0));
  o.faults.fail_code = code_of(config.str("fail_code", "unavailable"));
  o.faults.fail_in_wait = config.str("fail_in", "wait") == "wait";
  o.faults.fail_poisoned = config.flag("fail_poisoned", false);
  o.faults.lost_at = static_cast<uint64_t>(config.i64("lost_at", 0));
  o.faults.hang_at = static_cast<uint64_t>(config.i64("hang_at", 0));
  o.faults.block_at = static_cast<uint64_t>(config.i64("block_at", 0));
  o.faults.block_ms = static_cast<uint64_t>(config.i64("block_ms", 3'600'000));
  o.faults.crash_at = static_cast<uint64_t>(config.i64("crash_at", 0));
  o.faults.garbage_at = static_cast<uint64_t>(config.i64("garbage_at", 0));
  o.faults.leak_threads = config.flag("leak_threads", false);
  o.max_context = static_cast<uint32_t>(config.i64("max_context", o.max_context));
  o.kv_tokens = static_cast<uint32_t>(config.i64("kv_tokens", o.kv_tokens));
  o.host_kv_tokens = static_cast<uint32_t>(config.i64("host_kv_tokens", o.host_kv_tokens));
  o.swap_block_us = config.f64("swap_block_us", 0);
  o.check_kv = config.flag("check_kv", true);
  return o;
}

}  // namespace sluice::mock
