#pragma once
#include <string>

#include "core/conformance/subject.hpp"

// The checks, each run in a child of its own. path is the plugin's file.

namespace sluice::conformance {

void check_elf(const std::string &path, Findings &findings);               ///< A
void check_loading(const std::string &path, Findings &findings);           ///< B
void check_other_major(const std::string &path, Findings &findings);       ///< B
void check_short_host(const std::string &path, Findings &findings);        ///< B: a table that ends early
void check_long_host(const std::string &path, Findings &findings);         ///< B: a table with more than it knows
void check_descriptor_texts(const std::string &path, Findings &findings);  ///< C
/// D: created and destroyed many times. model  for an engine
void check_life_cycle(const std::string &path, const std::string &model, Findings &findings);
void check_status_handling(const std::string &path, const std::string &model, Findings &findings);  ///< E
void check_hostile_calls(const std::string &path, const std::string &model, Findings &findings);    ///< E
void check_backend(const std::string &path, const std::string &model, Findings &findings);          ///< F
void check_sampler(const std::string &path, Findings &findings);    ///< G
void check_scheduler(const std::string &path, Findings &findings);  ///< H
void check_decoder(const std::string &path, Findings &findings);       ///< I: what it proposes
void check_decoded_text(const std::string &path, Findings &findings);  ///< I: in the server's own verifier
void check_threads(const std::string &path, const std::string &model, Findings &findings);  ///< J
void check_process(const std::string &path, const std::string &model, Findings &findings);  ///< K

/// A request that sets what is usual (temperature, top_p, penalties) as far as the sampler has it; null where it has none.
std::shared_ptr<const plugin::Options> usual_options(const Subject &sampler);

/// What plans cost in the traffic of stage H, as notes.
void bench_scheduler(const Subject &subject, Findings &findings);

}  // namespace sluice::conformance
