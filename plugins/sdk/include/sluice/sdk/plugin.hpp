// sluice/sdk/plugin.hpp - the descriptor and the exported symbol.
#pragma once
#include <sluice/abi/plugin.h>
#include <sluice/sdk/config.hpp>
#include <sluice/sdk/error.hpp>

#include <cstdio>
#include <type_traits>

namespace sluice::sdk {
inline namespace v0 {

/// For plugins without options: SLUICE_SAMPLER_PLUGIN(Greedy, "greedy", "1.0.0", kNoFields).
struct NoFields {};
inline constexpr NoFields kNoFields{};

/// Can this host run us? If not, says so in the words that the operator needs.
inline bool host_fits(const sluice_host_api *host, const char *name, sluice_status *st) noexcept {
  if (host != nullptr && host->abi_major == SLUICE_ABI_MAJOR && host->abi_floor <= SLUICE_ABI_MINOR) return true;
  char text[200];
  std::snprintf(text, sizeof text, "%s was built for ABI %d.%d, this host speaks %d.%d and accepts %d.%d and later",
                name, SLUICE_ABI_MAJOR, SLUICE_ABI_MINOR, host ? host->abi_major : -1, host ? host->abi_minor : -1,
                host ? host->abi_major : -1, host ? host->abi_floor : -1);
  fail(st, SLUICE_E_ABI, text);
  return false;
}

inline sluice_plugin_desc describe(uint64_t kinds, const char *name, const char *version, NoFields) noexcept {
  sluice_plugin_desc d{};
  d.struct_size = SLUICE_SIZE_THROUGH(sluice_plugin_desc, shutdown);
  d.abi_major = SLUICE_ABI_MAJOR;
  d.abi_minor_built = SLUICE_ABI_MINOR;
  d.abi_minor_min = 0;
  d.kinds = kinds;
  d.name = name;
  d.version = version;
  d.field_stride = sizeof(sluice_config_field);
  return d;
}
template <size_t N>
sluice_plugin_desc describe(uint64_t kinds, const char *name, const char *version,
                            const sluice_config_field (&fields)[N]) noexcept {
  sluice_plugin_desc d = describe(kinds, name, version, kNoFields);
  d.fields = fields;
  d.n_fields = N;
  return d;
}

namespace detail {
/// Does a class replace a virtual function of its base? What it does not replace stays out of the C table, so that the
/// host need not call it.
template <class Derived, class Base> constexpr bool overrides(Derived, Base) { return !std::is_same_v<Derived, Base>; }

/// What an opaque handle points to: the host's table and the author's object.
template <class T> struct Box {
  const sluice_host_api *host;
  T object;
  template <class... A>
  explicit Box(const sluice_host_api *h, A &&...args) : host(h), object(static_cast<A &&>(args)...) {}
};
}  // namespace detail

}  // namespace v0
}  // namespace sluice::sdk

/// One library, one kind, one class. MEMBER is the table's place in the descriptor; ADAPTER<T>::vtbl() fills it.
/// NEEDS, checked before anything of the library runs: "cpu:avx2,fma" or "".
#define SLUICE_PLUGIN(KIND, MEMBER, ADAPTER, T, NAME, VERSION, FIELDS, NEEDS)                             \
  SLUICE_PLUGIN_META(KIND, NAME, VERSION, 0, NEEDS);                                                      \
  extern "C" SLUICE_EXPORT const sluice_plugin_desc *SLUICE_PLUGIN_ENTRY(const sluice_host_api *host,     \
                                                                         sluice_status *st) {             \
    if (!sluice::sdk::host_fits(host, NAME, st)) return nullptr;                                          \
    static const auto table = ADAPTER<T>::vtbl();                                                         \
    static const sluice_plugin_desc desc = [] {                                                           \
      auto d = sluice::sdk::describe(KIND, NAME, VERSION, FIELDS);                                        \
      d.MEMBER = &table;                                                                                  \
      return d;                                                                                           \
    }();                                                                                                  \
    return &desc;                                                                                         \
  }                                                                                                       \
  static_assert(sizeof(NAME) <= 64 && sizeof(VERSION) <= 32 && sizeof(NEEDS) <= 64, "too long for the metadata")
