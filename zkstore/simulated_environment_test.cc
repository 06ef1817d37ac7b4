#include "zkstore/simulated_environment.h"

#include <array>
#include <string>
#include <vector>

#include "zkstore/signal.h"

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

// Each test starts from the same seed.
class SimulatedEnvironmentTest : public testing::Test {
 protected:
  std::function<void()> Note(std::string text) {
    return [this, text = std::move(text)] { notes_.push_back(text); };
  }

  std::vector<std::string> notes_;
  SimulatedEnvironment environment_{7};
};

// Two environments of one seed give the same bytes, one of another seed gives others, and the values are those of
// xoshiro256** seeded by splitmix64, whatever the library.
TEST_F(SimulatedEnvironmentTest, RandomnessFollowsFromTheSeed) {
  SimulatedEnvironment same(7), other(8);
  std::uint64_t first = environment_.Random64();
  EXPECT_EQ(same.Random64(), first);
  EXPECT_NE(other.Random64(), first);
  EXPECT_EQ(SimulatedRandom(0).Next(), 11091344671253066420u);

  std::array<std::uint8_t, 13> odd{}, same_odd{};
  environment_.FillRandom(odd);
  same.FillRandom(same_odd);
  EXPECT_EQ(odd, same_odd);
  EXPECT_EQ(environment_.Random64(), same.Random64());
}

// Random numbers stay within their bounds and reach both ends of a small range.
TEST_F(SimulatedEnvironmentTest, RandomNumbersKeepTheirBounds) {
  SimulatedRandom random(3);
  bool reached_min = false, reached_max = false;
  int chances = 0;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_LT(random.Below(10), 10u);
    Duration between = random.Between(Duration(5), Duration(8));
    EXPECT_GE(between, Duration(5));
    EXPECT_LE(between, Duration(8));
    reached_min |= between == Duration(5);
    reached_max |= between == Duration(8);
    chances += random.Chance(0.25);
  }
  EXPECT_TRUE(reached_min && reached_max);
  EXPECT_GT(chances, 180);
  EXPECT_LT(chances, 320);
}

// Time passes only when the test says so, and timers run in the order of their time, then of their start.
TEST_F(SimulatedEnvironmentTest, TimersRunInOrderAsTimePasses) {
  auto strand = environment_.MakeStrand();
  auto late = environment_.MakeTimer(strand), early = environment_.MakeTimer(environment_.executor());
  auto same_time = environment_.MakeTimer(strand);
  late->Start(milliseconds(20), Note("late"));
  early->Start(milliseconds(10), Note("early"));
  same_time->Start(milliseconds(20), Note("same time, later start"));
  Instant start = environment_.Now();

  environment_.RunUntilIdle();
  EXPECT_THAT(notes_, ElementsAre());
  environment_.AdvanceBy(milliseconds(19));
  EXPECT_THAT(notes_, ElementsAre("early"));
  environment_.AdvanceBy(milliseconds(1));
  EXPECT_THAT(notes_, ElementsAre("early", "late", "same time, later start"));
  EXPECT_EQ(environment_.Now() - start, milliseconds(20));
}

// A function that starts a timer sees it run within the same advance, at its own time.
TEST_F(SimulatedEnvironmentTest, TimersStartedOnTheWayRunToo) {
  auto timer = environment_.MakeTimer(environment_.executor());
  Instant start = environment_.Now();
  std::vector<Duration> runs;
  std::function<void()> run = [&] {
    runs.push_back(environment_.Now() - start);
    if (runs.size() < 3) timer->Start(seconds(1), run);
  };
  timer->Start(seconds(1), run);
  environment_.AdvanceBy(seconds(10));
  EXPECT_THAT(runs, ElementsAre(seconds(1), seconds(2), seconds(3)));
}

// A cancelled, restarted or destroyed timer does not run what it was to run before, even when its time has come.
TEST_F(SimulatedEnvironmentTest, CancelledTimersDoNotRun) {
  auto strand = environment_.MakeStrand();
  auto cancelled = environment_.MakeTimer(strand), restarted = environment_.MakeTimer(strand);
  auto destroyed = environment_.MakeTimer(strand);
  auto canceller = environment_.MakeTimer(strand);
  canceller->Start(seconds(1), [&] {
    notes_.push_back("cancel");
    cancelled->Cancel();
    destroyed.reset();
    restarted->Start(seconds(1), Note("second start"));
  });
  cancelled->Start(seconds(1), Note("cancelled"));
  destroyed->Start(seconds(2), Note("destroyed"));
  restarted->Start(seconds(1), Note("first start"));
  environment_.AdvanceBy(seconds(5));
  EXPECT_THAT(notes_, ElementsAre("cancel", "second start"));
}

