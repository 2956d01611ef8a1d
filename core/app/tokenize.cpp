#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <iterator>

#include "core/app/command.hpp"
#include "core/app/paths.hpp"
#include "core/model_file/gguf.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::app {
namespace {

int tokenize(const std::string &model, const std::string &text, bool special) {
  auto file = model_file::Gguf::open(model);
  if (!file) return fail(file.error());
  auto tokenizer = text::Tokenizer::from_gguf(*file);
  if (!tokenizer) return fail(tokenizer.error());
  auto ids = (*tokenizer)->encode(text, {.add_bos = false, .parse_special = special});
  if (!ids) return fail(ids.error());
  fmt::print("{}\n", fmt::join(*ids, " "));
  return 0;
}

}  // namespace

void add_tokenize(CLI::App &app, Exit exit) {
  struct Options {
    std::string model = default_model_path(), text;
    bool special = false;
  };
  auto options = std::make_shared<Options>();
  auto *command = app.add_subcommand("tokenize", "Print the token ids of a text, separated by spaces, without BOS");
  command->add_option("--model", options->model, "GGUF file; the model that ships without it");
  auto *text = command->add_option("TEXT", options->text, "The text; standard input without it");
  command->add_flag("--special", options->special, "Special tokens written in the text count as such");
  command->callback([=] {
    if (text->count() == 0)
      options->text.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
    exit(tokenize(options->model, options->text, options->special));
  });
}

}  // namespace sluice::app
