#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>
#include <sluice/abi/kinds/engine.h>
#include <sluice/abi/kinds/sampler.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/plugin/instance.hpp"
#include "core/plugin/library.hpp"
#include "core/plugin/options.hpp"

// Owners of what plugins create: opened by a static function, closed by the destructor. vtbl() and get() are for the
// engine's own calls on the hot path. [init] unless said.

namespace sluice::plugin {

/// Phase by phase while a model loads; false asks to stop. total 0 = unknown.
using LoadProgress = std::function<bool(const char *phase, uint64_t done_bytes, uint64_t total_bytes)>;

class Backend : public Instance {
 public:
  /// The devices that a backend sees, without opening it.
  static Result<std::vector<sluice_device_info>> devices(const Library &library, const sluice_host_api *host,
                                                         const Options &options);
  /// device_ids  empty = the backend's choice
  static Result<std::unique_ptr<Backend>> open(const Library &library, const sluice_host_api *host,
                                               const Options &options, std::span<const int32_t> device_ids = {});
  ~Backend();
  Result<> health() const;  ///< [any]
  const sluice_backend_vtbl *vtbl() const { return vtbl_; }
  sluice_backend *get() const { return backend_; }

 private:
  Backend(std::string name, const sluice_backend_vtbl *vtbl) : Instance(std::move(name)), vtbl_(vtbl) {}
  const sluice_backend_vtbl *vtbl_;
  sluice_backend *backend_ = nullptr;
};

/// A model in a backend, which outlives it. What the plugin says about it has been checked for being possible.
class LoadedModel : public Instance {
 public:
  struct Source {
    std::string path;  ///< absolute
    std::vector<std::string> attach;
    LoadProgress progress;  ///< may be empty
  };
  static Result<std::unique_ptr<LoadedModel>> load(const Backend &backend, const Source &source,
                                                   const Options &options);
  ~LoadedModel();

  const sluice_model_info &info() const { return info_; }
  std::string arch() const { return info_.arch; }
  Result<sluice_memory_plan> plan_memory(const sluice_model_setup &setup) const;
  Result<std::vector<sluice_kv_group>> kv_groups(const sluice_model_setup &setup) const;
  /// Blocks per group; host_blocks empty = no swap space.
  Result<> configure(const sluice_model_setup &setup, std::span<const uint32_t> device_blocks,
                     std::span<const uint32_t> host_blocks = {});
  Result<sluice_sample_caps> sample_caps() const;
  Result<> warmup(std::span<const uint32_t> n_tokens, std::span<const uint32_t> n_seqs);
  const sluice_backend_vtbl *vtbl() const { return vtbl_; }
  sluice_model *get() const { return model_; }

 private:
  LoadedModel(std::string name, const sluice_backend_vtbl *vtbl) : Instance(std::move(name)), vtbl_(vtbl) {}
  Result<> read_info();
  const sluice_backend_vtbl *vtbl_;
  sluice_model *model_ = nullptr;
  sluice_model_info info_{};
};

class Sampler : public Instance {
 public:
  static Result<std::unique_ptr<Sampler>> create(const Library &library, const sluice_host_api *host,
                                                 const Options &options, const sluice_model_info &model);
  ~Sampler();
  /// A request's options, in the plugin's own judgement. [io] errors: InvalidArgument, for the client
  Result<> validate(const Options &request) const;
  const sluice_sampler_vtbl *vtbl() const { return vtbl_; }
  sluice_sampler *get() const { return sampler_; }

 private:
  Sampler(std::string name, const sluice_sampler_vtbl *vtbl) : Instance(std::move(name)), vtbl_(vtbl) {}
  const sluice_sampler_vtbl *vtbl_;
  sluice_sampler *sampler_ = nullptr;
};

class Decoder : public Instance {
 public:
  static Result<std::unique_ptr<Decoder>> create(const Library &library, const sluice_host_api *host,
                                                 const Options &options, uint32_t max_seqs,
                                                 const sluice_model_info &target);
  ~Decoder();
  const sluice_decoder_needs &needs() const { return needs_; }
  Result<> validate(const Options &request) const;  ///< as Sampler::validate
  const sluice_decoder_vtbl *vtbl() const { return vtbl_; }
  sluice_decoder *get() const { return decoder_; }

 private:
  Decoder(std::string name, const sluice_decoder_vtbl *vtbl) : Instance(std::move(name)), vtbl_(vtbl) {}
  const sluice_decoder_vtbl *vtbl_;
  sluice_decoder *decoder_ = nullptr;
  sluice_decoder_needs needs_{};
};

class ForeignEngine : public Instance {
 public:
  /// host  made with the sink for its events
  static Result<std::unique_ptr<ForeignEngine>> open(const Library &library, const sluice_host_api *host,
                                                     const Options &options, const std::string &model);
  ~ForeignEngine();
  const sluice_engine_info &info() const { return info_; }
  Result<> generate(const sluice_engine_request &request) const;  ///< [any]
  Result<> cancel(uint64_t request_id) const;                     ///< [any]
  Result<> health() const;                                        ///< [any]
  sluice_engine *get() const { return engine_; }

 private:
  ForeignEngine(std::string name, const sluice_engine_vtbl *vtbl) : Instance(std::move(name)), vtbl_(vtbl) {}
  const sluice_engine_vtbl *vtbl_;
  sluice_engine *engine_ = nullptr;
  sluice_engine_info info_{};
};

}  // namespace sluice::plugin
