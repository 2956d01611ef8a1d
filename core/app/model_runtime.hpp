#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/app/plugins.hpp"
#include "core/engine/engine.hpp"
#include "core/engine/foreign_engine.hpp"
#include "core/plugin/instances.hpp"
#include "core/text/chat_template.hpp"
#include "core/text/generation_defaults.hpp"
#include "core/text/tokenizer.hpp"

namespace sluice::app {

/// A model that drafts for another.
struct DraftModelSource {
  std::string path;  ///< absolute
  ConfiguredPlugin backend;
};

/// Told and asked while a model loads; all may be empty.
struct LoadHooks {
  /// One call per phase with its total (0 = of no known size), then with what is done.
  std::function<void(const std::string &phase, uint64_t done_bytes, uint64_t total_bytes)> progress;
  std::function<void(const std::string &detail)> phase_done;
  std::function<bool()> stop;  ///< true ends the load with kCancelled
  std::function<std::optional<DraftModelSource>(const std::string &name)> find_model;  ///< nothing: unknown
};

/// A backend with one model on it. [init]
struct LoadedBackend {
  std::unique_ptr<plugin::Backend> backend;
  std::unique_ptr<plugin::LoadedModel> model;  ///< goes before its backend

  static Result<LoadedBackend> load(const std::string &model_name, const ConfiguredPlugin &plugin, plugin::Host &host,
                                    const std::string &path, const LoadHooks &hooks,
                                    const std::string &draft_heads = {});
};

struct KvSize {
  uint32_t blocks = 0;
  uint32_t block_size = 0;  ///< tokens
  uint64_t bytes = 0, bytes_per_block = 0;
  uint32_t host_blocks = 0;  ///< swap space
};

/// Sizes the cache and configures the model for it. block_size and kv_dtype of `setup` come from `kv`.
/// enough_tokens  with kv on "auto" no more is taken, however much memory there is
/// errors  ResourceExhausted when not one block fits, with what would
Result<KvSize> configure_kv(plugin::LoadedModel &model, sluice_model_setup setup, const config::Kv &kv,
                            uint64_t enough_tokens);

/// A model with all its plugins, ready to generate. [init]
class ModelRuntime {
 public:
  /// max_live  sequences that run or wait
  static Result<std::unique_ptr<ModelRuntime>> load(const config::Model &model, const ModelPlugins &plugins,
                                                    plugin::Host &host, const Clock &clock, uint32_t max_live,
                                                    const LoadHooks &hooks);
  ~ModelRuntime();
  ModelRuntime(const ModelRuntime &) = delete;
  ModelRuntime &operator=(const ModelRuntime &) = delete;

  /// Replaces what a fault has damaged by new instances. The generator has been stopped.
  /// culprit  the plugin that is to blame, "sampler chain"; the backend and its model are kept when it is another one
  /// returns  the new generator, which generator() then is too
  Result<std::shared_ptr<request::Generator>> reopen(const std::string &culprit, const std::function<bool()> &stop);

  std::shared_ptr<request::Generator> generator() const { return generator_; }
  /// Of a backend in a process of its own, which may die while nothing runs; otherwise always well. On the thread that
  /// reopens.
  Result<> backend_health() const;
  std::shared_ptr<const text::Tokenizer> tokenizer() const { return tokenizer_; }
  std::shared_ptr<const text::ChatTemplate> chat_template() const { return chat_template_; }
  const text::GenerationDefaults &defaults() const { return defaults_; }
  /// Of a model with a backend.
  const sluice_model_info &info() const { return loaded_.model->info(); }
  /// Of a model with a backend: other HOT options for its policy, or (`fresh`) another instance in its place. Waits for
  /// the step under way. errors: the plugin's; then nothing has changed.  thread: any but the engine's
  Result<> change_scheduler(const ConfiguredPlugin &to, bool fresh);
  /// The judgement of sampler i, or of the decoder, over a request's options. [io] errors: Unavailable while it is opened
  /// anew
  Result<> validate_for_sampler(size_t i, const plugin::Options &options) const;
  Result<> validate_for_decoder(const plugin::Options &options) const;
  bool samples_drafts() const;  ///< its decoder draws drafts from distributions that it tells

 private:
  ModelRuntime(const config::Model &model, const ModelPlugins &plugins, plugin::Host &host, const Clock &clock,
               uint32_t max_live)
      : config_(model), plugins_(plugins), host_(host), clock_(clock), max_live_(max_live) {}
  Result<> open(const LoadHooks &hooks);
  Result<std::shared_ptr<request::Generator>> open_anew(const std::string &culprit, const std::function<bool()> &stop);
  Result<> load_text(const std::string &path);
  Result<> load_backend(const LoadHooks &hooks);
  Result<> create_chain();
  Result<> load_draft_model(const LoadHooks &hooks);
  Result<> configure_draft_model(const sluice_model_setup &target, const KvSize &kv);
  Result<> start_foreign(const LoadHooks &hooks);
  Result<> start_engine(const LoadHooks &hooks);

  const config::Model config_;
  ModelPlugins plugins_;  ///< the scheduler may be changed
  plugin::Host &host_;
  const Clock &clock_;
  const uint32_t max_live_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::shared_ptr<const text::ChatTemplate> chat_template_;
  text::GenerationDefaults defaults_;
  // The order of declaration is that of the life cycle; destruction is its reverse.
  LoadedBackend loaded_;
  mutable std::mutex chain_mutex_;  ///< requests are judged and policies changed while the model is opened anew
  std::vector<std::shared_ptr<plugin::Sampler>> samplers_;
  std::shared_ptr<plugin::Decoder> decoder_;
  std::function<std::optional<DraftModelSource>(const std::string &)> find_model_;
  LoadedBackend drafting_;  ///< the decoder's draft model, if it has one
  std::shared_ptr<request::Generator> generator_;
  std::shared_ptr<engine::Engine> engine_;  ///< the same, of a model with a backend
};

/// Limits of every model's top_logprobs, as OpenAI has it.
inline constexpr uint32_t kMaxTopLogprobs = 20;

}  // namespace sluice::app
