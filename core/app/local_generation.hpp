#pragma once
#include <functional>
#include <memory>

#include "core/request/generator.hpp"

namespace sluice::app {

/// Runs one request on a generator of this process and waits for its end.
///
/// on_event  sees every event in order; false = enough, the rest is cancelled. May be empty.
/// errors    what submit says; the error of an answer that failed
Result<> generate(request::Generator &generator, request::Request request,
                  const std::function<bool(const request::Event &)> &on_event);

}  // namespace sluice::app
