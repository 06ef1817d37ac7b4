// The leader's time, whatever the clock of this process says.
#include "zkstore/leader_clock.h"

#include <gtest/gtest.h>

#include "zkstore/errors.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaderClockTest : public testing::Test {
 protected:
  LeaderClockTest() {
    environment_.AdvanceBy(seconds(1));
    for (const std::string& path : {std::string("/postkeeper"), layout_.Replicas()}) {
      EXPECT_EQ(environment_.RunTask(client_.Create(path, "")).code, zk::Code::kOk);
    }
  }
  void Register() {
    EXPECT_EQ(
        environment_.RunTask(client_.Create(layout_.Replica(process_), "record", zk::CreateMode::kEphemeral)).code,
        zk::Code::kOk);
  }
  // How far the clock's word is from the simulated leader's time.
  Duration Error() {
    const absl::StatusOr<WallTime> told = environment_.RunTask(clock_.Now());
    EXPECT_TRUE(told.ok()) << told.status();
    return told.ok() ? *told - environment_.WallNow() : std::chrono::hours(1);
  }

  SimulatedEnvironment environment_{1};
  zk::SimulatedEnsemble ensemble_{environment_};
  zk::SimulatedClient client_{ensemble_};
  const Layout layout_{"/postkeeper"};
  const ProcessId process_ = ProcessId::Make(environment_);
  LeaderClock clock_{environment_, client_, layout_, process_};
};

// It tells the leader's time, never later than it is, asks for it once a minute, and leaves the registration as it was.
TEST_F(LeaderClockTest, TellsTheLeadersTime) {
  Register();
  EXPECT_LE(Error(), milliseconds(0));
  EXPECT_GE(Error(), milliseconds(-10));
  const std::int64_t requests = client_.requests_sent();
  environment_.AdvanceBy(seconds(50));
  EXPECT_GE(Error(), milliseconds(-10));
  EXPECT_EQ(client_.requests_sent(), requests);
  environment_.SetWallOffset(seconds(-100));  // another leader
  environment_.AdvanceBy(seconds(11));
  EXPECT_LE(Error(), milliseconds(0));
  EXPECT_EQ(environment_.RunTask(client_.Get(layout_.Replica(process_))).data, "record");
}

// A process that is not registered, or does not reach ZooKeeper, is not told.
TEST_F(LeaderClockTest, SaysWhenItDoesNotKnow) {
  EXPECT_TRUE(HasReason(environment_.RunTask(clock_.Now()).status(), Reason::kZookeeperUnavailable));
  Register();
  ensemble_.Stop();
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(HasReason(environment_.RunTask(clock_.Now()).status(), Reason::kZookeeperUnavailable));
  ensemble_.Start();
  environment_.AdvanceBy(seconds(1));
  EXPECT_LE(Error(), milliseconds(0));
}

}  // namespace
}  // namespace postkeeper
