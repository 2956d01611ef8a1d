#pragma once
#include <memory>

#include "core/app/model_runtime.hpp"
#include "core/app/progress.hpp"
#include "core/lifecycle/served_model.hpp"

namespace sluice::app {

/// The service's view of a model that is still to be loaded.
std::shared_ptr<lifecycle::ServedModel> make_served(const config::Model &model, metrics::Registry &metrics);

/// Fills it with what was loaded and calls it ready. The runtime outlives the service's use of the model.
/// generator  the runtime's, or what stands in front of it
void attach(lifecycle::ServedModel &served, const ModelRuntime &runtime, const ModelPlugins &plugins,
            std::shared_ptr<request::Generator> generator);

/// Shows a load on the terminal and, when `served` is given, in /health/ready.
LoadHooks progress_hooks(Progress &progress, lifecycle::ServedModel *served);

/// [server].log_level and log_format.
void configure_log(const config::Server &server);

}  // namespace sluice::app
