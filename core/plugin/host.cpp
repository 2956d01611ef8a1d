#include "core/plugin/host.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/base/log.hpp"
#include "core/plugin/options.hpp"

namespace sluice::plugin {
namespace {

constexpr uint64_t kMaxMetrics = 4096;
constexpr size_t kMaxLogBytes = 16 * 1024;

/// What a plugin measures may be seconds, bytes or tokens: 1e-6 to 1e6, each bound four times the one before.
std::vector<double> histogram_bounds() {
  std::vector<double> bounds;
  for (double b = 1e-6; b < 1e6; b *= 4) bounds.push_back(b);
  return bounds;
}

std::string text_of(const char *p, size_t max) {
  return p == nullptr ? std::string() : std::string(p, strnlen(p, max));
}

}  // namespace

struct Host::Instance {
  Host *host = nullptr;
  std::string model, plugin;
  EngineEventSink *sink = nullptr;
  sluice_host_api api{};
};

struct Host::Metric {
  int32_t kind = 0;
  metrics::Counter counter;
  metrics::Gauge gauge;
  metrics::Histogram histogram;
};

struct HostCalls {
  static Host::Instance &at(sluice_host *h) { return *reinterpret_cast<Host::Instance *>(h); }

  static void log(sluice_host *h, int32_t level, const char *component, const char *msg, size_t len) {
    if (msg == nullptr) return;
    const auto known = static_cast<log::Level>(std::clamp(level, SLUICE_LOG_TRACE, SLUICE_LOG_ERROR));
    if (!log::enabled(known)) return;
    const std::string who = text_of(component, 64);
    log::write(known, who.empty() ? at(h).plugin : who, std::string_view(msg, std::min(len, kMaxLogBytes)));
  }
  static uint64_t now_ns(sluice_host *h) { return at(h).host->parts_.clock->now_ns(); }
  static int32_t metric(sluice_host *h, int32_t kind, const char *name, const char *help, uint64_t *id) {
    if (id == nullptr) return SLUICE_E_INVALID_ARGUMENT;
    const auto made = at(h).host->add_metric(at(h), kind, text_of(name, 128), text_of(help, 512));
    if (!made) {
      log::warn(at(h).plugin, "{}", made.error().message);
      return static_cast<int32_t>(made.error().code);
    }
    *id = *made;
    return SLUICE_OK;
  }
  static void metric_update(sluice_host *h, uint64_t id, double value) { at(h).host->update_metric(id, value); }
  static void parallel_for(sluice_host *h, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
    at(h).host->pool_.run(n, fn, ctx);
  }
  static uint32_t n_workers(sluice_host *h) { return at(h).host->pool_.n_workers(); }
  static int32_t engine_event(sluice_host *h, const sluice_engine_event *event) {
    if (event == nullptr) return SLUICE_E_INVALID_ARGUMENT;
    return at(h).sink == nullptr ? SLUICE_E_NOT_FOUND : at(h).sink->on_engine_event(*event);
  }
  static const void *get_extension(sluice_host *, const char *, uint32_t) { return nullptr; }  // none yet

  static void fill(Host::Instance &instance) {
    sluice_host_api &api = instance.api;
    api.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, get_extension);
    api.abi_major = SLUICE_ABI_MAJOR, api.abi_minor = SLUICE_ABI_MINOR, api.abi_floor = SLUICE_ABI_FLOOR;
    api.host_version = instance.host->parts_.version.c_str();
    api.host = reinterpret_cast<sluice_host *>(&instance);
    api.log = log, api.now_ns = now_ns;
    set_config_getters(api);
    api.metric = metric, api.metric_update = metric_update;
    api.parallel_for = parallel_for, api.n_workers = n_workers;
    api.engine_event = engine_event, api.get_extension = get_extension;
  }
};

Host::Host(Parts parts)
    : parts_(std::move(parts)), pool_(parts_.n_workers), metrics_(std::make_unique<Metric[]>(kMaxMetrics)) {
  api_for("", "plugin");
}
Host::~Host() = default;

const sluice_host_api *Host::api() const { return &instances_.front().api; }

const sluice_host_api *Host::api_for(const std::string &model, const std::string &plugin, EngineEventSink *sink) {
  const std::lock_guard lock(mutex_);
  Instance &instance = instances_.emplace_back();
  instance.host = this;
  instance.model = model, instance.plugin = plugin, instance.sink = sink;
  HostCalls::fill(instance);
  return &instance.api;
}

Result<uint64_t> Host::add_metric(const Instance &instance, int32_t kind, const std::string &name,
                                  const std::string &help) {
  const std::string full = "sluice_plugin_" + name;
  if (!metrics::Registry::valid_name(name))
    return invalid_argument(fmt::format("the metric name '{}' is not [a-z][a-z0-9_]*", name));
  if (kind < SLUICE_METRIC_COUNTER || kind > SLUICE_METRIC_HISTOGRAM)
    return Error{Code::kUnsupported, fmt::format("the metric {} is of the unknown kind {}", name, kind), {}};
  const std::lock_guard lock(mutex_);
  const auto [known, is_new] = metric_kinds_.try_emplace(full, kind);
  if (!is_new && known->second != kind)
    return invalid_argument(fmt::format("the metric {} exists already with another kind", name));
  const uint64_t index = n_metrics_.load(std::memory_order_relaxed);
  if (index == kMaxMetrics)
    return Error{Code::kResourceExhausted, fmt::format("the plugins have more than {} metrics", kMaxMetrics), {}};

  Metric &m = metrics_[index];
  m.kind = kind;
  const metrics::Labels labels{{"model", instance.model}, {"plugin", instance.plugin}};
  if (parts_.metrics != nullptr) {
    if (kind == SLUICE_METRIC_COUNTER) m.counter = parts_.metrics->counter(full, help, labels);
    if (kind == SLUICE_METRIC_GAUGE) m.gauge = parts_.metrics->gauge(full, help, labels);
    if (kind == SLUICE_METRIC_HISTOGRAM)
      m.histogram = parts_.metrics->histogram(full, help, labels, histogram_bounds());
  }
  n_metrics_.store(index + 1, std::memory_order_release);
  return index + 1;  // 0 is what a plugin has that forgot to register
}

void Host::update_metric(uint64_t id, double value) {
  if (id == 0 || id > n_metrics_.load(std::memory_order_acquire) || std::isnan(value)) return;
  const Metric &m = metrics_[id - 1];
  if (m.kind == SLUICE_METRIC_COUNTER && value > 0) m.counter.add(value);
  if (m.kind == SLUICE_METRIC_GAUGE) m.gauge.set(value);
  if (m.kind == SLUICE_METRIC_HISTOGRAM) m.histogram.observe(value);
}

}  // namespace sluice::plugin