// A timer whose function already waits in its executor can still be cancelled there.
TEST_F(SimulatedEnvironmentTest, TimerIsCancelledInTheQueue) {
  auto strand = environment_.MakeStrand();
  auto timer = environment_.MakeTimer(strand);
  timer->Start(seconds(1), Note("timer"));
  // Runs at the same instant, after the alarm and before what the alarm has posted.
  environment_.RunAfter(seconds(1), [&] { asio::post(strand, Note("after")); });
  asio::post(strand, [&] { environment_.RunAfter(Duration(0), [&] { timer->Cancel(); }); });
  environment_.AdvanceBy(seconds(2));
  EXPECT_THAT(notes_, ElementsAre("after"));
}

// RunUntil stops at the instant at which its predicate holds, and says so; otherwise all the time has passed.
TEST_F(SimulatedEnvironmentTest, RunUntilStopsWhenThePredicateHolds) {
  bool is_done = false;
  environment_.RunAfter(seconds(3), [&] { is_done = true; });
  Instant start = environment_.Now();
  EXPECT_FALSE(environment_.RunUntil([&] { return is_done; }, seconds(2)));
  EXPECT_EQ(environment_.Now() - start, seconds(2));
  EXPECT_TRUE(environment_.RunUntil([&] { return is_done; }, seconds(100)));
  EXPECT_EQ(environment_.Now() - start, seconds(3));
}

Task<int> SleepTwice(Environment& environment, Duration duration) {
  co_await SleepFor(environment, duration);
  co_await SleepFor(environment, duration);
  co_return 42;
}

// RunTask gives the task as much virtual time as it needs, and returns its result.
TEST_F(SimulatedEnvironmentTest, RunTaskReturnsTheResult) {
  Instant start = environment_.Now();
  EXPECT_EQ(environment_.RunTask(SleepTwice(environment_, seconds(30))), 42);
  EXPECT_EQ(environment_.Now() - start, seconds(60));
  environment_.RunTask(SleepFor(environment_, seconds(1)));
  EXPECT_EQ(environment_.Now() - start, seconds(61));
}

// A task that does not end within the limit stops the process with a text that says so.
TEST_F(SimulatedEnvironmentTest, RunTaskFailsLoudly) {
  EXPECT_DEATH(environment_.RunTask(SleepFor(environment_, hours(2))), "not ended after 3600 s of virtual time");
}

// The wall clock follows the virtual clock, and jumps only by its offset.
TEST_F(SimulatedEnvironmentTest, WallClockCanJump) {
  WallTime start = environment_.WallNow();
  environment_.AdvanceBy(seconds(5));
  EXPECT_EQ(environment_.WallNow() - start, seconds(5));
  Instant before = environment_.Now();
  environment_.SetWallOffset(-seconds(60));
  EXPECT_EQ(environment_.WallNow() - start, -seconds(55));
  EXPECT_EQ(environment_.Now(), before);
}

// What still waits when an environment ends is destroyed without being run, also a sleep that owns its timer.
TEST_F(SimulatedEnvironmentTest, WhatWaitsAtTheEndIsDestroyed) {
  auto witness = std::make_shared<int>(0);
  bool was_run = false;
  {
    SimulatedEnvironment environment(1);
    environment.RunAfter(seconds(1), [witness, &was_run] { was_run = true; });
    auto sleep = [](Environment& env, std::shared_ptr<int>, bool& run) -> Task<void> {
      co_await SleepFor(env, seconds(1));
      run = true;
    };
    Spawn(environment.executor(), sleep(environment, witness, was_run));
    environment.RunUntilIdle();
    EXPECT_GT(witness.use_count(), 2);
  }
  EXPECT_FALSE(was_run);
  EXPECT_EQ(witness.use_count(), 1);
}

}  // namespace
}  // namespace postkeeper
