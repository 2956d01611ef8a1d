#include "core/app/command.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace sluice::app {

int fail(const Error &error) {
  fmt::print(stderr, "sluice: {}\n", error.message);
  return 1;
}

}  // namespace sluice::app
