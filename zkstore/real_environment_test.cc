#include "zkstore/real_environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <asio/post.hpp>
#include <future>
#include <set>

namespace postkeeper {
namespace {

using std::chrono::milliseconds;

// Runs the function on the executor and waits for it.
template <typename Function>
void RunOn(asio::any_io_executor executor, Function function) {
  std::promise<void> done;
  asio::post(executor, [&] {
    function();
    done.set_value();
  });
  done.get_future().wait();
}

// Time goes on, and never back.
TEST(RealEnvironmentTest, NowRises) {
  RealEnvironment environment(1);
  Instant first = environment.Now();
  Instant last = first;
  while (last - first < milliseconds(2)) {
    Instant now = environment.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

// The wall clock is that of the machine.
TEST(RealEnvironmentTest, WallNowIsTheMachinesTime) {
  RealEnvironment environment(1);
  auto before = std::chrono::floor<milliseconds>(std::chrono::system_clock::now());
  WallTime now = environment.WallNow();
  EXPECT_GE(now, before);
  EXPECT_LE(now, std::chrono::system_clock::now());
}

// Random bytes fill the whole span, and differ from one call to the next.
TEST(RealEnvironmentTest, RandomBytesDiffer) {
  RealEnvironment environment(1);
  std::set<std::array<std::uint8_t, 16>> seen;
  for (int i = 0; i < 1000; ++i) {
    std::array<std::uint8_t, 16> bytes{};
    environment.FillRandom(bytes);
    EXPECT_TRUE(seen.insert(bytes).second);
  }
  EXPECT_NE(environment.Random64(), environment.Random64());
  environment.FillRandom({});
}

// The threads exist in the number asked for, work at the same time, and carry their names.
TEST(RealEnvironmentTest, ThreadsWorkAtTheSameTimeUnderTheirNames) {
  RealEnvironment environment(3, "a-long-thread-name");
  std::promise<void> all_here;
  std::shared_future<void> here = all_here.get_future().share();
  std::atomic<int> count = 0;
  std::mutex mu;
  std::set<std::string> names;
  std::vector<std::future<void>> ended;
  for (int i = 0; i < 3; ++i) {
    auto end = std::make_shared<std::promise<void>>();
    ended.push_back(end->get_future());
    asio::post(environment.executor(), [&, end] {
      if (++count == 3) all_here.set_value();
      here.wait();
      char name[16];
      pthread_getname_np(pthread_self(), name, sizeof(name));
      std::lock_guard lock(mu);
      names.insert(name);
      end->set_value();
    });
  }
  for (std::future<void>& end : ended) end.wait();
  EXPECT_THAT(names, testing::ElementsAre("a-long-thread-0", "a-long-thread-1", "a-long-thread-2"));
}

// A strand runs one function at a time, in the order in which they were posted, whatever the number of threads.
TEST(RealEnvironmentTest, StrandsKeepOrder) {
  RealEnvironment environment(4);
  asio::any_io_executor strand = environment.MakeStrand();
  std::vector<int> seen;  // without a lock: the strand is the lock
  for (int i = 0; i < 10000; ++i) asio::post(strand, [&seen, i] { seen.push_back(i); });
  RunOn(strand, [] {});
  ASSERT_EQ(seen.size(), 10000u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

// A timer runs its function once, on its executor, not before its time.
TEST(RealEnvironmentTest, TimersRunOnce) {
  RealEnvironment environment(2);
  asio::any_io_executor strand = environment.MakeStrand();
  std::unique_ptr<Timer> timer = environment.MakeTimer(strand);
  Instant start = environment.Now();
  std::promise<Instant> ran;
  asio::post(strand, [&] {
    timer->Start(milliseconds(20), [&] { ran.set_value(environment.Now()); });  // a second call would throw
  });
  EXPECT_GE(ran.get_future().get() - start, milliseconds(20));
  RunOn(strand, [&] { timer.reset(); });
}

// Starting a timer again replaces what it was to run.
TEST(RealEnvironmentTest, StartReplacesWhatWasToRun) {
  RealEnvironment environment(1);
  std::unique_ptr<Timer> timer = environment.MakeTimer(environment.executor());
  bool first_ran = false;
  std::promise<void> second_ran;
  asio::post(environment.executor(), [&] {
    timer->Start(Duration::zero(), [&] { first_ran = true; });
    timer->Start(milliseconds(5), [&] { second_ran.set_value(); });
  });
  second_ran.get_future().wait();
  RunOn(environment.executor(), [&] { EXPECT_FALSE(first_ran); });
}

// A cancelled timer does not run, even if its time had come while the strand was busy and it stood in the queue.
TEST(RealEnvironmentTest, CancelStopsAQueuedTimer) {
  RealEnvironment environment(2);
  asio::any_io_executor strand = environment.MakeStrand();
  std::unique_ptr<Timer> timer = environment.MakeTimer(strand);
  std::unique_ptr<Timer> destroyed = environment.MakeTimer(strand);
  bool has_run = false;
  RunOn(strand, [&] {
    timer->Start(Duration::zero(), [&] { has_run = true; });
    destroyed->Start(Duration::zero(), [&] { has_run = true; });
    // The other thread puts both into the strand's queue meanwhile: a third timer, not on the strand, shows it.
    std::promise<void> later;
    std::unique_ptr<Timer> proof = environment.MakeTimer(environment.executor());
    proof->Start(milliseconds(5), [&] { later.set_value(); });
    later.get_future().wait();
    timer->Cancel();
    destroyed.reset();
  });
  RunOn(strand, [&] { EXPECT_FALSE(has_run); });
}

// A timer may be destroyed, and started again, by the function that it runs.
TEST(RealEnvironmentTest, TimersMayBeUsedByTheirOwnFunction) {
  RealEnvironment environment(1);
  auto timer = environment.MakeTimer(environment.executor());
  std::promise<void> done;
  int runs = 0;
  std::function<void()> again = [&] {
    if (++runs < 3) {
      timer->Start(Duration::zero(), again);
    } else {
      timer.reset();
      done.set_value();
    }
  };
  asio::post(environment.executor(), [&] { timer->Start(Duration::zero(), again); });
  done.get_future().wait();
  EXPECT_EQ(runs, 3);
}

// Delays beyond all measure do no harm: the timer waits, and one below zero runs at once.
TEST(RealEnvironmentTest, ExtremeDelays) {
  RealEnvironment environment(1);
  auto never = environment.MakeTimer(environment.executor());
  auto at_once = environment.MakeTimer(environment.executor());
  std::promise<void> done;
  bool never_ran = false;
  RunOn(environment.executor(), [&] {
    never->Start(Duration::max(), [&] { never_ran = true; });
    at_once->Start(Duration::min(), [&] { done.set_value(); });
  });
  done.get_future().wait();
  RunOn(environment.executor(), [&] { EXPECT_FALSE(never_ran); });
}

// Stop lets what runs come to its end and drops what waits; Join returns then.
TEST(RealEnvironmentTest, StopDropsWhatWaits) {
  RealEnvironment environment(1);
  bool first_ended = false, second_ran = false;
  asio::post(environment.executor(), [&] {
    asio::post(environment.executor(), [&] { second_ran = true; });
    environment.Stop();
    first_ended = true;
  });
  environment.Join();
  EXPECT_TRUE(first_ended);
  EXPECT_FALSE(second_ran);
  environment.Stop();
  environment.Join();
}

}  // namespace
}  // namespace postkeeper
