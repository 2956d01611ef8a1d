#pragma once
#include <sluice/abi/status.h>

#include <exception>
#include <string>
#include <utility>

#include "core/base/error.hpp"

namespace sluice::engine {

/// A plugin's failure: its code and words, and whether its state is damaged.
struct PluginFailure {
  Error error;
  bool poisoned = false;
};

using PluginResult = boost::system::result<void, PluginFailure>;

[[noreturn]] inline void throw_exception_from_error(const PluginFailure &failure, const boost::source_location &) {
  throw std::logic_error("value() of a plugin's failure: " + failure.error.message);
}

/// Calls a plugin's function with a fresh status as its last argument.
///
/// who  names plugin and call in the message: "scheduler fcfs: plan"
/// An exception that crosses (same toolchain only; nothing is promised otherwise) poisons the instance.
template <class F, class... A> PluginResult call(const char *who, F function, A &&...args) {
  sluice_status st{};
  st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  int32_t code = SLUICE_E_INTERNAL;
  bool threw = true;
  try {
    code = function(std::forward<A>(args)..., &st);
    threw = false;
  } catch (const std::exception &e) {
    st.msg_len = 0;
    return PluginFailure{{Code::kInternal, std::string(who) + ": threw " + e.what(), {}}, true};
  } catch (...) {
  }
  if (threw) return PluginFailure{{Code::kInternal, std::string(who) + ": threw something", {}}, true};
  if (code == SLUICE_OK) return {};
  // A code outside the list is garbage; so may be the length of the text.
  const bool known = code > SLUICE_OK && code <= SLUICE_E_ABI;
  const size_t length = st.msg_len < sizeof st.msg ? st.msg_len : 0;
  Error error{known ? static_cast<Code>(code) : Code::kInternal, std::string(who) + ": ", {}};
  error.message += length > 0 ? std::string(st.msg, length) : "failed with code " + std::to_string(code);
  const bool poisoned = (st.flags & SLUICE_STF_POISONED) != 0 || code == SLUICE_E_DEVICE_LOST;
  return PluginFailure{std::move(error), poisoned};
}

}  // namespace sluice::engine
