#define BOOST_DLL_USE_STD_FS
#include "core/plugin/library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <boost/dll/shared_library.hpp>
#include <cstring>
#include <vector>

#include "core/plugin/abi_call.hpp"

namespace sluice::plugin {
namespace {

/// Kept for good: unloading code that may have left threads, callbacks or TLS behind is how servers crash at exit.
std::vector<boost::dll::shared_library> &loaded() {
  static auto *libraries = new std::vector<boost::dll::shared_library>;
  return *libraries;
}

/// The first required function that a table lacks, or null.
#define SLUICE_REQUIRE(T, f) \
  if (!SLUICE_HAS_FN(v, T, f)) return #f

const char *lacking(const sluice_backend_vtbl *v) {
  SLUICE_REQUIRE(sluice_backend_vtbl, enumerate);
  SLUICE_REQUIRE(sluice_backend_vtbl, open);
  SLUICE_REQUIRE(sluice_backend_vtbl, close);
  SLUICE_REQUIRE(sluice_backend_vtbl, model_load);
  SLUICE_REQUIRE(sluice_backend_vtbl, model_unload);
  SLUICE_REQUIRE(sluice_backend_vtbl, model_info);
  SLUICE_REQUIRE(sluice_backend_vtbl, plan_memory);
  SLUICE_REQUIRE(sluice_backend_vtbl, kv_groups);
  SLUICE_REQUIRE(sluice_backend_vtbl, configure);
  SLUICE_REQUIRE(sluice_backend_vtbl, sample_caps);
  SLUICE_REQUIRE(sluice_backend_vtbl, submit);
  SLUICE_REQUIRE(sluice_backend_vtbl, kv_ops);
  SLUICE_REQUIRE(sluice_backend_vtbl, wait);
  SLUICE_REQUIRE(sluice_backend_vtbl, release);
  SLUICE_REQUIRE(sluice_backend_vtbl, health);
  return nullptr;
}
const char *lacking(const sluice_engine_vtbl *v) {
  SLUICE_REQUIRE(sluice_engine_vtbl, open);
  SLUICE_REQUIRE(sluice_engine_vtbl, close);
  SLUICE_REQUIRE(sluice_engine_vtbl, info);
  SLUICE_REQUIRE(sluice_engine_vtbl, generate);
  SLUICE_REQUIRE(sluice_engine_vtbl, cancel);
  SLUICE_REQUIRE(sluice_engine_vtbl, health);
  return nullptr;
}
const char *lacking(const sluice_scheduler_vtbl *v) {
  SLUICE_REQUIRE(sluice_scheduler_vtbl, create);
  SLUICE_REQUIRE(sluice_scheduler_vtbl, destroy);
  SLUICE_REQUIRE(sluice_scheduler_vtbl, on_events);
  SLUICE_REQUIRE(sluice_scheduler_vtbl, plan);
  return nullptr;
}
const char *lacking(const sluice_sampler_vtbl *v) {
  SLUICE_REQUIRE(sluice_sampler_vtbl, create);
  SLUICE_REQUIRE(sluice_sampler_vtbl, destroy);
  SLUICE_REQUIRE(sluice_sampler_vtbl, seq_open);
  SLUICE_REQUIRE(sluice_sampler_vtbl, seq_fork);
  SLUICE_REQUIRE(sluice_sampler_vtbl, seq_close);
  SLUICE_REQUIRE(sluice_sampler_vtbl, commit);
  if ((v->flags & SLUICE_SMPF_MASKS) != 0) {
    SLUICE_REQUIRE(sluice_sampler_vtbl, fill_masks);
  } else {
    SLUICE_REQUIRE(sluice_sampler_vtbl, apply);
  }
  return nullptr;
}
const char *lacking(const sluice_decoder_vtbl *v) {
  SLUICE_REQUIRE(sluice_decoder_vtbl, create);
  SLUICE_REQUIRE(sluice_decoder_vtbl, destroy);
  SLUICE_REQUIRE(sluice_decoder_vtbl, needs);
  SLUICE_REQUIRE(sluice_decoder_vtbl, seq_open);
  SLUICE_REQUIRE(sluice_decoder_vtbl, seq_fork);
  SLUICE_REQUIRE(sluice_decoder_vtbl, seq_close);
  SLUICE_REQUIRE(sluice_decoder_vtbl, commit);
  return nullptr;
}
#undef SLUICE_REQUIRE

constexpr uint32_t kMustUnderstand = 0xffffu;  // R6: the low half of a 32-bit flags word
constexpr uint32_t kSamplerFlags = SLUICE_SMPF_PROCESSOR | SLUICE_SMPF_ARGMAX_INVARIANT | SLUICE_SMPF_MASKS |
                                   SLUICE_SMPF_STATEFUL | SLUICE_SMPF_RELOWER;
constexpr uint32_t kSchedulerFlags =
    SLUICE_SCHEDF_USES_PROBE | SLUICE_SCHEDF_USES_PREDICTION | SLUICE_SCHEDF_USES_SWAP | SLUICE_SCHEDF_PREEMPTIVE;

Result<> check_tables(const sluice_plugin_desc &d, const std::string &title) {
  const auto check = [&](uint64_t kind, const auto *table) -> Result<> {
    if ((d.kinds & kind) == 0) return {};
    if (table == nullptr)
      return invalid_argument(fmt::format("{} claims to be a {} but has no table for it", title, kind_name(kind)));
    if (const char *name = lacking(table))
      return invalid_argument(fmt::format("{} lacks the required function {} of a {}", title, name, kind_name(kind)));
    return {};
  };
  if (auto r = check(SLUICE_KIND_BACKEND, d.backend); !r) return r;
  if (auto r = check(SLUICE_KIND_ENGINE, d.engine); !r) return r;
  if (auto r = check(SLUICE_KIND_SCHEDULER, d.scheduler); !r) return r;
  if (auto r = check(SLUICE_KIND_SAMPLER, d.sampler); !r) return r;
  if (auto r = check(SLUICE_KIND_DECODER, d.decoder); !r) return r;

  const uint32_t sampler = (d.kinds & SLUICE_KIND_SAMPLER) != 0 ? d.sampler->flags : 0;
  const uint32_t scheduler = (d.kinds & SLUICE_KIND_SCHEDULER) != 0 ? d.scheduler->flags : 0;
  if ((sampler & kMustUnderstand & ~kSamplerFlags) != 0 || (scheduler & kMustUnderstand & ~kSchedulerFlags) != 0)
    return Error{Code::kUnsupported,
                 fmt::format("{} sets flags that this server does not know ({:#x})", title, sampler | scheduler), {}};
  return {};
}

/// A text of the descriptor equals the metadata; it may be any pointer but it is in the library's own memory.
bool same(const char *text, const std::string &wanted) {
  return text != nullptr && strnlen(text, 256) == wanted.size() && wanted == text;
}

Result<> check_descriptor(const sluice_plugin_desc &d, const Metadata &m, const std::string &title) {
  if (d.struct_size < SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown))
    return invalid_argument(fmt::format("{}: its descriptor is too small ({} bytes)", title, d.struct_size));
  if (!same(d.name, m.name) || !same(d.version, m.version) || d.kinds != m.kinds || d.abi_major != m.abi_major ||
      d.abi_minor_built != m.abi_minor_built || d.abi_minor_min != m.abi_minor_min)
    return invalid_argument(title + ": its descriptor and its metadata (SLUICE_PLUGIN_META) do not say the same");
  return check_tables(d, title);
}

}  // namespace

