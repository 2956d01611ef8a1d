// What a user may say to the mock, and the faults that it plays.
#pragma once
#include "script.hpp"
#include "step_time.hpp"

#include <sluice/sdk/config.hpp>

#include <cstdint>

namespace sluice::mock {

/// Submissions are counted from 1; 0 = never.
struct Faults {
  uint64_t fail_every = 0;
  int32_t fail_code = SLUICE_E_UNAVAILABLE;
  bool fail_in_wait = true;  // else submit() refuses, and nothing was queued
  bool fail_poisoned = false;
  uint64_t lost_at = 0;  // this submission and all later ones find the device lost
  uint64_t hang_at = 0;  // this submission never ends, nor does one behind it
  uint64_t block_at = 0;    // the call of this submission does not return for block_ms
  uint64_t block_ms = 0;
  uint64_t crash_at = 0;    // this submission ends the process
  uint64_t garbage_at = 0;  // this one and every later one answer with tokens outside of the vocabulary
  bool leak_threads = false;  // a thread of the backend outlives it

  bool fails(uint64_t n_submit) const { return fail_every != 0 && n_submit % fail_every == 0; }
  bool garbles(uint64_t n_submit) const { return garbage_at != 0 && n_submit >= garbage_at; }
  bool lost(uint64_t n_submit) const { return lost_at != 0 && n_submit >= lost_at; }
};

struct Options {
  ScriptOptions script;
  StepTime time;
  Faults faults;
  uint32_t max_context = 4096;   // tokens
  uint32_t kv_tokens = 1 << 16;  // that the "device" has room for
  uint32_t host_kv_tokens = 1 << 16;
  bool check_kv = true;
  double swap_block_us = 0;  // to copy a block between device and swap space
};

/// errors  sdk::Error kInvalidArgument, kNotFound; names the option.
Options read_options(const sdk::Config &config);

inline constexpr sluice_config_field kFields[] = {
    sdk::str_field("script",
                   "what it says: echo (the prompt), count (last id + 1), text (`tokens` or `replay` in turn), "
                   "hash (pseudo-random logits)",
                   "\"count\"", "echo|count|text|hash"),
    sdk::i64_field("vocab_size", "ids are 0..vocab_size-1; must fit the tokenizer", "512", 2, 1 << 24),
    sdk::str_field("tokens", "script text: ids separated by blanks", "\"\""),
    sdk::str_field("replay", "script text: a file with ids separated by blanks", "\"\""),
    sdk::i64_field("eos_token", "id that ends an answer; -1 = none", "2", -1, 1 << 24),
    sdk::f64_field("eos_probability", "chance that an output token is eos_token", "0", 0, 1),
    sdk::i64_field("eos_at", "output token, from 1, that is eos_token; 0 = none", "0", 0, 1 << 30),
    sdk::i64_field("hash_tokens", "script hash: last tokens that decide a row", "3", 1, 1024),
    sdk::f64_field("spread", "script hash: standard deviation of logits", "3", 0, 100),
    sdk::i64_field("seed", "of jitter, eos_probability and script hash", "0", 0, 9e15),
    sdk::i64_field("max_context", "tokens", "4096", 1, 1 << 24),
    sdk::i64_field("kv_tokens", "room of the device's cache, tokens", "65536", 16, 1 << 26),
    sdk::i64_field("host_kv_tokens", "room of the swap space, tokens", "65536", 0, 1 << 26),
    sdk::bool_field("check_kv", "refuse a step whose cached tokens are not those of its sequences", "true"),
    sdk::f64_field("swap_block_us", "time to swap a block, microseconds; steps go on meanwhile", "0", 0, 1e6),
    sdk::f64_field("step_us", "time of every step, microseconds", "0", 0, 6e7),
    sdk::f64_field("token_us", "time per token of a step, microseconds", "0", 0, 1e6),
    sdk::str_field("step_table", "CSV file n_tokens,context_tokens,us; its time is added", "\"\""),
    sdk::f64_field("jitter", "a step takes up to this fraction longer", "0", 0, 100),
    sdk::i64_field("fail_every", "every n-th step fails; 0 = none", "0", 0, 9e15),
    sdk::str_field("fail_code", "how it fails", "\"unavailable\"",
                   "unavailable|internal|resource_exhausted|invalid_argument|unsupported|cancelled"),
    sdk::str_field("fail_in", "where it fails", "\"wait\"", "wait|submit"),
    sdk::bool_field("fail_poisoned", "the failure says INTERNAL and that the instance must not be used again", "false"),
    sdk::i64_field("lost_at", "from this step on the device is lost; 0 = never", "0", 0, 9e15),
    sdk::i64_field("hang_at", "this step never ends; 0 = none", "0", 0, 9e15),
    sdk::i64_field("block_at", "submitting this step does not return for block_ms; 0 = none", "0", 0, 9e15),
    sdk::i64_field("block_ms", "milliseconds", "3600000", 0, 1e9),
    sdk::i64_field("crash_at", "submitting this step is a segmentation fault; 0 = none", "0", 0, 9e15),
    sdk::i64_field("garbage_at", "from this step on tokens are outside of the vocabulary; 0 = never", "0", 0, 9e15),
    sdk::bool_field("leak_threads", "a thread of the backend outlives it", "false"),
};

}  // namespace sluice::mock
