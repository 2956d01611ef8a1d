#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>

#include "core/app/command.hpp"
#include "core/app/version.hpp"

int main(int argc, char **argv) {
  // A peer that hangs up must cost a write its errno, not the process its life.
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app("Sluice serves large language models; every part of it is a plugin.", "sluice");
  app.set_version_flag("--version", std::string("sluice ") + sluice::app::kVersion);
  app.require_subcommand(1);
  int code = 0;
  const sluice::app::Exit exit = [&](int c) { code = c; };
  sluice::app::add_serve(app, exit);
  sluice::app::add_reload(app, exit);
  sluice::app::add_run(app, exit);
  sluice::app::add_chat(app, exit);
  sluice::app::add_tokenize(app, exit);
  sluice::app::add_eval(app, exit);
  sluice::app::add_bench(app, exit);
  sluice::app::add_sim(app, exit);
  sluice::app::add_synth(app, exit);
  sluice::app::add_plugins(app, exit);
  sluice::app::add_config(app, exit);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception &e) {
    return sluice::app::fail({sluice::Code::kInternal, e.what(), {}});
  }
  return code;
}
