#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <pthread.h>

#include <boost/json/object.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "core/api/api.hpp"
#include "core/app/command.hpp"
#include "core/app/last_resort.hpp"
#include "core/app/model_runtime.hpp"
#include "core/app/paths.hpp"
#include "core/app/progress.hpp"
#include "core/app/reload.hpp"
#include "core/app/served.hpp"
#include "core/app/version.hpp"
#include "core/base/log.hpp"
#include "core/engine/supervisor.hpp"
#include "core/net/server.hpp"

namespace sluice::app {
namespace {

/// More than a plugin in a process of its own is given to close before it is killed.
constexpr std::chrono::milliseconds kClosePatience{6'000};

sigset_t our_signals(bool with_reload) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (with_reload) sigaddset(&set, SIGHUP);
  return set;
}

/// Waits for SIGINT, SIGTERM and, where there is a file to read again, SIGHUP on a thread of its own; they must be
/// blocked in every thread before it starts.
class Signals {
 public:
  explicit Signals(bool with_reload) {
    thread_ = std::thread([this, with_reload] {
      const sigset_t set = our_signals(with_reload);
      int signal = 0;
      while (!quit_) {
        if (sigwait(&set, &signal) != 0 || quit_) continue;
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
        if (signal == SIGHUP) {
          reload_ = true;
          continue;
        }
        if (count_++ == 0) log::info("serve", "{}: draining; once more to stop at once", strsignal(signal));
        if (count_ == 1 && stop_) stop_();
        if (count_ > 1 && hurry_) hurry_();
      }
    });
  }
  ~Signals() {
    quit_ = true;
    pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }
  bool seen() const { return count_ > 0; }
  /// Called with the first signal to stop, on the thread that waits for them.
  void on_first(std::function<void()> stop) {
    const std::lock_guard lock(mutex_);
    stop_ = std::move(stop);
    if (stop_ && count_ > 0) stop_();
  }
  /// Until it is time to stop, running `reload` whenever that is asked for.
  void wait(const std::function<void()> &reload) {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return count_ > 0 || reload_; });
        if (count_ > 0) return;
        reload_ = false;
      }
      reload();
    }
  }
  void on_second(std::function<void()> hurry) {
    const std::lock_guard lock(mutex_);
    hurry_ = std::move(hurry);
  }

 private:
  std::atomic<int> count_{0};
  std::atomic<bool> quit_{false};
  bool reload_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> stop_, hurry_;
  std::thread thread_;
};

net::ServerOptions server_options(const config::Server &server) {
  net::ServerOptions out;
  out.host = server.host;
  out.port = server.port;
  out.io_threads = server.threads;
  out.allow_unauthenticated = server.allow_unauthenticated;
  out.limits.max_connections = server.max_connections;
  out.limits.body_bytes = server.max_body_bytes;
  out.limits.head_timeout = server.header_timeout;
  out.limits.body_timeout = server.body_timeout;
  out.limits.idle_timeout = server.idle_timeout;
  out.limits.sse_keepalive = server.sse_keepalive;
  out.limits.stall_timeout = server.stall_timeout;
  out.access.api_keys = server.api_keys;
  out.access.allowed_hosts = server.allowed_hosts;
  out.access.allowed_origins = server.allowed_origins;
  return out;
}

lifecycle::ServiceOptions service_options(const config::Server &server, size_t n_models) {
  lifecycle::ServiceOptions out;
  out.max_inflight = static_cast<uint32_t>(server.max_queued * std::max<size_t>(1, n_models));
  out.max_answers = server.max_n;
  out.max_prompts = server.max_prompts;
  out.max_stop_strings = server.max_stops;
  out.max_logprobs = kMaxTopLogprobs;
  return out;
}

/// The order of the members is that of construction; destruction is its reverse.
class ServeProcess {
 public:
  int run(const config::LoadInput &input, const config::Loaded &loaded);
  /// Plugins close with their instances, and may never be done with that.
  ~ServeProcess() { last_resort_.arm("closing the plugins", patience_); }

 private:
  Result<> load_plugins(const config::Config &config);

  LastResort last_resort_;
  std::chrono::milliseconds patience_{kClosePatience};  ///< with plugins, when the process is to end
  SteadyClock clock_;
  std::unique_ptr<metrics::Registry> metrics_;
  std::unique_ptr<PluginHouse> house_;
  std::vector<ModelPlugins> plugins_;  ///< one per model
  std::vector<std::unique_ptr<ModelRuntime>> runtimes_;
  std::vector<std::shared_ptr<engine::Supervisor>> supervisors_;  ///< one per runtime
};

