#include "core/lifecycle/served_model.hpp"

#include <algorithm>

namespace sluice::lifecycle {

bool RequestSchema::takes(std::string_view key) const { return std::find(keys.begin(), keys.end(), key) != keys.end(); }

ModelState::Progress ModelState::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

std::string ModelState::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void ModelState::loading(std::string what, uint64_t done, uint64_t total) {
  const std::lock_guard lock(mutex_);
  progress_ = {std::move(what), done, total};
}

void ModelState::failed(std::string reason) {
  const std::lock_guard lock(mutex_);
  reason_ = std::move(reason);
  phase_.store(Phase::kFailed, std::memory_order_release);
}

}  // namespace sluice::lifecycle
