// Why a process has one ephemeral and no more.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "tests/contract/c_client_world.h"
#include "tests/support/zookeeper_ensemble.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

using std::chrono::seconds;

constexpr std::size_t kPathBytes = 176;
constexpr seconds kSessionTimeout{4};
constexpr seconds kStartTime{20};  // on a slow machine

class CloseSessionTest : public testing::Test, public CClientWorld {
 protected:
  void SetUp() override {
    ensemble_.Start();
    ensemble_.AwaitLeader();
    options_.hosts = ensemble_.hosts();
  }

  // A client makes so many ephemerals and takes its leave.
  void MakeEphemeralsAndClose(int count) {
    std::string root = MakeRoot();
    Peer peer(*this, {.session_timeout = kSessionTimeout});
    std::vector<Peer::Pending> pending;
    for (int i = 0; i < count; ++i) {
      std::string path = Cat(root, "/", i, "-");
      path.resize(kPathBytes, 'x');
      pending.push_back(
          peer.Send({.kind = Request::Kind::kCreate, .path = std::move(path), .mode = CreateMode::kEphemeral}));
    }
    for (const Peer::Pending& one : pending) ASSERT_EQ(peer.Await(one).code, Code::kOk);
    peer.client().Close(seconds(5));
  }

  void Restart() {
    for (int index = 0; index < ensemble_.size(); ++index) ensemble_.server(index).End(SIGKILL);
    ensemble_.Launch();
  }

  // Waits until the ensemble has a leader, or has none; false if that takes longer than `time`.
  bool HasLeaderWithin(seconds time, bool has_leader = true) {
    const auto give_up_at = std::chrono::steady_clock::now() + time;
    while (ensemble_.InMode("leader").empty() == has_leader) {
      if (std::chrono::steady_clock::now() > give_up_at) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return true;
  }

  ZookeeperEnsemble ensemble_{ZookeeperEnsemble::Options()};
};

// The end of a session with 10,000 ephemerals of 176 bytes is one transaction of 1.76 MB, which is still carried out,
// and read back after a restart.
TEST_F(CloseSessionTest, LessThanTwoMebibytesAreSurvived) {
  MakeEphemeralsAndClose(10'000);
  EXPECT_EQ(Peer(*this).Create("/after").code, Code::kOk);
  Restart();
  EXPECT_TRUE(HasLeaderWithin(kStartTime));
  EXPECT_EQ(Peer(*this).Exists("/after").code, Code::kOk);
}

// Over 2 MiB no server can read the transaction back, and the ensemble stops at once. After a restart those servers
// that had not got it yet may serve once more, until they expire the session: then they write it themselves. After that
// there is no majority that could start.
TEST_F(CloseSessionTest, OverTwoMebibytesStopTheEnsembleForGood) {
  MakeEphemeralsAndClose(14'000);
  EXPECT_TRUE(HasLeaderWithin(kStartTime, false));
  Restart();
  const bool serves_once_more = HasLeaderWithin(kStartTime);
  EXPECT_TRUE(!serves_once_more || HasLeaderWithin(10 * kSessionTimeout, false));
  Restart();
  EXPECT_FALSE(HasLeaderWithin(kStartTime));
}

}  // namespace
}  // namespace postkeeper::zk