Result<> ServeProcess::load_plugins(const config::Config &config) {
  auto house = PluginHouse::open(config.plugins, clock_, metrics_.get());
  if (!house) return house.error();
  house_ = std::move(*house);
  house_->load_libraries(config);
  std::vector<config::Problem> problems;
  for (const auto &model : config.models) plugins_.push_back(house_->configure(model, problems));
  for (const auto &problem : problems) fmt::print(stderr, "{}\n", config::to_string(problem));
  if (!problems.empty()) return invalid_argument(fmt::format("{} problem(s) with plugins", problems.size()));
  return {};
}

/// What runs the model: its engine or its backend.
const ConfiguredPlugin &runner(const ModelPlugins &plugins) {
  return plugins.engine.library != nullptr ? plugins.engine : plugins.backend;
}

void publish(metrics::Registry &metrics, const ModelPlugins &plugins) {
  const auto one = [&](const ConfiguredPlugin &use, const char *kind) {
    const auto &m = use.library->metadata;
    metrics::publish_plugin_info(metrics, kind, m.name, m.version,
                                 fmt::format("{}.{}", m.abi_major, m.abi_minor_built));
  };
  if (plugins.engine.library != nullptr) return one(plugins.engine, "engine");
  one(plugins.backend, "backend");
  one(plugins.scheduler, "scheduler");
  for (const auto &sampler : plugins.samplers) one(sampler, "sampler");
  one(plugins.decoder, "decoder");
}

std::shared_ptr<engine::Supervisor> supervise(const std::string &model, ModelRuntime &runtime,
                                              const config::Plugins &plugins) {
  engine::ReopenPolicy policy;
  policy.first_delay = plugins.reopen_delay;
  policy.max_attempts = plugins.max_reopens;
  const auto reopen = [&runtime](const request::GeneratorStats &last, const std::function<bool()> &stop) {
    return runtime.reopen(last.culprit, stop);
  };
  return std::make_shared<engine::Supervisor>(model, runtime.generator(), reopen, policy,
                                              [&runtime] { return runtime.backend_health(); });
}

int ServeProcess::run(const config::LoadInput &input, const config::Loaded &loaded) {
  const auto &config = loaded.config;
  patience_ = config.plugins.call_deadline + kClosePatience;
  metrics_ = std::make_unique<metrics::Registry>(config.server.vllm_metric_names);
  metrics::publish_build_info(*metrics_, kVersion, "");
  const bool can_reload = !input.path.empty();
  const sigset_t signals_set = our_signals(can_reload);
  pthread_sigmask(SIG_BLOCK, &signals_set, nullptr);
  // Libraries first, while this thread is the only one: their constructors may mind.
  if (auto r = load_plugins(config); !r) return fail(r.error());
  for (const auto &plugins : plugins_) publish(*metrics_, plugins);

  Signals signals(can_reload);
  Reloader reloader(input, loaded, *house_, *metrics_);
  lifecycle::Service service(service_options(config.server, config.models.size()),
                             std::shared_ptr<const Clock>(&clock_, [](const Clock *) {}));
  std::vector<std::shared_ptr<lifecycle::ServedModel>> served;
  for (const auto &model : config.models) {
    served.push_back(make_served(model, *metrics_));
    if (auto r = service.add(served.back()); !r) return fail(r.error());
  }

  auto options = server_options(config.server);
  api::ApiOptions api_options;
  api_options.version = kVersion;
  api_options.limits = options.limits;
  api_options.drain_timeout = config.server.drain_timeout;
  auto context = std::make_shared<api::Context>(service, *metrics_, api_options);
  net::Server server(options, api::make_router(context), *metrics_);
  if (auto r = server.start(); !r) return fail(r.error());
  fmt::print("listening on http://{}:{}\n", config.server.host.find(':') == std::string::npos
                                                ? config.server.host : "[" + config.server.host + "]", server.port());
  std::fflush(stdout);

  int code = 0;
  signals.on_first([this] { last_resort_.arm("loading a model", 2 * patience_); });
  for (size_t i = 0; i < config.models.size() && !signals.seen(); ++i) {
    Progress progress;
    LoadHooks hooks = progress_hooks(progress, served[i].get());
    hooks.stop = [&signals] { return signals.seen(); };
    hooks.find_model = [&](const std::string &name) -> std::optional<DraftModelSource> {
      for (size_t m = 0; m < config.models.size(); ++m)
        if (config.models[m].name == name && plugins_[m].backend.library != nullptr)
          return DraftModelSource{config.models[m].path, plugins_[m].backend};
      return std::nullopt;
    };
    log::info("load", "{}: {}", config.models[i].name, config.models[i].path);
    auto runtime = ModelRuntime::load(config.models[i], plugins_[i], house_->host(), clock_,
                                      config.server.max_queued, hooks);
    if (runtime) {
      supervisors_.push_back(supervise(config.models[i].name, **runtime, config.plugins));
      attach(*served[i], **runtime, plugins_[i], supervisors_.back());
      reloader.add(config.models[i].name, **runtime, plugins_[i].scheduler);
      runtimes_.push_back(std::move(*runtime));
      log::info("load", "{} is ready", config.models[i].name);
    } else if (!signals.seen()) {
      code = fail({runtime.error().code, fmt::format("model {}: {}", config.models[i].name, runtime.error().message),
                   {}});
      served[i]->state.failed(runtime.error().message);
      // With one model there is nothing to serve; with several the others go on, and /health/ready tells.
      if (config.models.size() == 1) return code;
    }
  }
  signals.on_first(nullptr);
  last_resort_.disarm();
  if (!signals.seen() && runtimes_.empty()) return code;
  code = 0;
  if (!signals.seen())
    log::info("serve", "ready: {} model(s), {}, key {}", runtimes_.size(), runner(plugins_[0]).library->title(),
              config.server.api_keys.empty() ? "off" : "on");
  signals.wait([&] { reloader.reload(); });

  signals.on_second([&service] { service.hurry(); });
  service.begin_drain();
  server.drain();
  const bool clean = service.drain(config.server.drain_timeout);
  if (!clean) log::warn("serve", "some requests did not finish within the drain timeout and were cancelled");
  signals.on_second(nullptr);
  server.stop();
  bool stuck = false;
  last_resort_.arm("stopping the models", 2 * patience_);
  for (const auto &supervisor : supervisors_) {
    supervisor->stop();
    stuck |= supervisor->stuck();
  }
  log::info("serve", "stopped");
  if (stuck) {  // a thread is still inside of a plugin, so nothing may be taken down under it
    std::fflush(nullptr);
    std::_Exit(1);
  }
  return 0;
}

