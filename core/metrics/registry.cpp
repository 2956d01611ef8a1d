#include "core/metrics/registry.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <stdexcept>

namespace sluice::metrics {
namespace {

struct Alias {
  std::string_view native, vllm;
};

// source: the names vLLM's metrics page lists, which gateways and dashboards read.
constexpr std::array kAliases{
    Alias{"sluice_requests_running", "vllm:num_requests_running"},
    Alias{"sluice_requests_waiting", "vllm:num_requests_waiting"},
    Alias{"sluice_kv_usage_ratio", "vllm:kv_cache_usage_perc"},
    Alias{"sluice_prompt_tokens_total", "vllm:prompt_tokens_total"},
    Alias{"sluice_generation_tokens_total", "vllm:generation_tokens_total"},
    Alias{"sluice_requests_finished_total", "vllm:request_success_total"},
    Alias{"sluice_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
    Alias{"sluice_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"},
    Alias{"sluice_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds"},
    Alias{"sluice_request_queue_seconds", "vllm:request_queue_time_seconds"},
    Alias{"sluice_request_prompt_tokens", "vllm:request_prompt_tokens"},
    Alias{"sluice_request_generation_tokens", "vllm:request_generation_tokens"},
    Alias{"sluice_preemptions_total", "vllm:num_preemptions_total"},
    Alias{"sluice_requests_swapped", "vllm:num_requests_swapped"},
    Alias{"sluice_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"},
    Alias{"sluice_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"},
};

prometheus::MetricFamily renamed(const prometheus::MetricFamily &family, std::string_view name) {
  prometheus::MetricFamily copy = family;
  copy.name = std::string(name);
  for (auto &metric : copy.metric) {
    for (auto &label : metric.label) {
      if (label.name == "model") label.name = "model_name";
      if (label.name == "reason") label.name = "finished_reason";
    }
    metric.label.push_back({"engine", "0"});
    std::sort(metric.label.begin(), metric.label.end(), [](const auto &a, const auto &b) { return a.name < b.name; });
  }
  return copy;
}

std::map<std::string, std::string> to_map(const Labels &labels) { return {labels.begin(), labels.end()}; }

}  // namespace

void Counter::add(double amount) const {
  if (counter_ != nullptr) counter_->Increment(amount);
}
void Counter::raise_to(double total) const {
  if (counter_ != nullptr && total > counter_->Value()) counter_->Increment(total - counter_->Value());
}
double Counter::value() const { return counter_ != nullptr ? counter_->Value() : 0; }

void Gauge::set(double value) const {
  if (gauge_ != nullptr) gauge_->Set(value);
}
void Gauge::add(double amount) const {
  if (gauge_ != nullptr) gauge_->Increment(amount);
}
double Gauge::value() const { return gauge_ != nullptr ? gauge_->Value() : 0; }

void Histogram::observe(double value) const {
  if (histogram_ != nullptr) histogram_->Observe(value);
}

Registry::Registry(bool vllm_aliases)
    : vllm_aliases_(vllm_aliases), registry_(std::make_unique<prometheus::Registry>()) {}
Registry::~Registry() = default;

bool Registry::valid_name(std::string_view name) {
  if (name.empty() || name.size() > 128 || name.front() < 'a' || name.front() > 'z') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

Counter Registry::counter(const std::string &name, const std::string &help, const Labels &labels) {
  return Counter(&prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(to_map(labels)));
}

Gauge Registry::gauge(const std::string &name, const std::string &help, const Labels &labels) {
  return Gauge(&prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(to_map(labels)));
}

Histogram Registry::histogram(const std::string &name, const std::string &help, const Labels &labels,
                              const std::vector<double> &upper_bounds) {
  auto &family = prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_);
  return Histogram(&family.Add(to_map(labels), upper_bounds));
}

void Registry::on_scrape(std::function<void()> refresh) {
  const std::lock_guard lock(scrape_mutex_);
  refreshers_.push_back(std::move(refresh));
}

std::string Registry::text() {
  const std::lock_guard lock(scrape_mutex_);
  for (const auto &refresh : refreshers_) refresh();
  auto families = registry_->Collect();
  if (vllm_aliases_) {
    const size_t n_native = families.size();
    for (size_t i = 0; i < n_native; ++i) {
      for (const Alias &alias : kAliases) {
        if (families[i].name == alias.native) families.push_back(renamed(families[i], alias.vllm));
      }
    }
  }
  std::sort(families.begin(), families.end(), [](const auto &a, const auto &b) { return a.name < b.name; });
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return out.str();
}

}  // namespace sluice::metrics
