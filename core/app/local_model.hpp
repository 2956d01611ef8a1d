#pragma once
#include <boost/json/fwd.hpp>
#include <memory>
#include <string>

#include "core/app/local_generation.hpp"
#include "core/app/served.hpp"

namespace sluice::app {

/// One model in this process, for the commands that do not serve. [init]
class LocalModel {
 public:
  struct Options {
    std::string path;     ///< empty = the model that ships
    std::string backend = "cpu";
    uint32_t context = 0;  ///< 0 = the model's own
    uint32_t max_seqs = 1;
    std::string decoder = "plain";
    std::vector<std::string> decoder_options;  ///< TOML, "key = value"
    std::string heads_path;                    ///< draft heads for the model; empty = none
    std::string draft_path;                    ///< a model that drafts; the decoder knows it as "draft"
    bool quiet = true;     ///< without a line per load phase
  };
  static Result<std::unique_ptr<LocalModel>> load(const Options &options);

  const text::Tokenizer &tokenizer() const { return *runtime_->tokenizer(); }
  const text::ChatTemplate *chat_template() const { return runtime_->chat_template().get(); }
  request::Generator &generator() const { return *runtime_->generator(); }
  /// A request's options for the decoder, by name. errors: InvalidArgument
  Result<std::shared_ptr<const plugin::Options>> decoder_options(const boost::json::object &fields) const {
    return served_->decoder->validate(fields);
  }
  bool decoder_takes(std::string_view option) const { return served_->decoder->takes(option); }  ///< per request
  uint64_t weights_bytes() const { return runtime_->info().weights_bytes; }

  uint32_t token_budget() const { return token_budget_; }  ///< of a step

  /// A request for these tokens with sampling fields by their API names ("temperature"), the rest as the model wants.
  /// max_new is cut to what the context leaves. errors: InvalidArgument (names the field)
  Result<request::Request> make_request(std::vector<int32_t> prompt, uint32_t max_new, uint64_t seed,
                                        const boost::json::object &sampling);

 private:
  LocalModel() = default;

  SteadyClock clock_;
  metrics::Registry metrics_;
  std::unique_ptr<PluginHouse> house_;
  std::unique_ptr<ModelRuntime> runtime_;
  std::shared_ptr<lifecycle::ServedModel> served_;
  uint32_t token_budget_ = 0;
  uint64_t next_id_ = 1;
};

}  // namespace sluice::app
