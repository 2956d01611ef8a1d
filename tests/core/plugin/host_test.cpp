#include "core/plugin/host.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace sluice::plugin {
namespace {

TEST(Host, OffersEveryServiceOfTheTable) {
  ManualClock clock;
  Host host({&clock, nullptr, 2, "1.2.3"});
  const sluice_host_api *api = host.api();
  EXPECT_EQ(api->struct_size, SLUICE_SIZE_THROUGH(sluice_host_api, get_extension));
  EXPECT_EQ(api->abi_major, SLUICE_ABI_MAJOR);
  EXPECT_STREQ(api->host_version, "1.2.3");
  clock.advance_ns(41);
  EXPECT_EQ(api->now_ns(api->host), 42u);
  EXPECT_EQ(api->n_workers(api->host), 2u);
  std::atomic<uint32_t> n{0};
  api->parallel_for(api->host, 100, [](void *p, uint32_t, uint32_t) { ++*static_cast<std::atomic<uint32_t> *>(p); }, &n);
  EXPECT_EQ(n, 100u);
  EXPECT_EQ(api->get_extension(api->host, "sluice.trace", 1), nullptr);
  api->log(api->host, 99, nullptr, nullptr, 5);  // nonsense is survived
  const sluice_engine_event event{};
  EXPECT_EQ(api->engine_event(api->host, &event), SLUICE_E_NOT_FOUND);
  EXPECT_EQ(api->engine_event(api->host, nullptr), SLUICE_E_INVALID_ARGUMENT);
}

TEST(Host, BooksMetricsOnTheInstance) {
  const SteadyClock clock;
  metrics::Registry registry;
  Host host({&clock, &registry, 1, "1"});
  const sluice_host_api *a = host.api_for("chat", "scheduler mlfq"), *b = host.api_for("code", "scheduler mlfq");
  uint64_t ida = 0, idb = 0, gauge = 0, histogram = 0;
  ASSERT_EQ(a->metric(a->host, SLUICE_METRIC_COUNTER, "promotions_total", "Promotions", &ida), SLUICE_OK);
  ASSERT_EQ(b->metric(b->host, SLUICE_METRIC_COUNTER, "promotions_total", "Promotions", &idb), SLUICE_OK);
  ASSERT_EQ(a->metric(a->host, SLUICE_METRIC_GAUGE, "levels", "Levels", &gauge), SLUICE_OK);
  ASSERT_EQ(a->metric(a->host, SLUICE_METRIC_HISTOGRAM, "wait_seconds", "Waits", &histogram), SLUICE_OK);
  a->metric_update(a->host, ida, 2);
  b->metric_update(b->host, idb, 3);
  a->metric_update(a->host, ida, -5);
  a->metric_update(a->host, ida, std::nan(""));
  a->metric_update(a->host, gauge, 7);
  a->metric_update(a->host, histogram, 0.5);
  a->metric_update(a->host, 0, 1);
  a->metric_update(a->host, 123456789, 1);
  const std::string text = registry.text();
  EXPECT_NE(text.find("sluice_plugin_promotions_total{model=\"chat\",plugin=\"scheduler mlfq\"} 2"), std::string::npos)
      << text;
  EXPECT_NE(text.find("sluice_plugin_promotions_total{model=\"code\",plugin=\"scheduler mlfq\"} 3"), std::string::npos);
  EXPECT_NE(text.find("sluice_plugin_levels{model=\"chat\",plugin=\"scheduler mlfq\"} 7"), std::string::npos);
  EXPECT_NE(text.find("sluice_plugin_wait_seconds_count{model=\"chat\",plugin=\"scheduler mlfq\"} 1"),
            std::string::npos);
}

TEST(Host, RefusesMetricsThatCannotBe) {
  const SteadyClock clock;
  metrics::Registry registry;
  Host host({&clock, &registry, 1, "1"});
  const sluice_host_api *a = host.api();
  uint64_t id = 0;
  ASSERT_EQ(a->metric(a->host, SLUICE_METRIC_COUNTER, "x_total", "", &id), SLUICE_OK);
  EXPECT_EQ(a->metric(a->host, SLUICE_METRIC_GAUGE, "x_total", "", &id), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(a->metric(a->host, SLUICE_METRIC_GAUGE, "No Good", "", &id), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(a->metric(a->host, SLUICE_METRIC_GAUGE, nullptr, nullptr, &id), SLUICE_E_INVALID_ARGUMENT);
  EXPECT_EQ(a->metric(a->host, 17, "y", "", &id), SLUICE_E_UNSUPPORTED);
  EXPECT_EQ(a->metric(a->host, SLUICE_METRIC_GAUGE, "y", "", nullptr), SLUICE_E_INVALID_ARGUMENT);
}

TEST(Host, GivesEngineEventsToTheSinkOfTheInstance) {
  struct Sink : EngineEventSink {
    uint64_t last = 0;
    int32_t on_engine_event(const sluice_engine_event &e) override { return last = e.request_id, SLUICE_E_CANCELLED; }
  } sink;
  const SteadyClock clock;
  Host host({&clock, nullptr, 1, "1"});
  const sluice_host_api *a = host.api_for("m", "engine e", &sink);
  sluice_engine_event event{};
  event.request_id = 9;
  EXPECT_EQ(a->engine_event(a->host, &event), SLUICE_E_CANCELLED);
  EXPECT_EQ(sink.last, 9u);
}

}  // namespace
}  // namespace sluice::plugin
