// Whole clusters and two replicas of one log, from seeds: docs/TESTING.md says what happens in them, and how to look at
// one. ./dev test runs many more in an optimised build.
#include "tests/support/simulation/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

using testing::IsEmpty;

struct Seed {
  const char* world;
  std::uint64_t seed;
  const char* what;  // it has shown, or is for
};

class SimulationTest : public testing::TestWithParam<Seed> {};

// Whatever breaks: every promise holds.
TEST_P(SimulationTest, PromisesHoldUnderFaults) {
  EXPECT_THAT(Simulate(GetParam().seed, FindWorld(GetParam().world)->options).violations, IsEmpty());
}

std::string NameOfSeed(const testing::TestParamInfo<Seed>& seed) {
  return Cat(seed.param.world, "_", seed.param.seed, "_", seed.param.what);
}

std::vector<Seed> Range(const char* world, std::uint64_t first, std::uint64_t count) {
  std::vector<Seed> seeds;
  for (std::uint64_t seed = first; seed < first + count; ++seed) seeds.push_back({world, seed, "sanitized"});
  return seeds;
}

INSTANTIATE_TEST_SUITE_P(Queue, SimulationTest, testing::ValuesIn(Range("queue", 1, 24)), NameOfSeed);
INSTANTIATE_TEST_SUITE_P(Topic, SimulationTest, testing::ValuesIn(Range("topic", 1, 24)), NameOfSeed);
INSTANTIATE_TEST_SUITE_P(Cluster, SimulationTest, testing::ValuesIn(Range("cluster", 10, 4)), NameOfSeed);
// Each of them has shown a bug once.
INSTANTIATE_TEST_SUITE_P(Kept, SimulationTest, testing::Values(Seed{"cluster", 2, "aClockThatIsAheadTrimmedATopic"}),
                         NameOfSeed);

// The same seed gives the same run, to the last step.
TEST(SimulationReplayTest, SameSeedSameRun) {
  for (const World& world : Worlds()) {
    SimulationOptions options = world.options;
    options.traces = true;
    const SimulationResult first = Simulate(77, options);
    const SimulationResult other = Simulate(78, options);
    const SimulationResult again = Simulate(77, options);
    EXPECT_EQ(first.digest, again.digest) << world.name;
    EXPECT_EQ(first.trace, again.trace) << world.name;
    EXPECT_NE(first.digest, other.digest) << world.name;
  }
}

}  // namespace
}  // namespace postkeeper
