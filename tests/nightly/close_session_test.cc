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
    Peer peer(*this);
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

  // Looks again and again for as long as a start takes on a slow machine.
  bool ServesWithin(std::chrono::seconds time) {
    const auto give_up_at = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < give_up_at) {
      if (!ensemble_.InMode("leader").empty()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }

  ZookeeperEnsemble ensemble_{ZookeeperEnsemble::Options()};
};

// The end of a session with 10,000 ephemerals of 176 bytes is one transaction of 1.76 MB, which is still carried out,
// and read back after a restart.
TEST_F(CloseSessionTest, JustUnderTwoMebibytesIsSurvived) {
  MakeEphemeralsAndClose(10'000);
  { EXPECT_EQ(Peer(*this).Create("/after").code, Code::kOk); }
  for (int index = 0; index < ensemble_.size(); ++index) ensemble_.server(index).End(SIGKILL);
  ensemble_.Launch();
  EXPECT_TRUE(ServesWithin(seconds(30)));
}

// Over 2 MiB no server can read the transaction back. All of them stop at once, and do not come back when they are
// started again.
TEST_F(CloseSessionTest, OverTwoMebibytesStopsTheEnsembleForGood) {
  MakeEphemeralsAndClose(14'000);
  const auto give_up_at = std::chrono::steady_clock::now() + seconds(30);
  while (!ensemble_.InMode("leader").empty() && std::chrono::steady_clock::now() < give_up_at) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_TRUE(ensemble_.InMode("leader").empty());
  for (int index = 0; index < ensemble_.size(); ++index) ensemble_.server(index).End(SIGKILL);
  ensemble_.Launch();
  EXPECT_FALSE(ServesWithin(seconds(15)));
}

}  // namespace
}  // namespace postkeeper::zk
