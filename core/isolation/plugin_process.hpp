#pragma once
#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "core/isolation/link.hpp"

namespace sluice::isolation {

/// The other side of a link, as the server sees it.
class Peer {
 public:
  virtual ~Peer() = default;
  virtual Link &link() = 0;
  virtual void kill() = 0;              ///< [any] idempotent
  virtual std::string ending() const = 0;  ///< how it ended, for messages; empty while it lives
};

/// A child process that hosts one plugin. It has no file of ours open but its ends of the link and stderr, an empty
/// environment, limits, no way to gain privileges, and dies with the server. Ended and reaped with the object.
class PluginProcess final : public Peer {
 public:
  /// program  the plugin host, absolute
  /// who      for messages: "backend cpu"
  static Result<std::unique_ptr<PluginProcess>> start(const std::string &program, const std::string &who);
  ~PluginProcess() override;

  Link &link() override { return *link_; }
  void kill() override;
  std::string ending() const override;
  pid_t pid() const { return pid_; }

  /// From now on a child whose heart stops for too long is killed.
  void expect_heartbeat() { heart_expected_.store(true, std::memory_order_relaxed); }

 private:
  PluginProcess(pid_t pid, int pidfd, std::string who, std::unique_ptr<Link> link);
  void watch();

  const pid_t pid_;
  const int pidfd_;
  const std::string who_;
  std::unique_ptr<Link> link_;
  std::atomic<bool> heart_expected_{false}, ended_{false};
  mutable std::mutex mutex_;
  std::string ending_;
  std::thread watch_;  ///< the first to know of its death, and the one who reaps it
};

/// Where the plugin host lies: beside the server's own program.
std::string plugin_host_program();

}  // namespace sluice::isolation
