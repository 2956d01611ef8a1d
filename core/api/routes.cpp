#include <fmt/format.h>

#include <functional>

#include "core/api/api.hpp"
#include "core/api/handlers.hpp"

namespace sluice::api {

Context::Context(lifecycle::Service &s, metrics::Registry &m, ApiOptions o)
    : service(s),
      metrics(m),
      options(std::move(o)),
      fingerprint(fmt::format("fp_{:08x}", static_cast<uint32_t>(std::hash<std::string>{}(options.version + options.commit)))),
      ws_streams(m.gauge("sluice_ws_streams", "Open requests on WebSockets")) {}

namespace {

// What the generators count themselves is read when somebody looks.
void refresh_metrics(const lifecycle::Service &service) {
  for (const auto &model : service.models()) {
    if (model->state.phase() != lifecycle::ModelState::Phase::kReady || model->generator == nullptr) continue;
    const auto stats = model->generator->stats();
    const auto &m = model->metrics;
    m.running.set(stats.running);
    m.waiting.set(stats.waiting);
    m.swapped.set(stats.swapped);
    m.host_blocks_total.set(static_cast<double>(stats.host_blocks_total));
    m.host_blocks_used.set(static_cast<double>(stats.host_blocks_used));
    m.swaps_out.raise_to(static_cast<double>(stats.swaps_out));
    m.swaps_in.raise_to(static_cast<double>(stats.swaps_in));
    m.swapped_out_bytes.raise_to(static_cast<double>(stats.swapped_out_bytes));
    m.swapped_in_bytes.raise_to(static_cast<double>(stats.swapped_in_bytes));
    m.prefix_cache_queries.raise_to(static_cast<double>(stats.looked_up_tokens));
    m.prefix_cache_hits.raise_to(static_cast<double>(stats.cached_tokens));
    m.computed_tokens.raise_to(static_cast<double>(stats.computed_tokens));
    m.recomputed_tokens.raise_to(static_cast<double>(stats.recomputed_tokens));
    m.kv_blocks_total.set(static_cast<double>(stats.kv_blocks_total));
    m.kv_blocks_used.set(static_cast<double>(stats.kv_blocks_used));
    if (stats.kv_blocks_total > 0) {
      m.kv_usage_ratio.set(static_cast<double>(stats.kv_blocks_used) / static_cast<double>(stats.kv_blocks_total));
    }
    m.engine_steps.raise_to(static_cast<double>(stats.steps));
    m.steps_planned_ahead.raise_to(static_cast<double>(stats.steps_planned_ahead));
    m.preemptions.raise_to(static_cast<double>(stats.preemptions));
    m.plan_fallbacks.raise_to(static_cast<double>(stats.plan_fallbacks));
    m.plugin_errors.raise_to(static_cast<double>(stats.plugin_errors));
    m.plugin_overruns.raise_to(static_cast<double>(stats.plugin_overruns));
    m.reopens.raise_to(static_cast<double>(stats.reopens));
    m.healthy.set(stats.healthy ? 1 : 0);
    m.draft_rounds.raise_to(static_cast<double>(stats.draft_rounds));
    m.draft_tokens.raise_to(static_cast<double>(stats.draft_tokens));
    m.draft_accepted_tokens.raise_to(static_cast<double>(stats.draft_accepted_tokens));
    m.draft_verify_seconds.raise_to(static_cast<double>(stats.draft_verify_ns) * 1e-9);
    m.draft_plain_seconds.raise_to(static_cast<double>(stats.draft_plain_ns) * 1e-9);
    m.drafting_seconds.raise_to(static_cast<double>(stats.drafting_ns) * 1e-9);
    m.drafts_off.set(stats.drafts_off ? 1 : 0);
    m.drafts_off_for_acceptance.raise_to(static_cast<double>(stats.drafts_off_for_acceptance));
    m.drafts_off_for_cost.raise_to(static_cast<double>(stats.drafts_off_for_cost));
    m.drafts_off_for_sequence.raise_to(static_cast<double>(stats.drafts_off_for_sequence));
  }
}

}  // namespace

net::Router make_router(std::shared_ptr<Context> context) {
  using net::RouteAccess;
  using net::RouteBody;
  using Function = void (*)(Context &, const ExchangePtr &);
  context->metrics.on_scrape([weak = std::weak_ptr(context)] {
    if (const auto alive = weak.lock()) refresh_metrics(alive->service);
  });
  net::Router router;
  const auto add = [&](const char *method, const char *pattern, RouteAccess access, RouteBody body, Function function) {
    router.add({method, pattern, access, body,
                [context, function](ExchangePtr exchange) { function(*context, exchange); }});
  };
  add("GET", "/health", RouteAccess::kPublic, RouteBody::kNone, get_health);
  add("GET", "/health/ready", RouteAccess::kPublic, RouteBody::kNone, get_ready);
  add("GET", "/metrics", RouteAccess::kKey, RouteBody::kNone, get_metrics);
  add("GET", "/version", RouteAccess::kKey, RouteBody::kNone, get_version);
  add("GET", "/v1/models", RouteAccess::kKey, RouteBody::kNone, get_models);
  add("GET", "/v1/models/{}", RouteAccess::kKey, RouteBody::kNone, get_model);
  add("POST", "/v1/chat/completions", RouteAccess::kKey, RouteBody::kJson, post_chat_completions);
  add("POST", "/v1/completions", RouteAccess::kKey, RouteBody::kJson, post_completions);
  add("POST", "/tokenize", RouteAccess::kKey, RouteBody::kJson, post_tokenize);
  add("POST", "/detokenize", RouteAccess::kKey, RouteBody::kJson, post_detokenize);
  net::Route ws{"GET", "/v1/ws", RouteAccess::kKey, RouteBody::kNone, {}};
  ws.ws = [context] { return make_ws_protocol(context); };
  ws.ws_subprotocol = "sluice.v1";
  router.add(std::move(ws));
  return router;
}

}  // namespace sluice::api
