// The engine table of a plugin that lives in a child.
#include <cstring>

#include "core/isolation/isolated_plugin.hpp"

namespace sluice::isolation {
namespace {


struct RemoteEngine {
  std::unique_ptr<Remote> remote;
  const sluice_host_api *api = nullptr;
  const IsolatedPlugin *plugin = nullptr;
  sluice_engine_info info{};
  std::string vocab_path;
};

RemoteEngine &at(sluice_engine *e) { return *reinterpret_cast<RemoteEngine *>(e); }

void close(sluice_engine *e) {
  const std::unique_ptr<RemoteEngine> engine(&at(e));
  engine->remote->close(kCloseTime);
}

int32_t info(const sluice_engine *e, sluice_engine_info *out, sluice_status *) {
  const RemoteEngine &engine = at(const_cast<sluice_engine *>(e));
  const uint32_t room = out->struct_size;
  std::memcpy(out, &engine.info, std::min<size_t>(room, sizeof engine.info));
  out->struct_size = room;
  if (SLUICE_HAS(out, sluice_engine_info, vocab_path))
    out->vocab_path = engine.vocab_path.empty() ? nullptr : engine.vocab_path.c_str();
  return SLUICE_OK;
}

int32_t generate(sluice_engine *e, const sluice_engine_request *request, sluice_status *st) {
  RemoteEngine &engine = at(e);
  Packer p;
  p.value(request->input_kind), p.value(request->request_id), p.value(request->n_prompt), p.value(request->max_new);
  const int32_t *prompt = request->prompt;
  p.array(prompt, request->n_prompt);
  p.text(request->text == nullptr ? std::string() : std::string(request->text, request->text_bytes));
  p.value(request->seed), p.value(request->deadline_ns);
  sluice_sample_spec spec{};
  if (request->spec != nullptr) std::memcpy(&spec, request->spec, std::min<size_t>(request->spec->struct_size, sizeof spec));
  p.value(spec);
  pack_config(p, *engine.api, request->request, engine.plugin->fields.data(),
              static_cast<uint32_t>(engine.plugin->fields.size()));
  return engine.remote->call(Call::kGenerate, p, st);
}

int32_t cancel(sluice_engine *e, uint64_t request_id, sluice_status *st) {
  Packer p;
  p.value(request_id);
  return at(e).remote->call(Call::kCancel, p, st);
}

int32_t health(sluice_engine *e, sluice_status *st) { return at(e).remote->call(Call::kEngineHealth, Packer(), st); }

}  // namespace

void fill_engine(sluice_engine_vtbl &vtbl) {
  vtbl.close = close, vtbl.info = info;
  vtbl.generate = generate, vtbl.cancel = cancel, vtbl.health = health;
}

int32_t open_isolated_engine(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_config *config,
                             const char *model, sluice_engine **out, sluice_status *st) {
  auto remote = plugin.start(api);
  if (!remote) return report(st, static_cast<int32_t>(remote.error().code), 0, remote.error().message);
  auto engine = std::make_unique<RemoteEngine>();
  engine->remote = std::move(*remote), engine->api = api, engine->plugin = &plugin;
  engine->remote->listen([api](const sluice_engine_event &event) { return api->engine_event(api->host, &event); });
  Packer p;
  pack_config(p, *api, config, plugin.fields.data(), static_cast<uint32_t>(plugin.fields.size()));
  p.text(model);
  Reply reply;
  Remote &r = *engine->remote;
  if (const int32_t code = r.call(Call::kEngineOpen, p, reply, st, r.times().silence); code != SLUICE_OK) return code;
  Reply said;
  if (const int32_t code = r.call(Call::kEngineInfo, Packer(), said, st, r.times().call); code != SLUICE_OK) return code;
  said.results.value(engine->info);
  engine->info.vocab_path = nullptr;
  engine->vocab_path = said.results.text();
  if (!said.results.ok()) return r.refuse("an answer that is too short", st);
  *out = reinterpret_cast<sluice_engine *>(engine.release());
  return SLUICE_OK;
}

}  // namespace sluice::isolation
