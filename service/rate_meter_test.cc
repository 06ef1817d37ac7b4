// The rate over the last minute.
#include "service/rate_meter.h"

#include <gtest/gtest.h>

namespace postkeeper {
namespace {

using std::chrono::seconds;

constexpr Instant kStart{std::chrono::hours(1000)};

// Nothing was counted: the rate is zero.
TEST(RateMeterTest, BeginsAtZero) {
  RateMeter meter;
  EXPECT_EQ(meter.PerSecond(kStart), 0);
}

// A young meter divides by its age, at least a second; an old one by a minute.
TEST(RateMeterTest, DividesByItsAgeThenByAMinute) {
  RateMeter meter;
  meter.Add(30, kStart);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart), 30);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(2)), 10);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(59)), 0.5);
}

// What is older than a minute does not count.
TEST(RateMeterTest, ForgetsAfterAMinute) {
  RateMeter meter;
  meter.Add(60, kStart);
  meter.Add(120, kStart + seconds(30));
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(59)), 3);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(60)), 2);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(90)), 0);
}

// A steady stream over many minutes, and over pauses of any length, is measured right.
TEST(RateMeterTest, MeasuresASteadyStream) {
  RateMeter meter;
  Instant now = kStart;
  for (int i = 0; i < 600; ++i) {
    meter.Add(5, now);
    now += seconds(1);
  }
  EXPECT_NEAR(meter.PerSecond(now - seconds(1)), 5, 0.01);
  now += std::chrono::hours(30);
  meter.Add(60, now);
  EXPECT_DOUBLE_EQ(meter.PerSecond(now), 1);
}

// A clock that stands still or goes back a little does no harm.
TEST(RateMeterTest, ToleratesATimeThatGoesBack) {
  RateMeter meter;
  meter.Add(10, kStart + seconds(5));
  meter.Add(10, kStart);
  EXPECT_DOUBLE_EQ(meter.PerSecond(kStart + seconds(5)), 20);
}

}  // namespace
}  // namespace postkeeper
