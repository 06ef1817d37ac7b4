// A queue's engine under random faults, from a seed: broken connections with late copies, expired sessions, a stopped
// ensemble, replicas cut off, deposed, restarted and killed. What happened is recorded, and the promises of
// docs/GUARANTEES.md are checked against the record. docs/TESTING.md says how to run more seeds and how to look at one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/faults/queue_history.h"

namespace postkeeper {
namespace {

class EngineFaultTest : public testing::TestWithParam<int> {};

// Whatever breaks: what was accepted is delivered until it is acked, in order, to one at a time, and never after.
TEST_P(EngineFaultTest, PromisesHoldUnderFaults) {
  EXPECT_THAT(RunHistory<QueueHistory>(static_cast<std::uint64_t>(GetParam())), testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineFaultTest, FaultSeeds());

}  // namespace
}  // namespace postkeeper
