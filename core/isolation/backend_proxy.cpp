// The backend table of a plugin that lives in a child: every call becomes a message.
#include <algorithm>
#include <cstring>
#include <limits>

#include "core/isolation/isolated_plugin.hpp"

namespace sluice::isolation {
namespace {

constexpr uint32_t kMaxVocab = 1 << 24, kMaxHeads = 64;
constexpr size_t kMaxResultBytes = size_t{1} << 32;
constexpr uint64_t kAway = SLUICE_CAP_LOGITS_DEV;  ///< what does not cross

struct RemoteBackend {
  std::unique_ptr<Remote> remote;
  const sluice_host_api *api = nullptr;
  std::vector<sluice_config_field> fields;
};

struct Pending {
  sluice_ticket theirs = 0;
  ResultShape shape;
  Reply reply;  ///< what a result points into
};

struct RemoteModel {
  RemoteBackend *backend = nullptr;
  uint64_t id = 0;
  sluice_model_info info{};
  uint32_t max_top = 0;
  std::mutex mutex;
  sluice_ticket next_ticket = 1;  ///< our own numbers, so that two of theirs cannot be one
  std::map<sluice_ticket, Pending> pending;
};

RemoteBackend &at(sluice_backend *b) { return *reinterpret_cast<RemoteBackend *>(b); }
RemoteModel &at(sluice_model *m) { return *reinterpret_cast<RemoteModel *>(m); }
RemoteModel &at(const sluice_model *m) { return at(const_cast<sluice_model *>(m)); }

Packer about(const RemoteModel &m) {
  Packer p;
  p.value(m.id);
  return p;
}

/// Copies a struct that came as a whole into the room that the caller has.
template <class T> void give(T *out, T value) {
  const uint32_t room = out->struct_size;
  std::memcpy(out, &value, std::min<size_t>(room, sizeof value));
  out->struct_size = room;
}

void pack(Packer &p, const sluice_model_setup &setup) {
  sluice_model_setup whole{};
  std::memcpy(&whole, &setup, std::min<size_t>(setup.struct_size, sizeof whole));
  p.value(whole);
}

/// A call whose one result is a struct.
template <class T> int32_t ask(Remote &remote, Call call, const Packer &arguments, T *out, sluice_status *st) {
  Reply reply;
  if (const int32_t code = remote.call(call, arguments, reply, st, remote.times().call); code != SLUICE_OK) return code;
  const T value = reply.results.get<T>();
  if (!reply.results.ok()) return remote.refuse("an answer that is too short", st);
  give(out, value);
  return SLUICE_OK;
}

int32_t model_load(sluice_backend *b, const sluice_model_source *source, sluice_model **out, sluice_status *st) {
  RemoteBackend &backend = at(b);
  Remote &remote = *backend.remote;
  Packer p;
  pack_config(p, *backend.api, source->config, backend.fields.data(), static_cast<uint32_t>(backend.fields.size()));
  p.text(source->path);
  p.text(source->format_hint == nullptr ? "" : source->format_hint);
  p.value<uint32_t>(source->n_attach);
  for (uint32_t i = 0; i < source->n_attach; ++i) p.text(source->attach[i]);
  remote.set_progress([source](const std::string &phase, uint64_t done, uint64_t total) {
    return source->progress != nullptr && source->progress(source->progress_ctx, phase.c_str(), done, total) != 0;
  });
  Reply reply;
  int32_t code = remote.call(Call::kModelLoad, p, reply, st, remote.times().silence);
  remote.set_progress(nullptr);
  if (code != SLUICE_OK) return code;
  auto model = std::make_unique<RemoteModel>();
  model->backend = &backend;
  reply.results.value(model->id);
  if (!reply.results.ok()) return remote.refuse("an answer that is too short", st);
  model->info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  code = ask(remote, Call::kModelInfo, about(*model), &model->info, st);
  if (code != SLUICE_OK) return code;
  const auto &info = model->info;  // what rooms are measured by before the server has judged it
  if (info.vocab_size > kMaxVocab || info.n_heads > kMaxHeads || (info.n_heads > 0 && info.head_top > info.vocab_size) ||
      info.n_kv_groups > kMaxKvGroups)
    return remote.refuse("a model of a size that cannot be", st);
  model->info.caps &= ~kAway;
  *out = reinterpret_cast<sluice_model *>(model.release());
  return SLUICE_OK;
}

void model_unload(sluice_model *m) {
  const std::unique_ptr<RemoteModel> model(&at(m));
  Reply reply;
  (void)model->backend->remote->call(Call::kModelUnload, about(*model), reply, nullptr, kCloseTime);
}

int32_t model_info(const sluice_model *m, sluice_model_info *out, sluice_status *) {
  give(out, at(m).info);
  return SLUICE_OK;
}

int32_t plan_memory(const sluice_model *m, const sluice_model_setup *setup, sluice_memory_plan *out, sluice_status *st) {
  Packer p = about(at(m));
  pack(p, *setup);
  return ask(*at(m).backend->remote, Call::kPlanMemory, p, out, st);
}

int32_t kv_groups(const sluice_model *m, const sluice_model_setup *setup, sluice_kv_group *out, uint32_t stride,
                  sluice_status *st) {
  const uint32_t n = at(m).info.n_kv_groups;
  Remote &remote = *at(m).backend->remote;
  Packer p = about(at(m));
  pack(p, *setup);
  p.value(n);
  Reply reply;
  if (const int32_t code = remote.call(Call::kKvGroups, p, reply, st, remote.times().call); code != SLUICE_OK) return code;
  const sluice_kv_group *groups = nullptr;
  reply.results.array(groups, n);
  if (!reply.results.ok() || (groups == nullptr && n > 0)) return remote.refuse("another number of KV groups", st);
  for (uint32_t i = 0; i < n; ++i)
    give(reinterpret_cast<sluice_kv_group *>(reinterpret_cast<char *>(out) + size_t{i} * stride), groups[i]);
  return SLUICE_OK;
}

int32_t configure(sluice_model *m, const sluice_model_setup *setup, const uint32_t *device_blocks,
                  const uint32_t *host_blocks, sluice_status *st) {
  RemoteModel &model = at(m);
  Packer p = about(model);
  pack(p, *setup);
  p.array(device_blocks, model.info.n_kv_groups), p.array(host_blocks, model.info.n_kv_groups);
  Reply reply;
  const int32_t code = model.backend->remote->call(Call::kConfigure, p, reply, st, model.backend->remote->times().silence);
  if (code == SLUICE_OK) model.max_top = setup->max_logprobs;
  return code;
}

int32_t sample_caps(const sluice_model *m, sluice_sample_caps *out, sluice_status *st) {
  const int32_t code = ask(*at(m).backend->remote, Call::kSampleCaps, about(at(m)), out, st);
  if (code == SLUICE_OK && SLUICE_HAS(out, sluice_sample_caps, forms)) out->forms &= ~SLUICE_ROW_LOGITS_DEV;
  return code;
}

int32_t warmup(sluice_model *m, const uint32_t *n_tokens, const uint32_t *n_seqs, uint32_t n, sluice_status *st) {
  Packer p = about(at(m));
  p.array(n_tokens, n), p.array(n_seqs, n);
  Reply reply;
  Remote &remote = *at(m).backend->remote;
  return remote.call(Call::kWarmup, p, reply, st, remote.times().silence);
}

int32_t keep_ticket(RemoteModel &model, Reply &reply, const ResultShape &shape, sluice_ticket *out, sluice_status *st) {
  Pending pending;
  pending.shape = shape;
  reply.results.value(pending.theirs);
  if (!reply.results.ok()) return model.backend->remote->refuse("an answer without a ticket", st);
  const std::lock_guard lock(model.mutex);
  *out = model.next_ticket++;
  model.pending[*out] = std::move(pending);
  return SLUICE_OK;
}

int32_t submit(sluice_model *m, const sluice_step *step, sluice_ticket *out, sluice_status *st) {
  RemoteModel &model = at(m);
  if (step->feed != nullptr)
    return report(st, SLUICE_E_UNSUPPORTED, 0, "tensors on a device do not reach a plugin in a process of its own");
  sluice_step whole{};
  std::memcpy(&whole, step, std::min<size_t>(step->struct_size, sizeof whole));
  Packer p = about(model);
  p.value(model.info.vocab_size);
  visit(p, whole, model.info.vocab_size);
  Reply reply;
  Remote &remote = *model.backend->remote;
  if (const int32_t code = remote.call(Call::kSubmit, p, reply, st, remote.times().call); code != SLUICE_OK) return code;
  ResultShape shape;
  shape.n_rows = whole.n_rows, shape.n_candidates = whole.n_candidates, shape.vocab = model.info.vocab_size;
  shape.n_heads = model.info.n_heads, shape.head_top = model.info.head_top, shape.max_top = model.max_top;
  return keep_ticket(model, reply, shape, out, st);
}

int32_t kv_ops(sluice_model *m, const sluice_kv_batch *batch, sluice_ticket *out, sluice_status *st) {
  RemoteModel &model = at(m);
  sluice_kv_batch whole{};
  std::memcpy(&whole, batch, std::min<size_t>(batch->struct_size, sizeof whole));
  Packer p = about(model);
  visit(p, whole);
  Reply reply;
  Remote &remote = *model.backend->remote;
  if (const int32_t code = remote.call(Call::kKvOps, p, reply, st, remote.times().call); code != SLUICE_OK) return code;
  return keep_ticket(model, reply, {}, out, st);
}

/// Room for a result of this shape, every array in it.
size_t bytes_of(const ResultShape &s) {
  const uint64_t per_row = 4 * (4 + 2 * uint64_t{s.max_top} + 2 * uint64_t{s.n_candidates} + s.vocab +
                                2 * uint64_t{s.n_heads} * s.head_top);
  return static_cast<size_t>(std::min<uint64_t>(kMaxResultBytes, 4096 + s.n_rows * per_row));
}

int32_t wait(sluice_model *m, sluice_ticket ticket, uint64_t timeout_ns, sluice_step_result *out, sluice_status *st) {
  RemoteModel &model = at(m);
  Remote &remote = *model.backend->remote;
  Pending *pending = nullptr;
  {
    const std::lock_guard lock(model.mutex);
    const auto found = model.pending.find(ticket);
    if (found != model.pending.end()) pending = &found->second;
  }
  if (pending == nullptr) return ticket == 0 ? SLUICE_OK : report(st, SLUICE_E_NOT_FOUND, 0, "no such ticket");
  Packer p = about(model);
  p.value(pending->theirs), p.value(timeout_ns), p.value<uint32_t>(out != nullptr), p.value(pending->shape);
  const auto patience = remote.times().call + std::chrono::milliseconds(std::min<uint64_t>(timeout_ns / 1'000'000, 3'600'000));
  Reply reply;
  if (const int32_t code = remote.call(Call::kWait, p, reply, st, patience, bytes_of(pending->shape)); code != SLUICE_OK)
    return code;
  if (out == nullptr) return SLUICE_OK;
  pending->reply = std::move(reply);
  sluice_step_result result{};
  visit(pending->reply.results, result, pending->shape);
  if (!pending->reply.results.ok()) return remote.refuse("a result of another shape than the step", st);
  give(out, result);
  return SLUICE_OK;
}

void release(sluice_model *m, sluice_ticket ticket) {
  RemoteModel &model = at(m);
  Packer p = about(model);
  {
    const std::lock_guard lock(model.mutex);
    const auto found = model.pending.find(ticket);
    if (found == model.pending.end()) return;
    p.value(found->second.theirs);
    model.pending.erase(found);
  }
  model.backend->remote->post(Call::kRelease, p);
}

/// While another call is under way the child is as well as that call finds it.
int32_t health(sluice_backend *b, sluice_status *st) {
  return at(b).remote->try_call(Call::kHealth, Packer(), st).value_or(SLUICE_OK);
}

void close(sluice_backend *b) {
  const std::unique_ptr<RemoteBackend> backend(&at(b));
  backend->remote->close(kCloseTime);
}

}  // namespace

void fill_backend(sluice_backend_vtbl &vtbl, bool has_warmup) {
  vtbl.close = close, vtbl.model_load = model_load, vtbl.model_unload = model_unload;
  vtbl.model_info = model_info, vtbl.plan_memory = plan_memory, vtbl.kv_groups = kv_groups;
  vtbl.configure = configure, vtbl.sample_caps = sample_caps;
  vtbl.warmup = has_warmup ? warmup : nullptr;
  vtbl.submit = submit, vtbl.kv_ops = kv_ops, vtbl.wait = wait, vtbl.release = release;
  vtbl.health = health;
}

int32_t enumerate_isolated(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_config *config,
                           sluice_device_info *out, uint32_t stride, uint32_t *n, sluice_status *st) {
  auto remote = plugin.start(api);
  if (!remote) return report(st, static_cast<int32_t>(remote.error().code), 0, remote.error().message);
  Packer p;
  pack_config(p, *api, config, plugin.fields.data(), static_cast<uint32_t>(plugin.fields.size()));
  Reply reply;
  const int32_t code = (*remote)->call(Call::kEnumerate, p, reply, st, plugin.options.times.call);
  if (code != SLUICE_OK) return code;
  const auto devices = reply.results.any_array<sluice_device_info>();
  if (!reply.results.ok() || devices.size() > kMaxDevices) return (*remote)->refuse("devices that make no sense", st);
  for (size_t i = 0; i < devices.size() && i < *n; ++i)
    give(reinterpret_cast<sluice_device_info *>(reinterpret_cast<char *>(out) + i * stride), devices[i]);
  *n = static_cast<uint32_t>(devices.size());
  (*remote)->close(kCloseTime);
  return SLUICE_OK;
}

int32_t open_backend_over(std::unique_ptr<Remote> remote, const sluice_host_api *api, const IsolatedPlugin &plugin,
                          const sluice_backend_open *open, sluice_backend **out, sluice_status *st) {
  Packer p;
  pack_config(p, *api, open->config, plugin.fields.data(), static_cast<uint32_t>(plugin.fields.size()));
  const int32_t *devices = open->device_ids;
  static const int32_t none = 0;
  if (devices == nullptr) devices = &none;
  p.array(devices, open->n_devices);
  Reply reply;
  if (const int32_t code = remote->call(Call::kOpen, p, reply, st, remote->times().silence); code != SLUICE_OK) return code;
  auto backend = std::make_unique<RemoteBackend>();
  backend->remote = std::move(remote), backend->api = api, backend->fields = plugin.fields;
  *out = reinterpret_cast<sluice_backend *>(backend.release());
  return SLUICE_OK;
}

int32_t open_isolated_backend(const IsolatedPlugin &plugin, const sluice_host_api *api, const sluice_backend_open *open,
                              sluice_backend **out, sluice_status *st) {
  auto remote = plugin.start(api);
  if (!remote) return report(st, static_cast<int32_t>(remote.error().code), 0, remote.error().message);
  return open_backend_over(std::move(*remote), api, plugin, open, out, st);
}

}  // namespace sluice::isolation
