#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "core/config/document.hpp"
#include "core/config/value.hpp"
#include "core/sim/setup.hpp"
#include "core/sim/table_reader.hpp"

namespace sluice::sim {
namespace {

using config::Problem;

constexpr uint64_t kMany = 1ull << 40;

std::string beside(const std::string &file, const std::string &path) {
  const std::filesystem::path given(path);
  if (given.is_absolute()) return path;
  std::error_code failed;
  return (std::filesystem::absolute(file, failed).parent_path() / given).lexically_normal().string();
}

void read_parts(TableReader &lengths, const char *key, const std::string &file, std::vector<LengthPart> &parts,
                std::vector<Problem> &problems) {
  for (const auto *table : lengths.tables(key)) {
    LengthPart part;
    TableReader in(*table, lengths.name(key), file, problems);
    in.read("weight", part.weight, 1e-9, 1e9);
    in.read("mean", part.mean, 1, 1e7);
    in.read("cv", part.cv, 0, 20);
    if (!in.has("mean")) in.missing("mean", "the mean length in tokens");
    in.done();
    parts.push_back(part);
  }
}

void read_load(TableReader &in, const std::string &file, Load &load) {
  load.arrivals = static_cast<Arrivals>(in.choice("arrivals", {"poisson", "gamma", "on_off", "trace"}, 0));
  in.read("rho", load.rho, 0.001, 10);
  in.read("saturation_per_s", load.saturation_per_s, 1e-6, 1e9);
  in.read("rates_per_s", load.rates_per_s, 1e-6, 1e9);
  in.read("gamma_cv", load.gamma_cv, 0.01, 100);
  in.read("on_s", load.on_s, 1e-3, 1e6);
  in.read("off_s", load.off_s, 0, 1e6);
  in.read("trace", load.trace);
  if (!load.trace.empty()) load.trace = beside(file, load.trace);
  in.done();
}

void read_picoseconds(TableReader &in, const char *key, uint64_t &ps) {
  double us = static_cast<double>(ps) * 1e-6;
  in.read(key, us, 0, 1e9);
  ps = static_cast<uint64_t>(std::llround(us * 1e6));
}

void read_device(TableReader &in, const std::string &file, Device &device) {
  read_picoseconds(in, "floor_us", device.step.floor_ps);
  read_picoseconds(in, "token_us", device.step.token_ps);
  read_picoseconds(in, "base_us", device.step.base_ps);
  read_picoseconds(in, "context_token_us", device.step.context_ps);
  read_picoseconds(in, "between_steps_us", device.between_steps_ps);
  in.read("step_table", device.step_table);
  if (!device.step_table.empty()) device.step_table = beside(file, device.step_table);
  in.read("bench", device.bench);
  for (auto &path : device.bench) path = beside(file, path);
  in.read("kv_tokens", device.kv_tokens, 16, 1ull << 32);
  in.read("block_size", device.block_size, 8, 256);
  in.read("bytes_per_token", device.bytes_per_token, 1, kMany);
  in.read("host_pool", device.host_pool, 0, 1000);
  in.read("transfer_bytes_per_s", device.transfer_bytes_per_s, 1, 1ull << 50);
  in.read("full_duplex", device.full_duplex);
  device.overlap = static_cast<Overlap>(in.choice("overlap", {"full", "by_block", "none"}, 0));
  in.done();
}

void read_engine(TableReader &in, EngineSetup &engine) {
  in.read("max_seqs", engine.max_seqs, 1, 65536);
  in.read("token_budget", engine.token_budget, 1, 1u << 20);
  in.read("max_live", engine.max_live, 1, 4'000'000);
  in.read("waiting_window", engine.waiting_window, 1, 1u << 20);
  if (in.has("watermark_blocks")) in.read("watermark_blocks", engine.watermark_blocks.emplace(0), 0, 1u << 30);
  in.read("prefix_cache", engine.prefix_cache);
  in.done();
}

Policy read_policy(const toml::table &table, size_t index, const std::string &file, std::vector<Problem> &problems) {
  const std::string where = fmt::format("policies[{}]", index);
  const config::Origin origin{config::Origin::Kind::kFile, file, table.source().begin.line};
  Policy policy;
  policy.plugin.origin = origin;
  const auto text = [&](const char *key) {
    const auto *node = table.get(key);
    if (node == nullptr) return std::string();
    const auto *value = node->as_string();
    if (value == nullptr || !config::is_name(value->get())) {
      problems.push_back({origin, fmt::format("{}.{} must be a name of {}", where, key, config::kNameRule)});
      return std::string();
    }
    return value->get();
  };
  policy.plugin.name = text("use");
  policy.name = text("name");
  if (policy.name.empty()) policy.name = policy.plugin.name;
  if (!table.contains("use"))
    problems.push_back({origin, where + ".use is not set; it must be the name of a scheduler plugin, such as \"fcfs\""});
  // Moved, not copied: nodes keep their positions, so that a wrong option is reported at its line.
  toml::table options = std::move(const_cast<toml::table &>(table));
  options.erase("use");
  options.erase("name");
  policy.plugin.options = config::OptionTable(std::move(options));
  return policy;
}

}  // namespace

Setup read_setup(const std::string &path, std::vector<Problem> &problems) {
  Setup setup;
  setup.path = path;
  setup.title = std::filesystem::path(path).stem().string();
  auto read = config::read_document(path);
  if (auto *problem = std::get_if<Problem>(&read)) {
    problems.push_back(*problem);
    return setup;
  }
  const auto &document = std::get<toml::table>(read);
  TableReader top(document, "", path, problems);
  top.read("title", setup.title);
  top.read("requests", setup.requests, 1, 100'000'000);
  top.read("seeds", setup.seeds, 0, UINT32_MAX);
  top.read("counted", setup.counted, 0.01, 1);
  top.read("audit_every", setup.audit_every, 0, UINT32_MAX);

  TableReader load(top.table("load"), "load", path, problems);
  read_load(load, path, setup.load);
  TableReader lengths(top.table("lengths"), "lengths", path, problems);
  read_parts(lengths, "input", path, setup.lengths.input, problems);
  read_parts(lengths, "output", path, setup.lengths.output, problems);
  lengths.read("max_input", setup.lengths.max_input, 1, 1u << 30);
  lengths.read("max_total", setup.lengths.max_total, 2, 1u << 30);
  lengths.done();
  TableReader device(top.table("device"), "device", path, problems);
  read_device(device, path, setup.device);
  TableReader engine(top.table("engine"), "engine", path, problems);
  read_engine(engine, setup.engine);
  const auto policies = top.tables("policies");
  top.done();
  for (const auto *table : policies)
    setup.policies.push_back(read_policy(*table, setup.policies.size(), path, problems));
  if (problems.empty()) check_setup(setup, problems);
  return setup;
}

}  // namespace sluice::sim
