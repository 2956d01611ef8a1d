#pragma once
#include <sluice/abi/status.h>

#include <atomic>
#include <exception>
#include <string>
#include <utility>

#include "core/base/error.hpp"

namespace sluice::plugin {

inline sluice_status fresh_status() {
  sluice_status st{};
  st.struct_size = SLUICE_SIZE_THROUGH(sluice_status, msg);
  return st;
}

/// What a plugin reported, in our terms. A code outside the list is garbage, and so may be the length of the text.
inline Error error_of(const std::string &who, int32_t code, const sluice_status &st) {
  const bool known = code > SLUICE_OK && code <= SLUICE_E_ABI;
  const size_t length = st.msg_len < sizeof st.msg ? st.msg_len : 0;
  Error error{known ? static_cast<Code>(code) : Code::kInternal, who + ": ", {}};
  error.message += length > 0 ? std::string(st.msg, length) : "failed with code " + std::to_string(code);
  return error;
}

/// An instance of a plugin: remembers that it has damaged itself and is not to be called any more.
class Instance {
 public:
  Instance(const Instance &) = delete;
  Instance &operator=(const Instance &) = delete;
  /// name  for messages: "backend cpu"
  explicit Instance(std::string name) : name_(std::move(name)) {}
  const std::string &name() const { return name_; }
  bool poisoned() const { return poisoned_; }

 protected:
  /// Calls function(args..., &status). An exception that gets through (which only a plugin of the same toolchain can
  /// throw, and none should) poisons the instance.
  template <class F, class... A> Result<> call(const char *what, F function, A &&...args) const {
    const std::string who = name_ + ": " + what;
    if (poisoned_) return Error{Code::kUnavailable, who + ": the plugin has failed before and is out of use", {}};
    sluice_status st = fresh_status();
    int32_t code = SLUICE_E_INTERNAL;
    try {
      code = function(std::forward<A>(args)..., &st);
    } catch (const std::exception &e) {
      poisoned_ = true;
      return Error{Code::kInternal, who + ": threw " + e.what(), {}};
    } catch (...) {
      poisoned_ = true;
      return Error{Code::kInternal, who + ": threw something that is no exception", {}};
    }
    if (code == SLUICE_OK) return {};
    if ((st.flags & SLUICE_STF_POISONED) != 0 || code == SLUICE_E_DEVICE_LOST) poisoned_ = true;
    return error_of(who, code, st);
  }

 private:
  std::string name_;
  mutable std::atomic<bool> poisoned_{false};
};

}  // namespace sluice::plugin
