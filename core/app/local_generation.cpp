#include "core/app/local_generation.hpp"

#include <condition_variable>
#include <mutex>
#include <vector>

namespace sluice::app {

Result<> generate(request::Generator &generator, request::Request request,
                  const std::function<bool(const request::Event &)> &on_event) {
  std::mutex mutex;
  std::condition_variable arrived;
  bool mail = false;
  auto channel = std::make_shared<request::EventChannel>([&] {
    const std::lock_guard lock(mutex);
    mail = true;
    arrived.notify_one();
  });
  request.events = channel;
  const uint64_t id = request.id;
  uint32_t open_answers = request.n_answers;
  if (auto r = generator.submit(std::make_shared<const request::Request>(std::move(request))); !r) return r;

  Result<> outcome;
  bool wanted = true;
  std::vector<request::Event> events;
  while (open_answers > 0) {
    {
      std::unique_lock lock(mutex);
      arrived.wait(lock, [&] { return mail; });
      mail = false;
    }
    channel->drain(events);
    for (const auto &event : events) {
      if (event.finish != request::FinishReason::kNone) --open_answers;
      if (event.finish == request::FinishReason::kError) outcome = *event.error;
      if (!wanted || !on_event || on_event(event)) continue;
      wanted = false;
      generator.cancel(id, request::CancelCause::kClient);
    }
  }
  return outcome;
}

}  // namespace sluice::app
