#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/child_process.hpp"
#include "tests/support/temp_dir.hpp"

namespace sluice::support {

/// A configuration of one model. Every part may be replaced; the strings are TOML.
struct ServerSetup {
  std::string server;                          ///< more lines of [server]
  std::string backend = R"({ use = "mock", script = "echo" })";
  std::string samplers = R"(["greedy"])";
  std::string model;                           ///< more lines of [models.test]
  std::string more;                            ///< more tables
  std::string plugins;                         ///< more lines of [plugins]
  std::vector<std::string> plugin_dirs;        ///< searched besides those of the build
  std::vector<std::string> flags;              ///< of the command line
};

/// The seeded two-layer model of `sluice synth --preset tiny`, written once per process.
/// Ids: 0 <unk>, 1 <s>, 2 </s>, then the 256 bytes: the letter c is 3 + c.
constexpr uint32_t kTinyVocabSize = 512;
std::string tiny_model();
constexpr int32_t tiny_id(char c) { return 3 + static_cast<unsigned char>(c); }

/// The text as JSON list of ids, one per character.
std::string tiny_ids(const std::string &text);

/// `sluice serve` on a free port of the loopback, ready when the constructor returns.
class ServerProcess {
 public:
  /// throws std::runtime_error with the server's own words when it does not become ready.
  explicit ServerProcess(const ServerSetup &setup);
  /// With these arguments behind `sluice serve`, and nothing added.
  explicit ServerProcess(const std::vector<std::string> &arguments, const std::string &program = SLUICE_BINARY);

  uint16_t port() const { return port_; }
  ChildProcess &process() { return *process_; }
  std::string log() const { return process_->err(); }

  /// Sends SIGTERM and waits for the end. throws std::runtime_error when it does not end.
  Exit terminate(std::chrono::milliseconds patience = std::chrono::seconds(40));

 private:
  void wait_until_ready();
  TempDir files_;
  std::unique_ptr<ChildProcess> process_;
  uint16_t port_ = 0;
};

}  // namespace sluice::support
