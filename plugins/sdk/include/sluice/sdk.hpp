// sluice/sdk.hpp - C++17 over the C ABI, header only. It is compiled into the plugin, so nothing here is ABI and all of
// it may change from release to release.
#pragma once
#include <sluice/abi.h>
#include <sluice/sdk/backend.hpp>
#include <sluice/sdk/config.hpp>
#include <sluice/sdk/decoder.hpp>
#include <sluice/sdk/engine.hpp>
#include <sluice/sdk/error.hpp>
#include <sluice/sdk/plugin.hpp>
#include <sluice/sdk/sampler.hpp>
#include <sluice/sdk/sampling.hpp>
#include <sluice/sdk/scheduler.hpp>
#include <sluice/sdk/token_history.hpp>
