#include "core/isolation/child_host.hpp"

#include <cstring>

#include "core/base/clock.hpp"

namespace sluice::isolation {
namespace {

constexpr size_t kMaxRequestBytes = size_t{1} << 30;  // what the server sends, it sends on purpose
constexpr size_t kMaxLogBytes = 16 * 1024;
const Deadline kForever = Deadline::max();

}  // namespace

ChildHost::ChildHost(Link &link, std::function<void()> on_loaded) : link_(link), on_loaded_(std::move(on_loaded)) {
  fill_api();
}

void ChildHost::send(Say what, const Packer &packer, uint64_t call) {
  const std::lock_guard lock(send_mutex_);
  (void)link_.send(static_cast<uint32_t>(what), call, packer.bytes(), kForever);
}

/// What is said by the way does not hold up the plugin.
void ChildHost::send_if_room(Say what, const Packer &packer) {
  const std::lock_guard lock(send_mutex_);
  (void)link_.try_send(static_cast<uint32_t>(what), 0, packer.bytes());
}

void ChildHost::fill_api() {
  api_.struct_size = SLUICE_SIZE_THROUGH(sluice_host_api, get_extension);
  api_.abi_major = SLUICE_ABI_MAJOR, api_.abi_minor = SLUICE_ABI_MINOR, api_.abi_floor = SLUICE_ABI_FLOOR;
  api_.host_version = "0.0.0";
  api_.host = reinterpret_cast<sluice_host *>(this);
  ChildConfig::set_getters(api_);
  api_.log = [](sluice_host *h, int32_t level, const char *component, const char *msg, size_t len) {
    if (msg == nullptr) return;
    Packer p;
    p.value(level);
    p.text(component == nullptr ? std::string() : std::string(component, strnlen(component, 64)));
    p.text(std::string(msg, std::min(len, kMaxLogBytes)));
    at(h).send_if_room(Say::kLog, p);
  };
  api_.now_ns = [](sluice_host *) { return SteadyClock().now_ns(); };  // the same clock in every process
  api_.metric = [](sluice_host *h, int32_t kind, const char *name, const char *help, uint64_t *id) {
    if (id == nullptr || name == nullptr) return SLUICE_E_INVALID_ARGUMENT;
    *id = ++at(h).n_metrics_;
    Packer p;
    p.value(*id), p.value(kind), p.text(std::string(name, strnlen(name, 128)));
    p.text(help == nullptr ? std::string() : std::string(help, strnlen(help, 512)));
    at(h).send(Say::kMetric, p);
    return SLUICE_OK;
  };
  api_.metric_update = [](sluice_host *h, uint64_t id, double value) {
    Packer p;
    p.value(id), p.value(value);
    at(h).send_if_room(Say::kMetricUpdate, p);
  };
  api_.parallel_for = [](sluice_host *h, uint32_t n, void (*fn)(void *, uint32_t, uint32_t), void *ctx) {
    at(h).pool_.run(n, fn, ctx);
  };
  api_.n_workers = [](sluice_host *h) { return at(h).pool_.n_workers(); };
  api_.engine_event = [](sluice_host *h, const sluice_engine_event *event) {
    return event == nullptr ? SLUICE_E_INVALID_ARGUMENT : at(h).deliver(*event);
  };
  api_.get_extension = [](sluice_host *, const char *, uint32_t) -> const void * { return nullptr; };
}

int ChildHost::run() {
  while (!closed_) {
    auto frame = link_.receive(kForever, kMaxRequestBytes);
    if (!frame) {  // the server is gone, or has given us up
      try {
        close();
      } catch (...) {
      }
      return 1;
    }
    Answer answer;
    answer.status.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
    serve(*frame, answer);
    const auto call = static_cast<Call>(frame->type);
    if (call == Call::kRelease || call == Call::kEventRefused) continue;
    Packer reply;
    reply.value<int32_t>(answer.code);
    reply.value<uint32_t>(answer.status.flags);
    reply.text(std::string(answer.status.msg, strnlen(answer.status.msg, sizeof answer.status.msg)));
    reply.raw(answer.results.bytes());
    send(Say::kReply, reply, frame->call);
  }
  return 0;
}

void ChildHost::serve(const Frame &frame, Answer &answer) {
  Unpacker in(frame.payload());
  const auto call = static_cast<Call>(frame.type);
  // The server's side of a plugin's promises: exceptions become what they would be there.
  try {
    if (call == Call::kHello) hello(in, answer);
    else if (library_.desc == nullptr) answer.code = SLUICE_E_INVALID_ARGUMENT;
    else if (call == Call::kClose) close();
    else if (call >= Call::kEngineOpen) engine_call(call, in, answer);
    else backend_call(call, in, answer);
    if (!in.ok()) answer.code = SLUICE_E_INVALID_ARGUMENT;
  } catch (const std::exception &e) {
    answer.code = SLUICE_E_INTERNAL, answer.status.flags |= SLUICE_STF_POISONED;
    std::strncpy(answer.status.msg, (std::string("threw ") + e.what()).c_str(), sizeof answer.status.msg - 1);
  } catch (...) {
    answer.code = SLUICE_E_INTERNAL, answer.status.flags |= SLUICE_STF_POISONED;
    std::strncpy(answer.status.msg, "threw something that is no exception", sizeof answer.status.msg - 1);
  }
}

void ChildHost::hello(Unpacker &in, Answer &answer) {
  const auto refuse = [&](const Error &error) {
    answer.code = static_cast<int32_t>(error.code);
    std::strncpy(answer.status.msg, error.message.c_str(), sizeof answer.status.msg - 1);
  };
  if (in.get<uint64_t>() != kProtocol)
    return refuse({Code::kAbi, "the plugin host is of another version than the server; install both together", {}});
  const std::string path = in.text();
  const auto metadata = plugin::read_metadata(path);
  if (!metadata) return refuse(metadata.error());
  auto library = plugin::load_library(path, *metadata, api_);
  if (!library) return refuse(library.error());
  library_ = std::move(*library);
  describe(answer.results);
  if (on_loaded_) on_loaded_();
}

void ChildHost::describe(Packer &out) const {
  const sluice_plugin_desc &desc = *library_.desc;
  out.value<uint64_t>(desc.kinds);
  out.value<uint32_t>(desc.backend != nullptr && SLUICE_HAS_FN(desc.backend, sluice_backend_vtbl, warmup));
  out.text(desc.license == nullptr ? "" : std::string(desc.license, strnlen(desc.license, 256)));
  out.value<uint32_t>(desc.n_fields);
  for (uint32_t i = 0; i < desc.n_fields; ++i) {  // load_library() has checked them
    const auto &field = *reinterpret_cast<const sluice_config_field *>(
        reinterpret_cast<const char *>(desc.fields) + size_t{i} * desc.field_stride);
    out.value(field.type), out.value(field.flags), out.value(field.min), out.value(field.max);
    for (const char *text : {field.key, field.doc, field.def, field.choices}) {
      out.value<uint32_t>(text != nullptr);
      out.text(text == nullptr ? "" : text);
    }
  }
}

void ChildHost::close() {
  if (library_.desc != nullptr) {
    for (const auto &[id, model] : models_) library_.desc->backend->model_unload(model.model);
    models_.clear();
    if (backend_ != nullptr) library_.desc->backend->close(backend_);
    if (engine_ != nullptr) library_.desc->engine->close(engine_);
    if (library_.desc->shutdown != nullptr) library_.desc->shutdown();
  }
  closed_ = true;
}

}  // namespace sluice::isolation
