#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <csignal>
#include <iostream>
#include <random>

#include "core/app/command.hpp"
#include "core/app/local_model.hpp"
#include "core/text/detokenizer.hpp"

namespace sluice::app {
namespace {

struct TalkOptions {
  LocalModel::Options model;
  std::string prompt, system;
  double temperature = -1;  ///< below 0 = as the model wants
  uint32_t max_tokens = 512;
  int64_t seed = -1;  ///< below 0 = another one each time
  bool raw = false;
};

std::atomic<bool> g_interrupted{false};

/// Writes the answer to standard output as it comes, and returns all of it.
Result<std::string> answer(LocalModel &model, const std::string &prompt, bool is_text, const TalkOptions &options) {
  const auto &tokenizer = model.tokenizer();
  auto tokens = tokenizer.encode(prompt, {.add_bos = tokenizer.adds_bos(), .parse_special = !is_text});
  if (!tokens) return tokens.error();
  boost::json::object sampling;
  if (options.temperature >= 0) sampling["temperature"] = options.temperature;
  const uint64_t seed = options.seed >= 0 ? static_cast<uint64_t>(options.seed) : std::random_device{}();
  auto request = model.make_request(std::move(*tokens), options.max_tokens, seed, sampling);
  if (!request) return request.error();

  text::Detokenizer detokenizer(tokenizer);
  std::string said;
  std::string piece;
  const auto show = [&] {
    std::cout << piece << std::flush;
    said += piece;
    piece.clear();
  };
  g_interrupted = false;
  auto outcome = generate(model.generator(), std::move(*request), [&](const request::Event &event) {
    if (event.token >= 0) detokenizer.push(event.token, piece);
    if (event.finish != request::FinishReason::kNone) detokenizer.flush(piece);
    show();
    return !g_interrupted;
  });
  std::cout << std::endl;
  if (!outcome) return outcome.error();
  return said;
}

boost::json::object message(const char *role, std::string content) {
  return {{"role", role}, {"content", std::move(content)}};
}

Result<std::string> render(const LocalModel &model, const boost::json::array &messages) {
  const auto &tokenizer = model.tokenizer();
  const auto spelled = [&](int32_t id) { return id < 0 ? std::string() : std::string(tokenizer.token_text(id)); };
  const std::string bos = spelled(tokenizer.bos());
  const std::string eos = spelled(tokenizer.eos());
  text::RenderOptions options;
  options.add_generation_prompt = true;
  options.bos_token = bos;
  options.eos_token = eos;
  return model.chat_template()->render(messages, options);
}

int run(const TalkOptions &options) {
  auto model = LocalModel::load(options.model);
  if (!model) return fail(model.error());
  const bool plain = options.raw || (*model)->chat_template() == nullptr;
  std::string prompt = options.prompt;
  if (!plain) {
    boost::json::array messages;
    if (!options.system.empty()) messages.push_back(message("system", options.system));
    messages.push_back(message("user", options.prompt));
    auto rendered = render(**model, messages);
    if (!rendered) return fail(rendered.error());
    prompt = *rendered;
  }
  auto said = answer(**model, prompt, plain, options);
  return said ? 0 : fail(said.error());
}

int chat(const TalkOptions &options) {
  auto model = LocalModel::load(options.model);
  if (!model) return fail(model.error());
  if ((*model)->chat_template() == nullptr)
    return fail({Code::kUnsupported, "the model has no chat template; use `sluice run --raw`", {}});
  // Ctrl-C stops the answer, not the conversation.
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted = true; };
  sigaction(SIGINT, &action, nullptr);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) std::cout << "Ctrl-D or /bye leaves, /clear starts over, Ctrl-C stops an answer.\n";
  boost::json::array messages;
  const auto start_over = [&] {
    messages.clear();
    if (!options.system.empty()) messages.push_back(message("system", options.system));
  };
  start_over();
  for (std::string line;;) {
    if (terminal) std::cout << ">>> " << std::flush;
    if (!std::getline(std::cin, line)) {
      if (!g_interrupted) break;
      g_interrupted = false;
      std::cin.clear();
      std::cout << '\n';
      continue;
    }
    if (line == "/bye") break;
    if (line == "/clear") {
      start_over();
      continue;
    }
    if (line.empty()) continue;
    messages.push_back(message("user", line));
    auto prompt = render(**model, messages);
    auto said = prompt ? answer(**model, *prompt, false, options) : Result<std::string>(prompt.error());
    if (!said) {
      fail(said.error());
      messages.pop_back();
      continue;
    }
    messages.push_back(message("assistant", *said));
  }
  return 0;
}

std::shared_ptr<TalkOptions> add_options(CLI::App *command) {
  auto options = std::make_shared<TalkOptions>();
  command->add_option("--model", options->model.path, "GGUF file; the model that ships without it");
  command->add_option("--backend", options->model.backend, "Backend plugin")->capture_default_str();
  command->add_option("--temperature", options->temperature, "0 = always the likeliest token")
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--max-tokens", options->max_tokens, "Output tokens at most")
      ->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_option("--seed", options->seed, "The same seed gives the same answer")->check(CLI::NonNegativeNumber);
  command->add_option("--system", options->system, "System message");
  return options;
}

}  // namespace

void add_run(CLI::App &app, Exit exit) {
  auto *command = app.add_subcommand("run", "Answer one prompt on standard output");
  auto options = add_options(command);
  command->add_flag("--raw", options->raw, "Complete the prompt as it is, without the chat template");
  command->add_option("PROMPT", options->prompt, "What to answer")->required();
  command->callback([=] { exit(run(*options)); });
}

void add_chat(CLI::App &app, Exit exit) {
  auto *command = app.add_subcommand("chat", "Talk to a model in the terminal");
  auto options = add_options(command);
  command->callback([=] { exit(chat(*options)); });
}

}  // namespace sluice::app
