#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace prometheus {
class Registry;
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace sluice::metrics {

using Labels = std::vector<std::pair<std::string, std::string>>;

/// Handles are as cheap to copy as a pointer, live as long as their Registry, and do nothing when default-made. [any]
class Counter {
 public:
  Counter() = default;
  void add(double amount = 1) const;  ///< amount >= 0
  /// Lifts a counter that something else counts to `total`; never lowers it. One caller at a time.
  void raise_to(double total) const;
  double value() const;

 private:
  friend class Registry;
  explicit Counter(prometheus::Counter *counter) : counter_(counter) {}
  prometheus::Counter *counter_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  void set(double value) const;
  void add(double amount) const;
  double value() const;

 private:
  friend class Registry;
  explicit Gauge(prometheus::Gauge *gauge) : gauge_(gauge) {}
  prometheus::Gauge *gauge_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  void observe(double value) const;

 private:
  friend class Registry;
  explicit Histogram(prometheus::Histogram *histogram) : histogram_(histogram) {}
  prometheus::Histogram *histogram_ = nullptr;
};

/// Every metric of the process and its Prometheus text. [any]
class Registry {
 public:
  /// vllm_aliases  also write the families that dashboards know as `vllm:*`, copied at scrape time
  explicit Registry(bool vllm_aliases = false);
  ~Registry();
  Registry(const Registry &) = delete;
  Registry &operator=(const Registry &) = delete;

  /// The same name and labels give the same metric.
  /// throws std::invalid_argument on a malformed name or label: names are ours, so this is our own mistake. What a
  /// plugin names is checked first, with valid_name().
  Counter counter(const std::string &name, const std::string &help, const Labels &labels = {});
  Gauge gauge(const std::string &name, const std::string &help, const Labels &labels = {});
  /// upper_bounds  ascending; +Inf is added
  Histogram histogram(const std::string &name, const std::string &help, const Labels &labels,
                      const std::vector<double> &upper_bounds);

  /// Runs before every scrape, to refresh gauges that are read rather than kept.
  void on_scrape(std::function<void()> refresh);

  /// Prometheus text exposition format 0.0.4.
  std::string text();

  static bool valid_name(std::string_view name);  ///< [a-z][a-z0-9_]*

 private:
  const bool vllm_aliases_;
  std::unique_ptr<prometheus::Registry> registry_;
  std::mutex scrape_mutex_;
  std::vector<std::function<void()>> refreshers_;
};

}  // namespace sluice::metrics
