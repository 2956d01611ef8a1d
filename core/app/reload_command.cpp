#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "core/app/command.hpp"

namespace sluice::app {
namespace {

/// Whether a process is a `sluice serve` with a file to read again: its command line begins "...sluice\0serve\0".
bool is_server(const std::filesystem::path &process) {
  std::ifstream in(process / "cmdline", std::ios::binary);
  const std::string line{std::istreambuf_iterator<char>(in), {}};
  const size_t end = line.find('\0');
  if (end == std::string::npos) return false;
  return std::filesystem::path(line.substr(0, end)).filename() == "sluice" &&
         line.compare(end + 1, 6, std::string("serve\0", 6)) == 0;
}

std::vector<pid_t> servers() {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto &entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); })) continue;
    if (is_server(entry.path())) found.push_back(static_cast<pid_t>(std::stol(name)));
  }
  std::sort(found.begin(), found.end());
  return found;
}

int ask_to_reload(pid_t pid) {
  if (!is_server(fmt::format("/proc/{}", pid)))
    return fail({Code::kNotFound, fmt::format("process {} is no `sluice serve`", pid), {}});
  if (::kill(pid, SIGHUP) != 0)
    return fail({Code::kUnavailable, fmt::format("process {} cannot be signalled; are you its user?", pid), {}});
  fmt::print("process {} reads its configuration again; its log says what has changed and what needs a restart\n", pid);
  return 0;
}

int reload(pid_t pid) {
  if (pid > 0) return ask_to_reload(pid);
  const auto found = servers();
  if (found.size() == 1) return ask_to_reload(found.front());
  if (found.empty()) return fail({Code::kNotFound, "no `sluice serve` runs here", {}});
  return fail(invalid_argument(fmt::format("processes {} are all `sluice serve`; say which one", fmt::join(found, ", "))));
}

}  // namespace

void add_reload(CLI::App &app, Exit exit) {
  auto pid = std::make_shared<pid_t>(0);
  auto *command = app.add_subcommand("reload", "Have a running server read its configuration again, as SIGHUP does");
  command->add_option("PID", *pid, "process of the server; needless when there is only one")
      ->check(CLI::Range(2, 1 << 22));
  command->callback([=] { exit(reload(*pid)); });
}

}  // namespace sluice::app
