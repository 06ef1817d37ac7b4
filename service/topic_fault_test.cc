// A topic's engine under random faults, from a seed, as the queue's in engine_fault_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/faults/topic_history.h"

namespace postkeeper {
namespace {

class TopicFaultTest : public testing::TestWithParam<int> {};

// Whatever breaks: what was accepted stands in the log once and in order until it is trimmed as the topic's bounds say,
// and each subscriber gets every message behind its position, once and in order, or is told which are gone.
TEST_P(TopicFaultTest, PromisesHoldUnderFaults) {
  EXPECT_THAT(RunHistory<TopicHistory>(static_cast<std::uint64_t>(GetParam())), testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Seeds, TopicFaultTest, FaultSeeds());

}  // namespace
}  // namespace postkeeper
