#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "core/api/error_reply.hpp"
#include "core/api/handlers.hpp"

namespace sluice::api {
namespace {

namespace json = boost::json;
using lifecycle::ModelState;
using lifecycle::ServedModel;

const char *phase_name(ModelState::Phase phase) {
  switch (phase) {
    case ModelState::Phase::kLoading: return "loading";
    case ModelState::Phase::kReady: return "ready";
    case ModelState::Phase::kFailed: return "failed";
  }
  return "failed";
}

json::object model_object(const ServedModel &model) {
  json::object o{{"id", model.name}, {"object", "model"}, {"created", model.created_unix_s}, {"owned_by", "sluice"}};
  const auto phase = model.state.phase();
  o["status"] = phase_name(phase);
  if (phase == ModelState::Phase::kReady) o["max_model_len"] = model.generator->limits().max_context;
  if (!model.aliases.empty()) o["aliases"] = json::array(model.aliases.begin(), model.aliases.end());
  return o;
}

// What load balancers and people need to see of one model; not why it failed, which may name paths.
json::object readiness(const ServedModel &model, bool &ready) {
  json::object o{{"id", model.name}};
  const auto phase = model.state.phase();
  o["status"] = phase_name(phase);
  if (phase == ModelState::Phase::kLoading) {
    const auto progress = model.state.progress();
    o["phase"] = progress.what;
    o["done"] = progress.done;
    o["total"] = progress.total;
  } else if (phase == ModelState::Phase::kReady && !model.generator->stats().healthy) {
    o["status"] = "unhealthy";
  } else if (phase == ModelState::Phase::kReady) {
    return o;
  }
  ready = false;
  return o;
}

void respond_json(net::Exchange &exchange, int status, const json::object &object) {
  net::Response response{status, "application/json", json::serialize(object), {}};
  if (status == 503) response.headers.emplace_back("retry-after", "1");
  exchange.respond(std::move(response));
}

}  // namespace

void get_health(Context &, const ExchangePtr &exchange) { respond_json(*exchange, 200, {{"status", "ok"}}); }

void get_ready(Context &context, const ExchangePtr &exchange) {
  bool ready = !context.service.models().empty();
  json::array models;
  for (const auto &model : context.service.models()) models.push_back(readiness(*model, ready));
  const bool draining = context.service.draining();
  const char *status = draining ? "shutting_down" : ready ? "ready" : "not_ready";
  respond_json(*exchange, ready && !draining ? 200 : 503, {{"status", status}, {"models", std::move(models)}});
}

void get_models(Context &context, const ExchangePtr &exchange) {
  json::array data;
  for (const auto &model : context.service.models()) data.push_back(model_object(*model));
  respond_json(*exchange, 200, {{"object", "list"}, {"data", std::move(data)}});
}

void get_model(Context &context, const ExchangePtr &exchange) {
  const auto model = context.service.find(exchange->path_parameter());
  if (model != nullptr) return respond_json(*exchange, 200, model_object(*model));
  respond_error(*exchange, {lifecycle::FailureKind::kModelNotFound, "there is no model of that name; GET /v1/models lists them",
                            "model", {}});
}

void get_metrics(Context &context, const ExchangePtr &exchange) {
  exchange->respond({200, "text/plain; version=0.0.4; charset=utf-8", context.metrics.text(), {}});
}

void get_version(Context &context, const ExchangePtr &exchange) {
  json::object o{{"version", context.options.version}};
  if (!context.options.commit.empty()) o["commit"] = context.options.commit;
  respond_json(*exchange, 200, o);
}

}  // namespace sluice::api
