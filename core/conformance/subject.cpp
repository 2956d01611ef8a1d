#include "core/conformance/subject.hpp"

#include <atomic>

namespace sluice::conformance {
namespace {

std::atomic<uint64_t> callbacks{0};
sluice_host_api real{};  // what the counting functions pass on to

void count_log(sluice_host *h, int32_t level, const char *component, const char *text, size_t n) {
  ++callbacks;
  real.log(h, level, component, text, n);
}
int32_t count_event(sluice_host *h, const sluice_engine_event *event) {
  ++callbacks;
  return real.engine_event(h, event);
}

}  // namespace

uint64_t Subject::n_callbacks() { return callbacks; }

sluice_model_info plain_model(uint32_t vocab_size) {
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  info.vocab_size = vocab_size, info.hidden_size = 64, info.n_layers = 2, info.max_context = 4096;
  info.kv_mode = SLUICE_KV_MODE_PAGED, info.n_kv_groups = 1;
  info.n_heads = 4, info.head_top = 10;
  info.caps = SLUICE_CAP_MIXED_BATCH | SLUICE_CAP_TREE | SLUICE_CAP_MOVE_SLOTS;
  return info;
}

Subject::Subject(plugin::Library library) : library_(std::move(library)) {
  auto defaults = plugin::Options::defaults(library_.schema);
  if (defaults) options_ = *defaults;
  else needs_options_ = defaults.error().message;
  sched_host_.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_host, probe_prefix);
  sched_host_.step_time_ns = [](void *, uint32_t prefill, uint32_t decode, uint64_t) -> uint64_t {
    return 1'000'000 + 10'000 * uint64_t{prefill} + 50'000 * uint64_t{decode};
  };
  sched_host_.swap_time_ns = [](void *, uint32_t blocks, int32_t) -> uint64_t { return 10'000 * uint64_t{blocks}; };
  sched_host_.recompute_time_ns = [](void *, sluice_seq_ref) -> uint64_t { return 1'000'000; };
  sched_host_.probe_prefix = [](void *, sluice_seq_ref) -> int32_t { return SLUICE_E_UNAVAILABLE; };
  setup_.struct_size = SLUICE_SIZE_THROUGH(sluice_sched_setup, host);
  setup_.max_seqs = 8, setup_.token_budget = 64, setup_.waiting_window = 32;
  setup_.table = table_.abi();
  setup_.host = &sched_host_;
}

std::unique_ptr<Subject> Subject::load(const std::string &path, Findings &findings) {
  findings.doing("loading the library and calling its entry function");
  const auto metadata = plugin::read_metadata(path);
  if (!metadata) {
    findings.fail("B1 it loads", metadata.error().message, "put SLUICE_PLUGIN_META into one source file of the library");
    return nullptr;
  }
  static SteadyClock clock;
  auto host = std::make_unique<plugin::Host>(
      plugin::Host::Parts{.clock = &clock, .metrics = nullptr, .n_workers = 2, .version = "0.0.0"});
  auto library = plugin::load_library(path, *metadata, *host->api());
  if (!library) {
    findings.fail("B1 it loads", library.error().message, "the message says what the server would say");
    return nullptr;
  }
  std::unique_ptr<Subject> subject(new Subject(std::move(*library)));
  subject->host_ = std::move(host);
  real = *subject->host_->api_for("checked", subject->library_.title());
  subject->api_ = real;
  subject->api_.log = count_log;
  subject->api_.engine_event = count_event;
  return subject;
}

Result<Subject::Made> Subject::create(uint64_t kind, const std::string &model) const {
  const auto keep = [](auto made) -> Result<Made> {
    if (!made) return made.error();
    return Made(std::shared_ptr<typename std::decay_t<decltype(*made)>::element_type>(std::move(*made)));
  };
  if (kind == SLUICE_KIND_BACKEND) return keep(plugin::Backend::open(library_, &api_, *options_));
  if (kind == SLUICE_KIND_ENGINE) return keep(plugin::ForeignEngine::open(library_, &api_, *options_, model));
  if (kind == SLUICE_KIND_SAMPLER) return keep(plugin::Sampler::create(library_, &api_, *options_, plain_model(512)));
  if (kind == SLUICE_KIND_DECODER) return keep(plugin::Decoder::create(library_, &api_, *options_, 8, plain_model(512)));
  const auto *vtbl = desc().scheduler;
  sluice_scheduler *scheduler = nullptr;
  sluice_status st = plugin::fresh_status();
  if (const int32_t code = vtbl->create(&api_, options_->handle(), &setup_, &scheduler, &st); code != SLUICE_OK)
    return plugin::error_of(library_.title() + ": create", code, st);
  return Made(scheduler, [vtbl](void *s) { vtbl->destroy(static_cast<sluice_scheduler *>(s)); });
}

}  // namespace sluice::conformance
