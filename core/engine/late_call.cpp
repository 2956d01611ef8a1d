#include "core/engine/late_call.hpp"

#include <algorithm>

#include "core/plugin/abi_call.hpp"

namespace sluice::engine {

std::chrono::milliseconds LateCall::period() const {
  using std::chrono::milliseconds;
  return std::clamp<milliseconds>(deadline_ / 4, milliseconds(5), milliseconds(500));
}

std::optional<LateCall::Late> LateCall::look() {
  const auto now = std::chrono::steady_clock::now();
  const auto call = watch_.look();
  if (call.serial != seen_.serial) since_ = now;
  seen_ = call;
  const auto so_far = std::chrono::duration_cast<std::chrono::milliseconds>(now - since_);
  if (call.serial == 0 || so_far < deadline_) return {};
  return Late{plugin::title_of(call.site), call.site.who, so_far};
}

}  // namespace sluice::engine
