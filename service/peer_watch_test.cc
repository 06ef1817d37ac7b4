// Replicas that are registered and not reached are counted, after a while, until they are reached again or gone.
#include "service/peer_watch.h"

#include <gtest/gtest.h>

#include <set>

#include "zkstore/simulator.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PeerWatchTest : public testing::Test {
 protected:
  // Once a second for so long.
  std::int64_t LookFor(Duration time) {
    for (Duration passed{}; passed < time; passed += seconds(1)) {
      watch_.Look(addresses_);
      environment_.AdvanceBy(seconds(1));
    }
    watch_.Look(addresses_);
    return watch_.unreachable();
  }

  SimulatedEnvironment environment_{1};
  std::vector<std::string> addresses_{"here:1", "there:2"};
  std::set<std::string> connected_{"here:1", "there:2"};
  PeerWatch watch_{environment_, [this](const std::string& address) { return connected_.contains(address); }};
};

// A connection may take a moment, or break for one.
TEST_F(PeerWatchTest, HasPatience) {
  connected_.clear();
  EXPECT_EQ(LookFor(PeerWatch::kPatience - seconds(1)), 0);
  EXPECT_EQ(LookFor(seconds(1)), 2);
}

// Who is reached again, even for a moment, has another five seconds.
TEST_F(PeerWatchTest, CountsUntilItIsReachedAgain) {
  EXPECT_EQ(LookFor(seconds(10)), 0);
  connected_.erase("there:2");
  EXPECT_EQ(LookFor(PeerWatch::kPatience), 1);
  connected_.insert("there:2");
  EXPECT_EQ(LookFor(Duration::zero()), 0);
  connected_.erase("there:2");
  EXPECT_EQ(LookFor(PeerWatch::kPatience - seconds(1)), 0);
}

// Who is not registered any more is nobody's concern.
TEST_F(PeerWatchTest, ForgetsWhoIsGone) {
  connected_.clear();
  EXPECT_EQ(LookFor(PeerWatch::kPatience), 2);
  addresses_ = {"here:1"};
  EXPECT_EQ(LookFor(Duration::zero()), 1);
}

}  // namespace
}  // namespace postkeeper
