#include "core/app/bench_run.hpp"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace sluice::app {

Result<BenchSample> run_bench(LocalModel &model, const BenchLoad &load) {
  auto &generator = model.generator();
  const uint32_t batch = load.batch;
  const uint32_t vocab = generator.limits().vocab_size;
  std::vector<std::shared_ptr<request::EventChannel>> channels;
  std::vector<std::shared_ptr<const request::Request>> requests;
  std::mutex mutex;
  std::condition_variable arrived;
  bool mail = false;
  for (uint32_t i = 0; i < batch; ++i) {
    std::vector<int32_t> prompt(load.prompt_tokens);
    for (uint32_t k = 0; k < prompt.size(); ++k) prompt[k] = static_cast<int32_t>((i * 7919 + k * 104729 + 11) % vocab);
    boost::json::object sampling{{"temperature", 0}};
    auto request = model.make_request(std::move(prompt), load.gen_tokens, 1, sampling);
    if (!request) return request.error();
    if (request->max_new < load.gen_tokens)
      return invalid_argument(fmt::format("{} prompt and {} generated tokens; the context is {}", load.prompt_tokens,
                                          load.gen_tokens, generator.limits().max_context));
    request->stop_tokens.clear();
    request->decoder_options = load.decoder_options;
    channels.push_back(std::make_shared<request::EventChannel>([&] {
      const std::lock_guard lock(mutex);
      mail = true;
      arrived.notify_one();
    }));
    request->events = channels.back();
    requests.push_back(std::make_shared<const request::Request>(std::move(*request)));
  }

  const auto began = std::chrono::steady_clock::now();
  for (const auto &request : requests)
    if (auto r = generator.submit(request); !r) return r.error();
  uint32_t started = 0;
  uint32_t finished = 0;
  std::vector<bool> has_first(batch, false);
  std::vector<request::Event> events;
  auto all_started = began;
  uint64_t decoded_after = 0;
  Result<> outcome;
  while (finished < batch) {
    {
      std::unique_lock lock(mutex);
      arrived.wait(lock, [&] { return mail; });
      mail = false;
    }
    const auto now = std::chrono::steady_clock::now();
    for (uint32_t i = 0; i < batch; ++i) {
      channels[i]->drain(events);
      for (const auto &event : events) {
        if (event.finish == request::FinishReason::kError) outcome = *event.error;
        if (event.finish != request::FinishReason::kNone) ++finished;
        if (started == batch) ++decoded_after;
        if (has_first[i]) continue;
        has_first[i] = true;
        if (++started == batch) all_started = now;
      }
    }
  }
  if (!outcome) return outcome.error();
  const auto ended = std::chrono::steady_clock::now();
  const double prefill_s = std::chrono::duration<double>(all_started - began).count();
  const double decode_s = std::chrono::duration<double>(ended - all_started).count();
  return BenchSample{static_cast<double>(batch) * load.prompt_tokens / prefill_s,
                decode_s > 0 ? static_cast<double>(decoded_after) / decode_s : 0};
}

}  // namespace sluice::app
