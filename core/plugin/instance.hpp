#pragma once
#include <atomic>
#include <string>
#include <utility>

#include "core/plugin/abi_call.hpp"

namespace sluice::plugin {

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
  template <class F, class... A> Result<> call(const char *what, F function, A &&...args) const {
    if (poisoned_)
      return Error{Code::kUnavailable, name_ + ": " + what + ": the plugin has failed before and is out of use", {}};
    const auto done = plugin::call({name_.c_str(), what}, function, std::forward<A>(args)...);
    if (done) return {};
    if (done.error().poisoned) poisoned_ = true;
    return done.error().error;
  }

 private:
  std::string name_;
  mutable std::atomic<bool> poisoned_{false};
};

}  // namespace sluice::plugin