Result<Library> load_library(const std::string &path, const Metadata &metadata, const sluice_host_api &host) {
  if (auto r = check_abi(metadata); !r) return r.error();
  if (auto r = check_cpu(metadata); !r) return r.error();
  Library library{path, metadata, nullptr, nullptr};
  const std::string title = library.title();

  sluice_plugin_entry_fn entry = nullptr;
  try {
    constexpr auto kMode = static_cast<boost::dll::load_mode::type>(RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    boost::dll::shared_library file(path, kMode);
    if (!file.has(SLUICE_PLUGIN_ENTRY_NAME))
      return invalid_argument(fmt::format("{} ({}) does not export " SLUICE_PLUGIN_ENTRY_NAME, title, path));
    entry = &file.get<const sluice_plugin_desc *(const sluice_host_api *, sluice_status *)>(SLUICE_PLUGIN_ENTRY_NAME);
    loaded().push_back(std::move(file));
  } catch (const std::exception &e) {  // carries the words of dlerror
    return Error{Code::kNotFound, fmt::format("{} ({}) cannot be loaded: {}", title, path, e.what()), {}};
  }

  sluice_status st = fresh_status();
  try {
    library.desc = entry(&host, &st);
  } catch (...) {
    return Error{Code::kInternal, title + ": its entry function threw", {}};
  }
  if (library.desc == nullptr)
    return st.code == SLUICE_OK ? Error{Code::kInternal, title + ": refused without a reason", {}}
                                : error_of(title, st.code, st);
  if (auto r = check_descriptor(*library.desc, metadata, title); !r) return r.error();
  auto schema = Schema::create(title, library.desc->fields, library.desc->n_fields, library.desc->field_stride);
  if (!schema) return schema.error();
  library.schema = std::make_shared<const Schema>(std::move(*schema));
  return library;
}

}  // namespace sluice::plugin
