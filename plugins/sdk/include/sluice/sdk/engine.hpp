// sluice/sdk/engine.hpp - a foreign engine as a class.
#pragma once
#include <sluice/abi/kinds/engine.h>
#include <sluice/sdk/plugin.hpp>

#include <string>

namespace sluice::sdk {
inline namespace v0 {

/// A foreign engine. Threads and errors are those of sluice_engine_vtbl. The derived class has a constructor
///   (const sluice_host_api &, const Config &, const std::string &model)
/// and a destructor that joins its threads. Output goes to host.engine_event.
class Engine {
 public:
  virtual ~Engine() = default;
  /// The struct comes with struct_size set and zeros.
  virtual void info(sluice_engine_info &) const = 0;
  virtual void generate(const sluice_engine_request &) = 0;
  /// false = has already ended.
  virtual bool cancel(uint64_t request_id) = 0;
  virtual void health() {}
};

template <class T> struct EngineAdapter {
  using Box = detail::Box<T>;
  static Box &at(sluice_engine *e) { return need(e), *reinterpret_cast<Box *>(e); }
  static const Box &at(const sluice_engine *e) { return need(e), *reinterpret_cast<const Box *>(e); }

  static int32_t open(const sluice_host_api *h, const sluice_config *c, const char *model, sluice_engine **out,
                      sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, model, out);
      *out = reinterpret_cast<sluice_engine *>(new Box(h, *h, Config(h, c), std::string(model)));
    });
  }
  static void close(sluice_engine *e) noexcept { delete reinterpret_cast<Box *>(e); }
  static int32_t info(const sluice_engine *e, sluice_engine_info *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      sluice_engine_info i{};
      i.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_info, vocab_path);
      at(e).object.info(i);
      give(out, i);
    });
  }
  static int32_t generate(sluice_engine *e, const sluice_engine_request *r, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(r);
      at(e).object.generate(*r);
    });
  }
  static int32_t cancel(sluice_engine *e, uint64_t request_id, sluice_status *st) noexcept {
    bool found = false;
    const int32_t code = guard(st, [&] { found = at(e).object.cancel(request_id); });
    return code != SLUICE_OK ? code : found ? SLUICE_OK : fail(st, SLUICE_E_NOT_FOUND, "this request has ended");
  }
  static int32_t health(sluice_engine *e, sluice_status *st) noexcept {
    return guard(st, [&] { at(e).object.health(); });
  }
  static sluice_engine_vtbl vtbl() {
    sluice_engine_vtbl v{};
    v.struct_size = SLUICE_SIZE_THROUGH(sluice_engine_vtbl, health);
    v.open = open, v.close = close, v.info = info, v.generate = generate, v.cancel = cancel, v.health = health;
    return v;
  }
};

}  // namespace v0
}  // namespace sluice::sdk

#define SLUICE_ENGINE_PLUGIN(T, NAME, VERSION, FIELDS) \
  SLUICE_PLUGIN(SLUICE_KIND_ENGINE, engine, sluice::sdk::EngineAdapter, T, NAME, VERSION, FIELDS, "")
