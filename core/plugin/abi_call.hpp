#pragma once
#include <sluice/abi/status.h>

#include <boost/system/result.hpp>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/base/error.hpp"
#include "core/plugin/call_watch.hpp"

// Every call into a plugin goes through here: the status, exceptions, garbage in what it reports, and the time.

namespace sluice::plugin {

/// A plugin's failure: its code and words, and whether its state is damaged.
struct PluginFailure {
  Error error;
  bool poisoned = false;
  std::string who;  ///< "scheduler fcfs"
};

using PluginResult = boost::system::result<void, PluginFailure>;

[[noreturn]] inline void throw_exception_from_error(const PluginFailure &failure, const boost::source_location &) {
  throw std::logic_error("value() of a plugin's failure: " + failure.error.message);
}

inline sluice_status fresh_status() {
  sluice_status st{};
  st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  return st;
}

inline std::string title_of(const CallSite &site) {
  return *site.what == '\0' ? std::string(site.who) : std::string(site.who) + ": " + site.what;
}

/// What a plugin reported, in our terms. A code outside the list is garbage, and so may be the length of the text.
inline Error error_of(const std::string &who, int32_t code, const sluice_status &st) {
  const bool known = code > SLUICE_OK && code <= SLUICE_E_ABI;
  const size_t length = st.msg_len < sizeof st.msg ? st.msg_len : 0;
  Error error{known ? static_cast<Code>(code) : Code::kInternal, who + ": ", {}};
  error.message += length > 0 ? std::string(st.msg, length) : "failed with code " + std::to_string(code);
  return error;
}

/// An exception that gets through (which only a plugin of the same toolchain can throw, and none should) poisons.
inline PluginFailure threw(const CallSite &site, const std::string &what) {
  return {{Code::kInternal, title_of(site) + ": threw " + what, {}}, true, site.who};
}

/// Calls function(args..., &status).
template <class F, class... A> PluginResult call(CallSite site, F function, A &&...args) {
  sluice_status st = fresh_status();
  int32_t code = SLUICE_E_INTERNAL;
  try {
    const CallWatch::Inside inside(site);
    code = function(std::forward<A>(args)..., &st);
  } catch (const std::exception &e) {
    return threw(site, e.what());
  } catch (...) {
    return threw(site, "something that is no exception");
  }
  if (code == SLUICE_OK) return {};
  const bool poisoned = (st.flags & SLUICE_STF_POISONED) != 0 || code == SLUICE_E_DEVICE_LOST;
  return PluginFailure{error_of(title_of(site), code, st), poisoned, site.who};
}

/// Calls a function that reports nothing: release, close, destroy.
template <class F, class... A> PluginResult call_void(CallSite site, F function, A &&...args) {
  try {
    const CallWatch::Inside inside(site);
    function(std::forward<A>(args)...);
  } catch (const std::exception &e) {
    return threw(site, e.what());
  } catch (...) {
    return threw(site, "something that is no exception");
  }
  return {};
}

}  // namespace sluice::plugin
