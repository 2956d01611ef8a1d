// sluice-plugin-host: one plugin in a process of its own. Started by the server only, which hands over three descriptors.
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "core/isolation/child_host.hpp"

namespace {

constexpr int kRingFd = 3, kOwnWakeFd = 4, kPeerWakeFd = 5;  // as plugin_process.cpp places them
constexpr std::chrono::milliseconds kBeat{300};

}  // namespace

int main() {
  auto memory = sluice::isolation::SharedMemory::map(kRingFd);
  if (!memory) {
    std::fprintf(stderr, "sluice-plugin-host is started by the server, for plugins with isolation = \"process\"\n");
    return 2;
  }
  const std::shared_ptr<sluice::isolation::SharedMemory> shared = std::move(*memory);
  sluice::isolation::Link link(sluice::isolation::Link::End::kChild, shared, kOwnWakeFd, kPeerWakeFd, -1);
  sluice::isolation::ChildHost host(link, [&shared] {
    std::thread([shared] {
      pthread_setname_np(pthread_self(), "sluice-heart");
      for (;; std::this_thread::sleep_for(kBeat)) shared->head().heartbeat.fetch_add(1, std::memory_order_relaxed);
    }).detach();
  });
  const int code = host.run();
  std::fflush(nullptr);
  ::_exit(code);  // what the plugin left behind is the kernel's
}
