// sluice/sdk/backend.hpp - a backend as two classes, the open device and the model on it.
#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/sdk/plugin.hpp>

#include <memory>
#include <vector>

namespace sluice::sdk {
inline namespace v0 {

/// A loaded model. Threads, errors and the meaning of each call are those of sluice_backend_vtbl; structs that are to
/// be filled come with struct_size set and zeros elsewhere.
class Model {
 public:
  virtual ~Model() = default;
  virtual void info(sluice_model_info &) const = 0;
  virtual void plan_memory(const sluice_model_setup &, sluice_memory_plan &) const = 0;
  /// One entry per group of info().n_kv_groups.
  virtual std::vector<sluice_kv_group> kv_groups(const sluice_model_setup &) const = 0;
  virtual void configure(const sluice_model_setup &, const uint32_t *device_blocks, const uint32_t *host_blocks) = 0;
  virtual void sample_caps(sluice_sample_caps &) const = 0;
  virtual void warmup(const uint32_t * /*n_tokens*/, const uint32_t * /*n_seqs*/, uint32_t /*n*/) {}
  virtual sluice_ticket submit(const sluice_step &) = 0;
  virtual sluice_ticket kv_ops(const sluice_kv_batch &) = 0;
  /// false = not yet done after timeout_ns; otherwise fills `out`, which is null for tickets of kv_ops.
  virtual bool wait(sluice_ticket, uint64_t timeout_ns, sluice_step_result *out) = 0;
  virtual void release(sluice_ticket) = 0;
  virtual void tensor_read(const sluice_tensor &, void * /*dst*/, uint64_t /*dst_bytes*/) {
    throw Error(SLUICE_E_UNSUPPORTED, "this backend hands out no device views");
  }
};

/// An open backend. The derived class has a constructor
///   (const sluice_host_api &, const Config &, const sluice_backend_open &) and
///   static std::vector<sluice_device_info> devices(const sluice_host_api &, const Config &);
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::unique_ptr<Model> load(const sluice_model_source &, const Config &) = 0;
  virtual void health() {}
};

template <class T> struct BackendAdapter {
  using Box = detail::Box<T>;
  static Box &at(sluice_backend *b) { return need(b), *reinterpret_cast<Box *>(b); }
  static Model &at(sluice_model *m) { return need(m), *reinterpret_cast<Model *>(m); }
  static const Model &at(const sluice_model *m) { return need(m), *reinterpret_cast<const Model *>(m); }
  /// Copies entries to the caller's array, whose entries may be longer or shorter than ours.
  template <class S> static void give_array(S *out, uint32_t stride, size_t room, const std::vector<S> &values) {
    for (size_t i = 0; i < values.size() && i < room; ++i) {
      auto *to = reinterpret_cast<S *>(reinterpret_cast<char *>(out) + i * stride);
      to->struct_size = stride < sizeof(S) ? stride : static_cast<uint32_t>(sizeof(S));
      give(to, values[i]);
    }
  }

  static int32_t enumerate(const sluice_host_api *h, const sluice_config *c, sluice_device_info *out, uint32_t stride,
                           uint32_t *n, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, n);
      const std::vector<sluice_device_info> found = T::devices(*h, Config(h, c));
      if (out != nullptr) give_array(out, stride, *n, found);
      *n = static_cast<uint32_t>(found.size());
    });
  }
  static int32_t open(const sluice_host_api *h, const sluice_backend_open *o, sluice_backend **out,
                      sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, o, out);
      *out = reinterpret_cast<sluice_backend *>(new Box(h, *h, Config(h, o->config), *o));
    });
  }
  static void close(sluice_backend *b) noexcept { delete reinterpret_cast<Box *>(b); }
  static int32_t model_load(sluice_backend *b, const sluice_model_source *s, sluice_model **out,
                            sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s, s == nullptr ? nullptr : s->path, out);
      *out = reinterpret_cast<sluice_model *>(at(b).object.load(*s, Config(at(b).host, s->config)).release());
    });
  }
  static void model_unload(sluice_model *m) noexcept { delete reinterpret_cast<Model *>(m); }
  static int32_t model_info(const sluice_model *m, sluice_model_info *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      sluice_model_info i{};
      i.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
      at(m).info(i);
      give(out, i);
    });
  }
  static int32_t plan_memory(const sluice_model *m, const sluice_model_setup *s, sluice_memory_plan *out,
                             sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s);
      sluice_memory_plan p{};
      p.struct_size = SLUICE_SIZE_THROUGH(sluice_memory_plan, host_bytes_available);
      at(m).plan_memory(*s, p);
      give(out, p);
    });
  }
  static int32_t kv_groups(const sluice_model *m, const sluice_model_setup *s, sluice_kv_group *out, uint32_t stride,
                           sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s, out);
      const std::vector<sluice_kv_group> groups = at(m).kv_groups(*s);
      give_array(out, stride, groups.size(), groups);
    });
  }
  static int32_t configure(sluice_model *m, const sluice_model_setup *s, const uint32_t *device_blocks,
                           const uint32_t *host_blocks, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s);
      at(m).configure(*s, device_blocks, host_blocks);
    });
  }
  static int32_t sample_caps(const sluice_model *m, sluice_sample_caps *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      sluice_sample_caps c{};
      c.struct_size = SLUICE_SIZE_THROUGH(sluice_sample_caps, logprobs_kinds);
      at(m).sample_caps(c);
      give(out, c);
    });
  }
  static int32_t warmup(sluice_model *m, const uint32_t *n_tokens, const uint32_t *n_seqs, uint32_t n,
                        sluice_status *st) noexcept {
    return guard(st, [&] { at(m).warmup(n_tokens, n_seqs, n); });
  }
  static int32_t submit(sluice_model *m, const sluice_step *s, sluice_ticket *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s, out);
      *out = at(m).submit(*s);
    });
  }
  static int32_t kv_ops(sluice_model *m, const sluice_kv_batch *b, sluice_ticket *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(b, out);
      *out = at(m).kv_ops(*b);
    });
  }
  static int32_t wait(sluice_model *m, sluice_ticket t, uint64_t timeout_ns, sluice_step_result *out,
                      sluice_status *st) noexcept {
    bool done = false;
    const int32_t code = guard(st, [&] {
      if (out == nullptr) {
        done = at(m).wait(t, timeout_ns, nullptr);
        return;
      }
      sluice_step_result r{};
      r.struct_size = SLUICE_SIZE_THROUGH(sluice_step_result, queue_ns);
      done = at(m).wait(t, timeout_ns, &r);
      if (done) give(out, r);
    });
    return code != SLUICE_OK ? code : done ? SLUICE_OK : fail(st, SLUICE_E_TIMEOUT, "the step is still running");
  }
  static void release(sluice_model *m, sluice_ticket t) noexcept {
    guard(nullptr, [&] { at(m).release(t); });
  }
  static int32_t tensor_read(sluice_model *m, const sluice_tensor *t, void *dst, uint64_t bytes,
                             sluice_status *st) noexcept {
    return guard(st, [&] {
      need(t, dst);
      at(m).tensor_read(*t, dst, bytes);
    });
  }
  static int32_t health(sluice_backend *b, sluice_status *st) noexcept {
    return guard(st, [&] { at(b).object.health(); });
  }
  static sluice_backend_vtbl vtbl() {
    sluice_backend_vtbl v{};
    v.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_vtbl, health);
    v.enumerate = enumerate, v.open = open, v.close = close, v.model_load = model_load, v.model_unload = model_unload;
    v.model_info = model_info, v.plan_memory = plan_memory, v.kv_groups = kv_groups, v.configure = configure;
    v.sample_caps = sample_caps, v.warmup = warmup, v.submit = submit, v.kv_ops = kv_ops, v.wait = wait;
    v.release = release, v.tensor_read = tensor_read, v.health = health;
    return v;
  }
};

}  // namespace v0
}  // namespace sluice::sdk

/// NEEDS: CPU features without which the library must not be loaded, "cpu:avx2,fma"; "" = none.
#define SLUICE_BACKEND_PLUGIN(T, NAME, VERSION, FIELDS, NEEDS) \
  SLUICE_PLUGIN(SLUICE_KIND_BACKEND, backend, sluice::sdk::BackendAdapter, T, NAME, VERSION, FIELDS, NEEDS)
