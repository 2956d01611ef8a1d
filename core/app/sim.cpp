#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>

#include "core/app/command.hpp"
#include "core/app/plugins.hpp"
#include "core/base/log.hpp"
#include "core/plugin/instances.hpp"
#include "core/sim/comparison.hpp"

namespace sluice::app {
namespace {

struct SimOptions {
  std::string path, json, html;
  std::vector<std::string> policies;
  std::vector<double> rho;
  std::vector<uint64_t> seeds;
  uint32_t requests = 0;
  std::optional<uint32_t> audit_every;
};

/// A line on stderr every second: redrawn on a terminal, a new one elsewhere every ten.
class SimProgress {
 public:
  void show(const sim::Under &under) {
    const auto now = Clock::now();
    if (now - shown_ < std::chrono::seconds(terminal_ ? 1 : 10)) return;
    shown_ = now;
    fmt::print(stderr, "{}run {} of {}: {}{}, seed {}: {} of {} requests, {:.0f} s{}", terminal_ ? "\r\033[K" : "",
               under.run, under.n_runs, under.policy, under.rho > 0 ? fmt::format(", rho {}", under.rho) : "", under.seed,
               under.finished, under.n_requests, std::chrono::duration<double>(now - began_).count(),
               terminal_ ? "" : "\n");
    std::fflush(stderr);
  }
  double end() const {
    if (terminal_) fmt::print(stderr, "\r\033[K");
    return std::chrono::duration<double>(Clock::now() - began_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  const bool terminal_ = isatty(STDERR_FILENO) == 1;
  const Clock::time_point began_ = Clock::now();
  Clock::time_point shown_ = began_;
};

void print_line(const std::string &name, const std::vector<double> &values) {
  fmt::print("  {:<22}", name);
  for (const double v : values) fmt::print(" {:>10.{}f}", v, v >= 1000 ? 0 : v >= 10 ? 2 : 4);
  fmt::print("\n");
}

void print_load(const sim::LoadResult &load) {
  fmt::print("\n{}{:.4f} requests/s, output length CV {:.3f}\n",
             load.rho > 0 ? fmt::format("rho {}, ", load.rho) : std::string(), load.rate_per_s, load.output_cv);
  fmt::print("  {:<22} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "", "JCT s", "p99 JCT",
             "s/token", "TTFT s", "p99 TTFT", "p99 pause", "longest", "done/arr.", "preempted", "GB out");
  const auto figures = [](const sim::Measures &m) {
    return std::vector<double>{m.jct.mean,          m.jct.p99,  m.normalized.mean,        m.ttft.mean, m.ttft.p99,
                               m.longest_pause.p99, m.longest_pause.max, m.throughput_of_arrivals, m.preemptions,
                               m.swaps_out_gb};
  };
  for (const auto &p : load.policies) print_line(p.name, figures(p.mean));
  const auto first = figures(load.policies.front().mean);
  for (size_t i = 1; i < load.policies.size(); ++i) {
    auto ratio = figures(load.policies[i].mean);
    ratio.resize(8);
    for (size_t k = 0; k < ratio.size(); ++k) ratio[k] = ratio[k] > 0 ? first[k] / ratio[k] : 0;
    print_line(load.policies.front().name + " / " + load.policies[i].name, ratio);
  }
  for (const auto &p : load.policies) {
    std::string hashes;
    for (const uint64_t hash : p.hashes) hashes += fmt::format(" {:016x}", hash);
    fmt::print("  {:<22}{}\n", p.name + " finish times", hashes);
    if (p.plan_fallbacks > 0) fmt::print("  {}: {} invalid plans, for which FCFS stood in\n", p.name, p.plan_fallbacks);
    if (p.most_held_back > 0)
      fmt::print("  {}: up to {} requests waited outside the engine (engine.max_live)\n", p.name, p.most_held_back);
  }
}

bool write_file(const std::string &path, const std::string &text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) fmt::print(stderr, "sluice: {} cannot be written\n", path);
  return static_cast<bool>(out);
}

/// What flags change of a setup.
void apply(const SimOptions &options, sim::Setup &setup, std::vector<config::Problem> &problems) {
  if (options.requests != 0) setup.requests = options.requests;
  if (!options.rho.empty()) setup.load.rho = options.rho;
  if (!options.seeds.empty()) setup.seeds = options.seeds;
  if (options.audit_every) setup.audit_every = *options.audit_every;
  if (options.policies.empty()) return;
  std::vector<sim::Policy> chosen;
  for (const auto &name : options.policies) {
    const auto it = std::find_if(setup.policies.begin(), setup.policies.end(),
                                 [&](const sim::Policy &p) { return p.name == name; });
    if (it != setup.policies.end()) {
      chosen.push_back(*it);
      continue;
    }
    std::string names;
    for (const auto &policy : setup.policies) names += " " + policy.name;
    problems.push_back({{config::Origin::Kind::kFlag, "--policy", 0},
                        fmt::format("{} is no policy of the setup; it has{}", name, names)});
  }
  setup.policies = std::move(chosen);
}

int report_problems(const std::vector<config::Problem> &problems) {
  for (const auto &problem : problems) fmt::print(stderr, "sluice: {}\n", config::to_string(problem));
  return 1;
}

int simulate(const SimOptions &options) {
  log::configure(log::Level::kWarn, log::Format::kText);
  std::vector<config::Problem> problems;
  auto setup = sim::read_setup(options.path, problems);
  apply(options, setup, problems);
  if (problems.empty()) sim::check_setup(setup, problems);
  if (!problems.empty()) return report_problems(problems);

  static sim::VirtualClock clock;  // plugins may look at it until the process ends
  auto house = PluginHouse::open({}, clock, nullptr);
  if (!house) return fail(house.error());
  std::vector<ConfiguredPlugin> schedulers;
  for (const auto &policy : setup.policies)
    schedulers.push_back((*house)->configure_one(SLUICE_KIND_SCHEDULER, policy.plugin, "policies." + policy.name,
                                                 problems));
  const auto plain = (*house)->configure_one(SLUICE_KIND_DECODER, {"plain", {}, {}}, "decoder", problems);
  if (!problems.empty()) return report_problems(problems);
  sluice_model_info info{};
  info.struct_size = SLUICE_SIZE_THROUGH(sluice_model_info, arch);
  auto decoder = plugin::Decoder::create(*plain.library, (*house)->host().api_for("sim", plain.library->title()),
                                         *plain.options, setup.engine.max_seqs, info);
  if (!decoder) return fail(decoder.error());
  std::vector<sim::Plugins> plugins;
  for (const auto &scheduler : schedulers) {
    const auto &library = *scheduler.library;
    plugins.push_back({(*house)->host().api_for("sim", library.title()), library.metadata.name, library.desc->scheduler,
                       scheduler.options->handle(), (*decoder)->vtbl(), (*decoder)->get()});
  }

  SimProgress progress;
  auto comparison = sim::compare(setup, plugins, clock, [&](const sim::Under &under) { progress.show(under); });
  const double wall_s = progress.end();
  if (!comparison) return fail(comparison.error());
  fmt::print("{}: {} requests, middle {:.0f} % counted, {} seeds, {:.1f} s of wall time\n", setup.title, setup.requests,
             100 * setup.counted, setup.seeds.size(), wall_s);
  fmt::print("step: {}\n", comparison->step_model);
  if (comparison->saturation_per_s > 0)
    fmt::print("saturation: {:.4f} requests/s{}\n", comparison->saturation_per_s,
               comparison->saturation_measured ? ", measured with " + setup.policies.front().name : "");
  for (const auto &load : comparison->loads) print_load(load);
  if (!options.json.empty() && !write_file(options.json, sim::to_json(setup, *comparison))) return 1;
  if (!options.html.empty() && !write_file(options.html, sim::to_html(setup, *comparison))) return 1;
  return 0;
}

}  // namespace

void add_sim(CLI::App &app, Exit exit) {
  auto options = std::make_shared<SimOptions>();
  auto *command = app.add_subcommand("sim", "Compare scheduling policies on a simulated device, hours in seconds");
  command->add_option("setup", options->path, "Setup file (TOML); see configs/sim")->required();
  command->add_option("--json", options->json, "Write everything measured to this file");
  command->add_option("--html", options->html, "Write a report with charts to this file");
  command->add_option("--policy", options->policies, "Only these policies of the setup")->delimiter(',');
  command->add_option("--rho", options->rho, "Instead of the setup's loads")->delimiter(',')->check(CLI::Range(0.001, 10.0));
  command->add_option("--seeds", options->seeds, "Instead of the setup's seeds")->delimiter(',');
  command->add_option("--requests", options->requests, "Instead of the setup's number")->check(CLI::Range(1, 100000000));
  command->add_option("--audit-every", options->audit_every, "Check the ledger every so many steps");
  command->callback([=] { exit(simulate(*options)); });
}

}  // namespace sluice::app
