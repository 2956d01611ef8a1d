// ChildHost: what the server asks of a backend or an engine.
#include <cstring>

#include "core/isolation/child_host.hpp"

namespace sluice::isolation {
namespace {

template <class T> T room(uint32_t size) {
  T t{};
  t.struct_size = size;
  return t;
}
#define SLUICE_ROOM(T, last) room<T>(SLUICE_SIZE_THROUGH(T, last))

}  // namespace

void ChildHost::backend_call(Call call, Unpacker &in, Answer &answer) {
  const auto *vtbl = library_.desc->backend;
  if (vtbl == nullptr || (library_.metadata.kinds & SLUICE_KIND_BACKEND) == 0) {
    answer.code = SLUICE_E_UNSUPPORTED;
    return;
  }
  if (call == Call::kEnumerate) {
    const ChildConfig config = ChildConfig::read(in);
    std::vector<sluice_device_info> all(kMaxDevices, SLUICE_ROOM(sluice_device_info, uuid));
    uint32_t n = kMaxDevices;
    if (!in.ok()) return;
    answer.code = vtbl->enumerate(&api_, config.handle(), all.data(), sizeof all[0], &n, &answer.status);
    all.resize(std::min(n, kMaxDevices));
    const auto *p = all.data();
    answer.results.array(p, all.size());
  } else if (call == Call::kOpen) {
    if (backend_ != nullptr) {
      answer.code = SLUICE_E_INVALID_ARGUMENT;
      return;
    }
    config_ = ChildConfig::read(in);
    const auto devices = in.any_array<int32_t>();
    if (!in.ok()) return;
    auto open = SLUICE_ROOM(sluice_backend_open, config);
    open.n_devices = static_cast<uint32_t>(devices.size());
    open.device_ids = devices.data();
    open.config = config_.handle();
    answer.code = vtbl->open(&api_, &open, &backend_, &answer.status);
    if (answer.code == SLUICE_OK && backend_ == nullptr) answer.code = SLUICE_E_INTERNAL;
  } else if (backend_ == nullptr) {
    answer.code = SLUICE_E_INVALID_ARGUMENT;
  } else if (call == Call::kHealth) {
    answer.code = vtbl->health(backend_, &answer.status);
  } else if (call == Call::kModelLoad) {
    load_model(in, answer);
  } else {
    model_call(call, in, answer);
  }
}

void ChildHost::load_model(Unpacker &in, Answer &answer) {
  const ChildConfig config = ChildConfig::read(in);
  const std::string path = in.text(), hint = in.text();
  const auto n_attach = in.get<uint32_t>();
  std::vector<std::string> attach;
  for (uint32_t i = 0; i < n_attach && in.ok(); ++i) attach.push_back(in.text());
  if (!in.ok()) return;
  std::vector<const char *> attached;
  for (const auto &file : attach) attached.push_back(file.c_str());
  auto source = SLUICE_ROOM(sluice_model_source, progress_ctx);
  source.path = path.c_str();
  source.format_hint = hint.empty() ? nullptr : hint.c_str();
  source.attach = attached.data(), source.n_attach = n_attach;
  source.config = config.handle();
  source.progress_ctx = this;
  source.progress = [](void *ctx, const char *phase, uint64_t done, uint64_t total) -> int32_t {
    auto &self = *static_cast<ChildHost *>(ctx);
    Packer p;
    p.text(phase == nullptr ? "" : std::string(phase, strnlen(phase, 256)));
    p.value(done), p.value(total);
    self.send_if_room(Say::kProgress, p);
    return static_cast<int32_t>(self.link_.head().stop.load(std::memory_order_relaxed));
  };
  Model model;
  answer.code = library_.desc->backend->model_load(backend_, &source, &model.model, &answer.status);
  if (answer.code != SLUICE_OK) return;
  if (model.model == nullptr) {
    answer.code = SLUICE_E_INTERNAL;
    return;
  }
  const uint64_t id = next_model_++;
  models_[id] = model;
  answer.results.value(id);
}

void ChildHost::model_call(Call call, Unpacker &in, Answer &answer) {
  const auto *vtbl = library_.desc->backend;
  const auto id = in.get<uint64_t>();
  const auto at = models_.find(id);
  if (at == models_.end()) {
    answer.code = SLUICE_E_NOT_FOUND;
    return;
  }
  Model &m = at->second;
  const auto setup = [&] {
    auto s = SLUICE_ROOM(sluice_model_setup, max_logprobs);
    in.value(s);
    s.struct_size = SLUICE_SIZE_THROUGH(sluice_model_setup, max_logprobs);
    return s;
  };
  switch (call) {
    case Call::kModelUnload:
      vtbl->model_unload(m.model);
      models_.erase(at);
      return;
    case Call::kModelInfo: {
      auto info = SLUICE_ROOM(sluice_model_info, arch);
      answer.code = vtbl->model_info(m.model, &info, &answer.status);
      m.vocab = info.vocab_size;
      return answer.results.value(info);
    }
    case Call::kPlanMemory: {
      const auto s = setup();
      auto plan = SLUICE_ROOM(sluice_memory_plan, host_bytes_available);
      answer.code = vtbl->plan_memory(m.model, &s, &plan, &answer.status);
      return answer.results.value(plan);
    }
    case Call::kKvGroups: {
      const auto s = setup();
      const auto n = std::min(in.get<uint32_t>(), kMaxKvGroups);
      std::vector<sluice_kv_group> groups(n, SLUICE_ROOM(sluice_kv_group, reserved));
      answer.code = vtbl->kv_groups(m.model, &s, groups.data(), sizeof groups[0], &answer.status);
      const auto *p = groups.data();
      return answer.results.array(p, n);
    }
    case Call::kConfigure: {
      const auto s = setup();
      const auto device = in.any_array<uint32_t>(), host = in.any_array<uint32_t>();
      if (!in.ok()) return;
      answer.code = vtbl->configure(m.model, &s, device.data(), host.data(), &answer.status);
      return;
    }
    case Call::kSampleCaps: {
      auto caps = SLUICE_ROOM(sluice_sample_caps, logprobs_kinds);
      answer.code = vtbl->sample_caps(m.model, &caps, &answer.status);
      return answer.results.value(caps);
    }
    case Call::kWarmup: {
      const auto tokens = in.any_array<uint32_t>(), seqs = in.any_array<uint32_t>();
      const size_t n = std::min(tokens.size(), seqs.size());
      if (in.ok() && SLUICE_HAS_FN(vtbl, sluice_backend_vtbl, warmup))
        answer.code = vtbl->warmup(m.model, tokens.data(), seqs.data(), static_cast<uint32_t>(n), &answer.status);
      return;
    }
    case Call::kSubmit: {
      auto step = SLUICE_ROOM(sluice_step, row_history);
      visit(in, step, in.get<uint32_t>());
      if (!in.ok()) return;
      sluice_ticket ticket = 0;
      answer.code = vtbl->submit(m.model, &step, &ticket, &answer.status);
      return answer.results.value(ticket);
    }
    case Call::kKvOps: {
      auto batch = SLUICE_ROOM(sluice_kv_batch, keep_len);
      visit(in, batch);
      if (!in.ok()) return;
      sluice_ticket ticket = 0;
      answer.code = vtbl->kv_ops(m.model, &batch, &ticket, &answer.status);
      return answer.results.value(ticket);
    }
    case Call::kWait: return wait_for(m, in, answer);
    case Call::kRelease:
      vtbl->release(m.model, in.get<sluice_ticket>());
      return;
    default: answer.code = SLUICE_E_UNSUPPORTED;
  }
}

void ChildHost::wait_for(const Model &model, Unpacker &in, Answer &answer) {
  const auto ticket = in.get<sluice_ticket>();
  const auto timeout_ns = in.get<uint64_t>();
  const auto with_result = in.get<uint32_t>();
  const auto shape = in.get<ResultShape>();
  if (!in.ok()) return;
  auto result = SLUICE_ROOM(sluice_step_result, queue_ns);
  answer.code = library_.desc->backend->wait(model.model, ticket, timeout_ns, with_result != 0 ? &result : nullptr,
                                             &answer.status);
  if (answer.code != SLUICE_OK || with_result == 0) return;
  if (result.n_rows != shape.n_rows || result.n_top > shape.max_top) {  // the arrays are not what they should be
    answer.code = SLUICE_E_INTERNAL, answer.status.flags |= SLUICE_STF_POISONED;
    std::strncpy(answer.status.msg, "the result has another shape than the step", sizeof answer.status.msg - 1);
    return;
  }
  visit(answer.results, result, shape);
}

// ---- engine -----------------------------------------------------------------------------------------------------

void ChildHost::engine_call(Call call, Unpacker &in, Answer &answer) {
  const auto *vtbl = library_.desc->engine;
  if (vtbl == nullptr || (library_.metadata.kinds & SLUICE_KIND_ENGINE) == 0 || (engine_ == nullptr) != (call == Call::kEngineOpen)) {
    answer.code = SLUICE_E_UNSUPPORTED;
    return;
  }
  switch (call) {
    case Call::kEngineOpen: {
      config_ = ChildConfig::read(in);
      const std::string model = in.text();
      if (!in.ok()) return;
      answer.code = vtbl->open(&api_, config_.handle(), model.c_str(), &engine_, &answer.status);
      if (answer.code == SLUICE_OK && engine_ == nullptr) answer.code = SLUICE_E_INTERNAL;
      return;
    }
    case Call::kEngineInfo: {
      auto info = SLUICE_ROOM(sluice_engine_info, vocab_path);
      answer.code = vtbl->info(engine_, &info, &answer.status);
      const std::string path = info.vocab_path == nullptr ? "" : std::string(info.vocab_path, strnlen(info.vocab_path, 4096));
      info.vocab_path = nullptr;
      answer.results.value(info);
      return answer.results.text(path);
    }
    case Call::kGenerate: return generate(in, answer);
    case Call::kCancel: {
      const auto id = in.get<uint64_t>();
      if (in.ok()) answer.code = vtbl->cancel(engine_, id, &answer.status);
      return;
    }
    case Call::kEventRefused: {
      const auto id = in.get<uint64_t>();
      const auto code = in.get<int32_t>();
      const std::lock_guard lock(events_mutex_);
      if (const auto at = requests_.find(id); at != requests_.end()) at->second = code;
      return;
    }
    case Call::kEngineHealth: answer.code = vtbl->health(engine_, &answer.status); return;
    default: answer.code = SLUICE_E_UNSUPPORTED;
  }
}

void ChildHost::generate(Unpacker &in, Answer &answer) {
  auto request = SLUICE_ROOM(sluice_engine_request, request);
  in.value(request.input_kind), in.value(request.request_id), in.value(request.n_prompt), in.value(request.max_new);
  in.array(request.prompt, request.n_prompt);
  const std::string text = in.text();
  in.value(request.seed), in.value(request.deadline_ns);
  auto spec = in.get<sluice_sample_spec>();
  const ChildConfig config = ChildConfig::read(in);
  if (!in.ok()) return;
  request.text = text.empty() ? nullptr : text.c_str(), request.text_bytes = text.size();
  request.spec = &spec;
  request.request = config.handle();
  {
    const std::lock_guard lock(events_mutex_);
    requests_[request.request_id] = SLUICE_OK;
  }
  answer.code = library_.desc->engine->generate(engine_, &request, &answer.status);
  if (answer.code == SLUICE_OK) return;
  const std::lock_guard lock(events_mutex_);
  requests_.erase(request.request_id);
}

int32_t ChildHost::deliver(const sluice_engine_event &event) {
  if (event.struct_size < SLUICE_SIZE_THROUGH(sluice_engine_event, cached_tokens)) return SLUICE_E_INVALID_ARGUMENT;
  {
    const std::lock_guard lock(events_mutex_);
    const auto at = requests_.find(event.request_id);
    if (at == requests_.end()) return SLUICE_E_NOT_FOUND;
    const int32_t code = at->second;
    if (code != SLUICE_OK || event.finish != SLUICE_FINISH_NO) requests_.erase(at);
    if (code != SLUICE_OK) return code;
  }
  Packer p;
  p.value(event.n_tokens), p.value(event.request_id), p.value(event.finish), p.value(event.code);
  p.value(event.prompt_tokens), p.value(event.output_tokens), p.value(event.cached_tokens);
  const int32_t *tokens = event.tokens;
  const float *logprobs = event.logprobs;
  p.array(tokens, event.n_tokens), p.array(logprobs, event.n_tokens);
  const char *text = event.text;
  p.value(event.text_bytes);
  p.array(text, event.text_bytes);
  p.text(event.message == nullptr ? "" : std::string(event.message, strnlen(event.message, 500)));
  send(Say::kEvent, p);
  return SLUICE_OK;
}

}  // namespace sluice::isolation
