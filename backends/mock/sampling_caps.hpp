// What the mock can do with a row: all that the SDK's host sampling can.
#pragma once
#include <sluice/abi/sampling.h>

#include <cstdint>

namespace sluice::mock {

constexpr uint64_t kStages = SLUICE_STAGE_BIT(SLUICE_STAGE_MASK) | SLUICE_STAGE_BIT(SLUICE_STAGE_BIAS) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_REPETITION) | SLUICE_STAGE_BIT(SLUICE_STAGE_FREQUENCY) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_PRESENCE) | SLUICE_STAGE_BIT(SLUICE_STAGE_TEMPERATURE) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_TOP_K) | SLUICE_STAGE_BIT(SLUICE_STAGE_TOP_P) |
                             SLUICE_STAGE_BIT(SLUICE_STAGE_MIN_P);
constexpr uint32_t kForms = SLUICE_ROW_TOKEN | SLUICE_ROW_CANDIDATES | SLUICE_ROW_LOGITS_HOST;

}  // namespace sluice::mock
