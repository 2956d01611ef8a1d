#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/isolation/child_config.hpp"
#include "core/isolation/link.hpp"
#include "core/isolation/messages.hpp"
#include "core/plugin/library.hpp"
#include "core/plugin/thread_pool.hpp"

namespace sluice::isolation {

/// The other side: runs in a process of its own, loads one plugin, and makes the calls that the server asks for.
/// thread  main, except the host services, which the plugin calls from wherever it is allowed to
class ChildHost {
 public:
  /// on_loaded  called once the plugin's constructors and entry function have run, which may rely on being alone
  explicit ChildHost(Link &link, std::function<void()> on_loaded = {});
  /// Serves calls until kClose has been answered. returns  the exit code
  int run();

 private:
  struct Model {
    sluice_model *model = nullptr;
    uint32_t vocab = 0;
  };
  /// What a call answers: its outcome, and results that are read only where that is success.
  struct Answer {
    int32_t code = SLUICE_OK;
    sluice_status status{};
    Packer results;
  };

  void serve(const Frame &frame, Answer &answer);
  void hello(Unpacker &in, Answer &answer);
  void describe(Packer &out) const;
  void backend_call(Call call, Unpacker &in, Answer &answer);
  void model_call(Call call, Unpacker &in, Answer &answer);
  void load_model(Unpacker &in, Answer &answer);
  void wait_for(const Model &model, Unpacker &in, Answer &answer);
  void engine_call(Call call, Unpacker &in, Answer &answer);
  void generate(Unpacker &in, Answer &answer);
  void close();

  void send(Say what, const Packer &packer, uint64_t call = 0);
  void send_if_room(Say what, const Packer &packer);
  void fill_api();
  int32_t deliver(const sluice_engine_event &event);
  static ChildHost &at(sluice_host *host) { return *reinterpret_cast<ChildHost *>(host); }

  Link &link_;
  const std::function<void()> on_loaded_;
  std::mutex send_mutex_;
  sluice_host_api api_{};
  plugin::ThreadPool pool_;
  plugin::Library library_;
  sluice_backend *backend_ = nullptr;
  sluice_engine *engine_ = nullptr;
  ChildConfig config_;  ///< that the instance was opened with
  std::map<uint64_t, Model> models_;
  uint64_t next_model_ = 1;
  std::atomic<uint64_t> n_metrics_{0};
  std::mutex events_mutex_;
  std::map<uint64_t, int32_t> requests_;  ///< that run, with what their next event is answered
  bool closed_ = false;
};

}  // namespace sluice::isolation
