#pragma once
#include <atomic>
#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/metrics/model_metrics.hpp"
#include "core/request/generator.hpp"

namespace sluice::plugin {
class Options;
}
namespace sluice::text {
class ChatTemplate;
class Tokenizer;
}  // namespace sluice::text

namespace sluice::lifecycle {

/// What one plugin of a model takes from a request.
struct RequestSchema {
  std::string plugin;             ///< for messages
  std::vector<std::string> keys;  ///< its PER_REQUEST options

  /// [any] Checks a table that holds only `keys`. errors: InvalidArgument, with the key as param
  std::function<Result<std::shared_ptr<const plugin::Options>>(const boost::json::object &)> validate;

  uint32_t default_beams = 0;  ///< of a decoder: num_beams as configured; 0 = it has no such option
  bool samples_drafts = false;  ///< of a decoder: drafts are drawn from known distributions, so rejection can judge them

  bool takes(std::string_view key) const;
};

/// What the model's own metadata wants where a request says nothing. Order: request, these, the plugin's default.
struct GenerationDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
};

/// Whether a model can serve, and how far its loading is. [any]
class ModelState {
 public:
  enum class Phase : uint8_t { kLoading, kReady, kFailed };
  struct Progress {
    std::string what;         ///< "weights"
    uint64_t done = 0, total = 0;  ///< bytes; total 0 = unknown
  };

  Phase phase() const { return phase_.load(std::memory_order_acquire); }
  Progress progress() const;
  std::string reason() const;  ///< why it failed

  void loading(std::string what, uint64_t done, uint64_t total);
  void ready() { phase_.store(Phase::kReady, std::memory_order_release); }
  void failed(std::string reason);

 private:
  std::atomic<Phase> phase_{Phase::kLoading};
  mutable std::mutex mutex_;
  Progress progress_;
  std::string reason_;
};

/// A model as the service knows it. Filled before it is added to the Service; what loading brings (tokenizer to
/// defaults) is filled before state.ready() and constant from then on.
struct ServedModel {
  std::string name;
  std::vector<std::string> aliases;
  int64_t created_unix_s = 0;

  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::ChatTemplate> chat_template;  ///< null: the model has none, and chat is refused
  std::shared_ptr<request::Generator> generator;
  std::vector<RequestSchema> samplers;  ///< one per sampler of the chain, in its order
  std::optional<RequestSchema> decoder;
  GenerationDefaults defaults;

  metrics::ModelMetrics metrics;
  ModelState state;
};

}  // namespace sluice::lifecycle
