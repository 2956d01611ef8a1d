#pragma once
#include <functional>

#include "core/base/error.hpp"

namespace CLI {
class App;
}

namespace sluice::app {

/// What the process exits with: 0 done, 1 failed (the reason is on stderr), 2 wrong usage;
/// `plugins check` also 2 when the file cannot be loaded.
using Exit = std::function<void(int)>;

// One per subcommand: declares it, and what runs when it is chosen. [init]
void add_serve(CLI::App &app, Exit exit);
void add_reload(CLI::App &app, Exit exit);
void add_run(CLI::App &app, Exit exit);
void add_chat(CLI::App &app, Exit exit);
void add_tokenize(CLI::App &app, Exit exit);
void add_eval(CLI::App &app, Exit exit);
void add_bench(CLI::App &app, Exit exit);
void add_sim(CLI::App &app, Exit exit);
void add_synth(CLI::App &app, Exit exit);
void add_plugins(CLI::App &app, Exit exit);
void add_config(CLI::App &app, Exit exit);
void add_plugins_check(CLI::App &plugins, Exit exit);  ///< below `plugins`, as is the next
void add_plugins_bench(CLI::App &plugins, Exit exit);
void add_plugins_new(CLI::App &plugins, Exit exit);

/// Prints "sluice: message" to stderr and returns 1.
int fail(const Error &error);

}  // namespace sluice::app
