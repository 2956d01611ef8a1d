#include "tests/support/server_process.hpp"

#include <signal.h>

#include <charconv>
#include <stdexcept>
#include <thread>

#include "core/model_file/synth.hpp"
#include "tests/support/tcp_client.hpp"

namespace sluice::support {
namespace {

constexpr std::chrono::seconds kStartPatience{60};

std::string configuration(const ServerSetup &setup) {
  std::string out = "[server]\nhost = \"127.0.0.1\"\nport = 0\n" + setup.server;
  out += "\n[plugins]\ndirs = [\"" SLUICE_PLUGIN_DIR "\"";
  for (const auto &dir : setup.plugin_dirs) out += ", \"" + dir + "\"";
  out += "]\n" + setup.plugins;
  out += "\n[models.test]\npath = \"" + tiny_model() + "\"\nbackend = " + setup.backend;
  out += "\nscheduler = \"fcfs\"\nsamplers = " + setup.samplers + "\ndecoder = \"plain\"\n" + setup.model;
  return out + "\n" + setup.more;
}

}  // namespace

std::string tiny_model() {
  static const TempDir dir;
  static const std::string path = [] {
    model_file::SynthOptions options;
    options.preset = "tiny";
    options.type = model_file::TensorType::kQ8_0;
    options.seed = 7;
    const std::string file = dir.file("tiny.gguf");
    if (const auto r = model_file::synthesize(options, file); !r) throw std::runtime_error(r.error().message);
    return file;
  }();
  return path;
}

std::string tiny_ids(const std::string &text) {
  std::string out = "[";
  for (const char c : text) out += (out.size() > 1 ? "," : "") + std::to_string(tiny_id(c));
  return out + "]";
}

ServerProcess::ServerProcess(const ServerSetup &setup) {
  std::vector<std::string> argv{SLUICE_BINARY, "serve", files_.write("sluice.toml", configuration(setup))};
  argv.insert(argv.end(), setup.flags.begin(), setup.flags.end());
  process_ = std::make_unique<ChildProcess>(argv);
  wait_until_ready();
}

ServerProcess::ServerProcess(const std::vector<std::string> &arguments, const std::string &program) {
  std::vector<std::string> argv{program, "serve"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  process_ = std::make_unique<ChildProcess>(argv);
  wait_until_ready();
}

void ServerProcess::wait_until_ready() {
  const auto until = std::chrono::steady_clock::now() + kStartPatience;
  while (std::chrono::steady_clock::now() < until && process_->running()) {
    if (port_ == 0) {
      constexpr std::string_view kLine = "listening on http://127.0.0.1:";
      const std::string out = process_->out();
      const size_t at = out.find(kLine);
      if (at != std::string::npos && out.find('\n', at) != std::string::npos)
        std::from_chars(out.data() + at + kLine.size(), out.data() + out.size(), port_);
    }
    if (port_ != 0 && get(port_, "/health/ready").status == 200) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw std::runtime_error("sluice serve did not become ready:\n" + process_->out() + process_->err());
}

Exit ServerProcess::terminate(std::chrono::milliseconds patience) {
  process_->send(SIGTERM);
  const auto exit = process_->wait(patience);
  if (!exit) throw std::runtime_error("sluice serve did not end after SIGTERM:\n" + process_->err());
  return *exit;
}

}  // namespace sluice::support
