// Time and faults.
#include "tests/backends/mock/mock_driver.hpp"

#include <chrono>
#include <thread>

namespace sluice::test {
namespace {

TEST(MockTime, AStepIsDoneWhenTheHostsClockSaysSo) {
  Mock m({{"step_us", "100"}, {"token_us", "10"}});
  MockSeq s = m.seq(1, {10, 11, 12});
  MockStep step;
  sluice_ticket ticket = 0;
  const uint64_t start = m.host.now_ns;
  m.check(m.submit(step.add(s, 3), &ticket));
  EXPECT_EQ(m.wait(ticket), SLUICE_E_TIMEOUT);
  EXPECT_EQ(m.wait(ticket, 1'000'000'000), SLUICE_E_TIMEOUT) << "a clock that stands still is not waited for";
  m.host.now_ns = start + 129'999;
  EXPECT_EQ(m.wait(ticket), SLUICE_E_TIMEOUT);
  m.host.now_ns = start + 130'000;
  EXPECT_EQ(m.wait(ticket), SLUICE_OK);
  EXPECT_EQ(m.result.device_ns, 130'000u);
  EXPECT_EQ(m.result.queue_ns, 0u);
  EXPECT_EQ(m.result.token[0], 13);
}

TEST(MockTime, StepsQueueUp) {
  Mock m(PluginConfig::Values{{"step_us", "100"}});
  MockSeq a = m.seq(1, {10}), b = m.seq(2, {20});
  MockStep one, two;
  sluice_ticket first = 0, second = 0;
  m.check(m.submit(one.add(a, 1), &first));
  m.host.now_ns += 30'000;
  m.check(m.submit(two.add(b, 1), &second));
  m.host.now_ns += 70'000;
  EXPECT_EQ(m.wait(second), SLUICE_E_TIMEOUT);
  EXPECT_EQ(m.wait(first), SLUICE_OK);
  m.host.now_ns += 100'000;
  EXPECT_EQ(m.wait(second), SLUICE_OK);
  EXPECT_EQ(m.result.queue_ns, 70'000u);
  EXPECT_EQ(m.result.device_ns, 100'000u);
}

TEST(MockTime, SleepsOnTheRealClock) {
  Mock m(PluginConfig::Values{{"step_us", "20000"}});
  m.host.real_clock = true;
  MockSeq s = m.seq(1, {10});
  MockStep step;
  sluice_ticket ticket = 0;
  const auto start = std::chrono::steady_clock::now();
  m.check(m.submit(step.add(s, 1), &ticket));
  EXPECT_EQ(m.wait(ticket, 2'000'000), SLUICE_E_TIMEOUT);
  EXPECT_EQ(m.wait(ticket, 10'000'000'000), SLUICE_OK);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(20));
}

TEST(MockTime, JitterIsBoundedAndRepeatable) {
  std::vector<uint64_t> times[2];
  for (auto &list : times) {
    Mock m({{"step_us", "1000"}, {"jitter", "0.5"}, {"seed", "3"}});
    MockSeq s = m.seq(1, {10});
    for (int i = 0; i < 40; ++i) {
      MockStep step;
      sluice_ticket ticket = 0;
      m.check(m.submit(step.add(s, 1), &ticket));
      m.host.now_ns += 10'000'000;
      m.check(m.wait(ticket));
      list.push_back(m.result.device_ns);
      EXPECT_GE(list.back(), 1'000'000u);
      EXPECT_LE(list.back(), 1'500'000u);
      s.cached += 1, s.tokens.push_back(m.result.token[0]);
      m.vtbl().release(m.model, ticket);
    }
  }
  EXPECT_EQ(times[0], times[1]);
  EXPECT_GT(*std::max_element(times[0].begin(), times[0].end()), 1'300'000u);
}

TEST(MockFault, EveryNthStepFailsInWaitAndItsKvIsGone) {
  Mock m({{"fail_every", "3"}, {"fail_code", "internal"}});
  MockSeq s = m.seq(1, {10, 11});
  m.answer(s, 2);
  MockStep third;
  sluice_ticket ticket = 0;
  ASSERT_EQ(m.submit(third.add(s, 1), &ticket), SLUICE_OK);
  EXPECT_EQ(m.wait(ticket), SLUICE_E_INTERNAL);
  EXPECT_EQ(m.status.text(), "injected fault: step fails (fail_every = 3)");
  EXPECT_EQ(m.status.raw.flags, 0u);
  m.vtbl().release(m.model, ticket);
  MockSeq careless = s;
  careless.cached += 1, careless.tokens.push_back(14);
  MockStep wrong;
  EXPECT_EQ(m.submit(wrong.add(careless, 1), &ticket), SLUICE_E_INVALID_ARGUMENT) << "nobody computed position 3";
  EXPECT_EQ(m.answer(s, 1), (std::vector<int32_t>{14})) << "the same step again is fine";
}

TEST(MockFault, SubmitCanFailAndQueuesNothing) {
  Mock m({{"fail_every", "2"}, {"fail_in", "submit"}, {"fail_code", "resource_exhausted"}});
  MockSeq s = m.seq(1, {10, 11});
  m.answer(s, 1);
  MockStep step;
  sluice_ticket ticket = 0;
  EXPECT_EQ(m.submit(step.add(s, 1), &ticket), SLUICE_E_RESOURCE_EXHAUSTED);
  EXPECT_EQ(ticket, 0u);
  EXPECT_EQ(m.answer(s, 1), (std::vector<int32_t>{13}));
}

TEST(MockFault, CanSayThatItIsPoisoned) {
  Mock m({{"fail_every", "1"}, {"fail_poisoned", "true"}});
  MockSeq s = m.seq(1, {10});
  MockStep step;
  sluice_ticket ticket = 0;
  ASSERT_EQ(m.submit(step.add(s, 1), &ticket), SLUICE_OK);
  EXPECT_EQ(m.wait(ticket), SLUICE_E_INTERNAL);
  EXPECT_EQ(m.status.raw.flags, SLUICE_STF_POISONED);
}

TEST(MockFault, ALostDeviceStaysLost) {
  Mock m(PluginConfig::Values{{"lost_at", "2"}});
  MockSeq s = m.seq(1, {10});
  m.answer(s, 1);
  EXPECT_EQ(m.health(), SLUICE_OK);
  MockStep step;
  sluice_ticket ticket = 0;
  EXPECT_EQ(m.submit(step.add(s, 1), &ticket), SLUICE_E_DEVICE_LOST);
  EXPECT_EQ(m.health(), SLUICE_E_DEVICE_LOST);
  EXPECT_EQ(m.kv_op(SLUICE_KV_COPY, 0, 1), SLUICE_E_DEVICE_LOST);
}

TEST(MockFault, AHangingStepNeverEndsNorDoesWhatIsBehindIt) {
  Mock m(PluginConfig::Values{{"hang_at", "2"}});
  MockSeq s = m.seq(1, {10}), other = m.seq(2, {20});
  m.answer(s, 1);
  MockStep hanging, behind;
  sluice_ticket first = 0, second = 0;
  m.check(m.submit(hanging.add(s, 1), &first));
  m.check(m.submit(behind.add(other, 1), &second));
  m.host.now_ns += uint64_t{3600} * 1'000'000'000;
  EXPECT_EQ(m.wait(first), SLUICE_E_TIMEOUT);
  EXPECT_EQ(m.wait(second), SLUICE_E_TIMEOUT);
}

TEST(MockFault, StepsInFlightAreCountedAndTicketsChecked) {
  Mock m;
  MockSeq s = m.seq(1, {10}, 48);
  std::vector<sluice_ticket> tickets(9);
  for (int i = 0; i < 8; ++i) {
    MockStep step;
    ASSERT_EQ(m.submit(step.add(s, 1), &tickets[static_cast<size_t>(i)]), SLUICE_OK);
    m.check(m.wait(tickets[static_cast<size_t>(i)]));
    s.cached += 1, s.tokens.push_back(m.result.token[0]);
  }
  MockStep ninth;
  EXPECT_EQ(m.submit(ninth.add(s, 1), &tickets[8]), SLUICE_E_RESOURCE_EXHAUSTED);
  m.vtbl().release(m.model, tickets[0]);
  EXPECT_EQ(m.submit(ninth, &tickets[8]), SLUICE_OK);
  EXPECT_EQ(m.wait(tickets[0]), SLUICE_E_INVALID_ARGUMENT) << "released";
  EXPECT_EQ(m.wait(9999), SLUICE_E_INVALID_ARGUMENT) << "never given out";
  EXPECT_EQ(m.wait(tickets[3]), SLUICE_OK);
  EXPECT_EQ(m.result.token[0], 14) << "a result stays until its release";
}

TEST(MockTime, AnotherThreadMayWait) {
  Mock m(PluginConfig::Values{{"step_us", "2000"}});
  m.host.real_clock = true;
  MockSeq s = m.seq(1, {10});
  for (int i = 0; i < 5; ++i) {
    MockStep step;
    sluice_ticket ticket = 0;
    m.check(m.submit(step.add(s, 1), &ticket));
    int32_t code = -1;
    std::thread waiter([&] { code = m.wait(ticket, 5'000'000'000); });
    waiter.join();
    ASSERT_EQ(code, SLUICE_OK);
    s.cached += 1, s.tokens.push_back(m.result.token[0]);
    m.vtbl().release(m.model, ticket);
  }
}

}  // namespace
}  // namespace sluice::test
