// The ring, honest and hostile: bytes arrive in order; whatever the other side writes there, the host reads only what it
// has checked, ends in bounded time, and never crashes.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "core/isolation/child_host.hpp"
#include "core/isolation/isolated_plugin.hpp"
#include "tests/core/isolation/mock_steps.hpp"

namespace sluice::isolation::testing {
namespace {

using namespace std::chrono_literals;

Deadline soon() { return std::chrono::steady_clock::now() + 5s; }

struct Pair {
  Pair() {
    auto made = SharedMemory::create();
    EXPECT_TRUE(made);
    memory = std::move(*made);
    const int a = ::eventfd(0, EFD_NONBLOCK), b = ::eventfd(0, EFD_NONBLOCK);
    death = ::eventfd(0, EFD_NONBLOCK);
    host = std::make_unique<Link>(Link::End::kHost, memory, a, b, death);
    child = std::make_unique<Link>(Link::End::kChild, memory, ::dup(b), ::dup(a), death);
  }
  ~Pair() { ::close(death); }
  void kill() const {
    const uint64_t one = 1;
    (void)!::write(death, &one, sizeof one);
  }
  std::shared_ptr<SharedMemory> memory;
  int death = -1;
  std::unique_ptr<Link> host, child;
};

TEST(Ring, MessagesOfEverySizeArriveWhole) {
  Pair pair;
  std::mt19937_64 random(1);
  std::vector<size_t> sizes = {0, 1, 7, 8, 9, kRingBytes - 24, kRingBytes, kRingBytes + 1, 3 * kRingBytes + 5};
  for (int i = 0; i < 200; ++i) sizes.push_back(random() % 5000);
  const auto content = [](size_t n) {
    std::vector<std::byte> bytes(n);
    for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>((n * 31 + i * 7) >> (i % 5));
    return bytes;
  };
  std::thread sender([&] {
    for (size_t i = 0; i < sizes.size(); ++i)
      ASSERT_TRUE(pair.child->send(static_cast<uint32_t>(i), i * 3, content(sizes[i]), soon()));
  });
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto frame = pair.host->receive(soon(), 8 * kRingBytes);
    ASSERT_TRUE(frame) << frame.error().message;
    EXPECT_EQ(frame->type, i);
    EXPECT_EQ(frame->call, i * 3);
    const auto expected = content(sizes[i]);
    ASSERT_EQ(frame->bytes, expected.size());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), frame->payload().begin()));
  }
  sender.join();
}

TEST(Ring, SilenceEndsWithTheDeadlineAndDeathAtOnce) {
  Pair pair;
  EXPECT_EQ(pair.host->receive(std::chrono::steady_clock::now() + 30ms, 100).error().code, Code::kTimeout);
  std::thread killer([&] {
    std::this_thread::sleep_for(30ms);
    pair.kill();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(pair.host->receive(soon(), 100).error().code, Code::kDeviceLost);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  killer.join();
}

TEST(Ring, AMessageLongerThanExpectedIsNotAllocated) {
  Pair pair;
  const uint64_t head[3] = {100, 1, uint64_t{1} << 60};  // type, call, bytes
  std::memcpy(pair.memory->to_host(), head, sizeof head);
  pair.memory->head().to_host.written = sizeof head;
  const auto frame = pair.host->receive(soon(), 1 << 20);
  ASSERT_FALSE(frame);
  EXPECT_NE(frame.error().message.find("1152921504606846976 bytes"), std::string::npos) << frame.error().message;
}

TEST(Ring, APositionThatCannotBeIsAnError) {
  for (const uint64_t lie : {uint64_t{kRingBytes} + 1, UINT64_MAX, uint64_t{1} << 63}) {
    Pair pair;
    pair.memory->head().to_host.written = lie;
    EXPECT_EQ(pair.host->receive(soon(), 100).error().code, Code::kInternal) << lie;
    Pair other;
    other.memory->head().to_child.read = lie;
    const std::byte bytes[8] = {};
    EXPECT_EQ(other.host->send(1, 1, bytes, soon()).error().code, Code::kInternal) << lie;
  }
}

/// The other side as a thread of this process: a real one, whose words another thread falsifies in the ring.
class HostilePeer final : public Peer {
 public:
  explicit HostilePeer(uint64_t seed) : random_(seed) {
    child_ = std::thread([this] { ChildHost(*pair_.child).run(); });
    scribbler_ = std::thread([this] { scribble(); });
  }
  ~HostilePeer() override {
    kill();
    quit_ = true;
    child_.join();
    scribbler_.join();
  }
  Link &link() override { return *pair_.host; }
  void kill() override { pair_.kill(); }
  std::string ending() const override { return "was a test"; }
  void begin() { hostile_ = true; }

 private:
  /// Only what a child can write and the host reads.
  void scribble() {
    SharedHead &head = pair_.memory->head();
    while (!quit_) {
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % 50));
      if (!hostile_) continue;
      const uint64_t what = random_() % 16;
      if (what < 10) {
        // Words near the end of what has been written are those that the host is about to read.
        const uint64_t at = (head.to_host.written.load() + kRingBytes - random_() % 256) % (kRingBytes - 8);
        const uint64_t words[] = {0, 1, UINT64_MAX, random_(), random_() % 512, uint64_t{1} << (random_() % 64)};
        std::memcpy(pair_.memory->to_host() + at / 4 * 4, &words[random_() % 6], random_() % 2 == 0 ? 8 : 4);
      } else if (what == 10) {
        head.to_host.reader_sleeps = static_cast<uint32_t>(random_());
      } else if (what == 11) {
        head.to_child.writer_sleeps = static_cast<uint32_t>(random_());
      } else if (what == 12 && random_() % 8 == 0) {
        head.to_host.written.fetch_add(random_() % 64);
      } else if (what == 13 && random_() % 8 == 0) {
        head.to_child.read = random_();
      } else {
        head.heartbeat = random_(), head.stop = static_cast<uint32_t>(random_());
      }
    }
  }
  Pair pair_;
  std::mt19937_64 random_;
  std::atomic<bool> quit_{false}, hostile_{false};
  std::thread child_, scribbler_;
};

