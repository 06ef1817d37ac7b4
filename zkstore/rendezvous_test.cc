// Which replica should own a log: evenly spread, the same for all who ask, and stable when replicas come and go.
#include "zkstore/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "zkstore/simulator.h"

namespace postkeeper {
namespace {

class RendezvousTest : public testing::Test {
 protected:
  RendezvousTest() {
    for (int i = 0; i < 3000; ++i) logs_.push_back(Uid::Make(environment_));
    for (int i = 0; i < 3; ++i) replicas_.push_back(ProcessId::Make(environment_));
  }

  SimulatedEnvironment environment_{1};
  std::vector<Uid> logs_;
  std::vector<ProcessId> replicas_;
};

// Whatever the order in which they are named, all replicas choose the same one; nobody is chosen among none.
TEST_F(RendezvousTest, EveryoneChoosesTheSame) {
  std::vector<ProcessId> other_way(replicas_.rbegin(), replicas_.rend());
  for (const Uid& log : logs_) EXPECT_EQ(ChooseOwner(log, replicas_), ChooseOwner(log, other_way));
  EXPECT_EQ(ChooseOwner(logs_[0], {}), std::nullopt);
}

// Three replicas get about a third each (1,000 of 3,000; the standard deviation is 26).
TEST_F(RendezvousTest, LogsAreSpreadEvenly) {
  std::map<ProcessId, int> counts;
  for (const Uid& log : logs_) ++counts[*ChooseOwner(log, replicas_)];
  ASSERT_EQ(counts.size(), 3u);
  for (const auto& [replica, count] : counts) EXPECT_NEAR(count, 1000, 130);
}

// One that joins takes its share and moves nothing else; when it leaves, everything is as it was.
TEST_F(RendezvousTest, OnlyTheShareOfTheNewOneMoves) {
  std::vector<ProcessId> more = replicas_;
  more.push_back(ProcessId::Make(environment_));
  int moved = 0;
  for (const Uid& log : logs_) {
    const std::optional<ProcessId> before = ChooseOwner(log, replicas_);
    const std::optional<ProcessId> after = ChooseOwner(log, more);
    if (before == after) continue;
    EXPECT_EQ(after, more.back());
    ++moved;
  }
  EXPECT_NEAR(moved, 750, 120);
}

}  // namespace
}  // namespace postkeeper