config::LoadInput load_input(const std::string &target, std::vector<config::Override> flags) {
  config::LoadInput input;
  const bool is_model = target.empty() || target.ends_with(".gguf");
  if (!is_model) input.path = target;
  input.flags = std::move(flags);
  if (is_model) {
    const std::string path = absolute_path(target.empty() ? default_model_path() : target);
    std::string name = std::filesystem::path(path).stem().string();
    for (auto &c : name)
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_') c = '-';
    for (auto &flag : input.flags)
      if (flag.key.starts_with("model.")) flag.key = "models." + name + flag.key.substr(5);
    input.flags.push_back({"models." + name + ".path", path, target.empty() ? "the default model" : "MODEL"});
  }
  return input;
}

}  // namespace

void add_serve(CLI::App &app, Exit exit) {
  auto target = std::make_shared<std::string>();
  auto flags = std::make_shared<std::vector<config::Override>>();
  auto *command = app.add_subcommand("serve", "Serve models over HTTP, SSE and WebSocket");
  command->add_option("TARGET", *target, "CONFIG.toml or MODEL.gguf; without one, the model that ships");
  const auto flag = [&](const char *name, const char *key, const char *help) {
    command->add_option_function<std::string>(
        name, [=](const std::string &value) { flags->push_back({key, value, name}); }, help);
  };
  flag("--host", "server.host", "Address to listen on (127.0.0.1)");
  flag("--port", "server.port", "Port; 0 = any free one (8080)");
  flag("--api-key-file", "server.api_key_file", "File with one API key a line");
  flag("--log-level", "server.log_level", "trace, debug, info, warn or error");
  flag("--log-format", "server.log_format", "auto, text or json");
  // These speak of the one model of a start without a file.
  flag("--backend", "model.backend", "Backend plugin, with MODEL.gguf");
  flag("--scheduler", "model.scheduler", "Scheduler plugin, with MODEL.gguf");
  flag("--context", "model.context", "Context in tokens, with MODEL.gguf");
  flag("--max-seqs", "model.max_seqs", "Sequences in one step, with MODEL.gguf");
  command->callback([=] {
    const auto input = load_input(*target, *flags);
    const auto loaded = config::load(input);
    for (const auto &problem : loaded.problems) fmt::print(stderr, "{}\n", config::to_string(problem));
    if (!loaded.problems.empty()) return exit(1);
    if (loaded.config.models.empty())
      return exit(fail(invalid_argument(*target + " names no model; add a [models.NAME] with its path")));
    configure_log(loaded.config.server);
    ServeProcess process;
    exit(process.run(input, loaded));
  });
}

}  // namespace sluice::app