/// A child that says the same all the time, and never answers.
class ChattyPeer final : public Peer {
 public:
  ChattyPeer(Say what, const Packer &words) {
    child_ = std::thread([this, what, words] {
      while (!quit_) (void)pair_.child->send(static_cast<uint32_t>(what), 0, words.bytes(), std::chrono::steady_clock::now() + 50ms);
    });
  }
  ~ChattyPeer() override { quit_ = true, child_.join(); }
  Link &link() override { return *pair_.host; }
  void kill() override { pair_.kill(), quit_ = true; }
  std::string ending() const override { return "was a test"; }

 private:
  Pair pair_;
  std::atomic<bool> quit_{false};
  std::thread child_;
};

CallTimes short_times() {
  CallTimes times;
  times.call = 300ms;
  return times;
}

TEST(Ring, WhoTalksAndDoesNotAnswerIsLateAllTheSame) {
  TestHost host;
  sluice_host_api api = *host.api();
  api.metric = [](sluice_host *, int32_t, const char *, const char *, uint64_t *) {
    std::this_thread::sleep_for(1ms);  // slower than it talks, so that the ring is never empty
    return SLUICE_OK;
  };
  Packer words;
  words.value<uint64_t>(1), words.value<int32_t>(0), words.text("said"), words.text("again and again");
  Remote remote("backend loud", std::make_unique<ChattyPeer>(Say::kMetric, words), &api, short_times());
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(remote.call(Call::kWait, Packer(), nullptr), SLUICE_E_DEVICE_LOST);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST(Ring, WhoLogsAllTheTimeDoesNotFillTheDisk) {
  static std::atomic<int> lines;
  lines = 0;
  TestHost host;
  sluice_host_api api = *host.api();
  api.log = [](sluice_host *, int32_t, const char *, const char *, size_t) { ++lines; };
  Packer words;
  words.value<int32_t>(SLUICE_LOG_WARN), words.text("loud"), words.text("again and again");
  Remote remote("backend loud", std::make_unique<ChattyPeer>(Say::kLog, words), &api, short_times());
  EXPECT_EQ(remote.call(Call::kWait, Packer(), nullptr), SLUICE_E_DEVICE_LOST);
  EXPECT_GT(lines, 0);
  EXPECT_LE(lines, 1000);
}

TEST(Ring, WhoLoadsForEverIsStopped) {
  TestHost host;
  Packer words;
  words.text("for ever"), words.value<uint64_t>(1), words.value<uint64_t>(2);
  for (const Call call : {Call::kModelLoad, Call::kConfigure}) {
    Remote remote("backend slow", std::make_unique<ChattyPeer>(Say::kProgress, words), host.api(), short_times());
    int asked = 0;
    remote.set_progress([&](const std::string &, uint64_t, uint64_t) {
      std::this_thread::sleep_for(1ms);
      return ++asked > 10;
    });
    Reply reply;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(remote.call(call, Packer(), reply, nullptr, call == Call::kModelLoad ? 100s : 300ms), SLUICE_E_DEVICE_LOST);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    EXPECT_GT(asked, 10);
  }
}

TEST(Ring, AHostileChildCostsErrorsAndNothingElse) {
  TestHost host;
  const std::string path = std::string(SLUICE_PLUGIN_DIR) + "/libsluice_backend_mock.so";
  IsolatedPlugin plugin;
  plugin.who = "backend mock";
  sluice_backend_vtbl table{};
  table.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_vtbl, health);
  fill_backend(table, true);
  CallTimes times;
  times.call = times.silence = 200ms;
  int lost = 0, answered = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    auto peer = std::make_unique<HostilePeer>(seed);
    HostilePeer &hostile = *peer;
    auto remote = std::make_unique<Remote>("backend mock", std::move(peer), host.api(), times);
    Packer hello;
    hello.value(kProtocol);
    hello.text(path);
    Reply reply;
    if (seed % 4 == 0) hostile.begin();  // from the first word
    if (remote->call(Call::kHello, hello, reply, nullptr, 5s) != SLUICE_OK) {
      ++lost;
      continue;
    }
    sluice_backend_open open{};
    open.struct_size = SLUICE_SIZE_THROUGH(sluice_backend_open, config);
    sluice_backend *backend = nullptr;
    if (open_backend_over(std::move(remote), host.api(), plugin, &open, &backend, nullptr) != SLUICE_OK) {
      ++lost;
      continue;
    }
    MockSteps steps(&table, backend);
    hostile.begin();
    for (int i = 0; i < 200 && steps.ready(); ++i) {
      const Answered a = steps.step();
      if (a.code == SLUICE_OK) ++answered;
      if (a.code == SLUICE_E_DEVICE_LOST) {
        ++lost;
        break;
      }
    }
  }
  EXPECT_GT(lost, 5) << "the test does not hurt any more";
  EXPECT_GT(answered, 40) << "the test breaks everything at once";
}

}  // namespace
}  // namespace sluice::isolation::testing
