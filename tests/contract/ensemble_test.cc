// What only an ensemble can show: three voters and an observer, with servers that die, sleep, and wake again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "absl/strings/str_format.h"
#include "tests/contract/c_client_world.h"
#include "tests/support/tcp_relay.h"
#include "tests/support/zookeeper_ensemble.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AnyOf;
using testing::Each;
using testing::IsEmpty;
using testing::SizeIs;

constexpr WorldClientOptions kPatient{.session_timeout = seconds(20)};
constexpr CreateMode kSequential = CreateMode::kPersistentSequential;

// One ensemble for all tests; each finds it whole.
class EnsembleTest : public testing::Test, public CClientWorld {
 protected:
  static void SetUpTestSuite() { ensemble = new ZookeeperEnsemble({.observers = 1, .snapshot_every = 300}); }
  static void TearDownTestSuite() { delete ensemble; }

  void SetUp() override {
    ensemble->Start();
    leader_ = ensemble->AwaitLeader();
    std::vector<int> followers = ensemble->InMode("follower");
    ASSERT_THAT(followers, SizeIs(2));
    follower_ = followers[0];
    other_follower_ = followers[1];
    observer_ = ensemble->size() - 1;
    options_.hosts = ensemble->server(observer_).hosts();
    root_ = MakeRoot();
  }
  void TearDown() override {
    for (int index = 0; index < ensemble->size(); ++index) ensemble->server(index).Resume();
  }

  // Looks again and again: other processes are what is waited for.
  static bool Eventually(const std::function<bool()>& is_so) {
    const auto give_up_at = std::chrono::steady_clock::now() + seconds(20);
    while (!is_so()) {
      if (std::chrono::steady_clock::now() > give_up_at) return false;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return true;
  }

  std::string At(const std::string& name) const { return root_ + "/" + name; }
  std::unique_ptr<Peer> PeerOf(int server, WorldClientOptions options = kPatient) {
    options_.hosts = ensemble->server(server).hosts();
    return std::make_unique<Peer>(*this, options);
  }
  // The number of children ever made below `path`, as each server tells it, when it has applied all that is committed.
  std::vector<std::int64_t> ChildrenCreatedOnEachServer(const std::string& path) {
    std::vector<std::int64_t> counts;
    for (int index = 0; index < ensemble->size(); ++index) {
      auto peer = PeerOf(index);
      EXPECT_EQ(peer->Sync(path).code, Code::kOk);
      counts.push_back(peer->Get(path).stat.children_created());
    }
    return counts;
  }

  // A server writes snapshot.0 at its first start in any case.
  static bool HasSnapshotOfWork(int server) {
    const std::filesystem::path folder = ensemble->server(server).folder() + "/data/version-2";
    return std::any_of(std::filesystem::directory_iterator(folder), {}, [](const auto& entry) {
      const std::string name = entry.path().filename();
      return name.starts_with("snapshot.") && name != "snapshot.0";
    });
  }

  static ZookeeperEnsemble* ensemble;
  int leader_ = 0, follower_ = 0, other_follower_ = 0, observer_ = 0;
  std::string root_;
};

ZookeeperEnsemble* EnsembleTest::ensemble = nullptr;

// An append to At("log") as a member of the chain At("producer").
Request Append(const std::string& producer, int version, const std::string& log) {
  std::vector<Op> ops;
  ops.push_back(Op::Set(producer, "batch", version));
  ops.push_back(Op::Create(log + "/b-", "", kSequential));
  return {.kind = Request::Kind::kMulti, .ops = std::move(ops)};
}

// ---- late copies ----

// A client whose append gets stuck on its way, and who moves on. Two relays decide which server it can reach.
class LateCopyTest : public EnsembleTest {
 protected:
  void SetUp() override {
    EnsembleTest::SetUp();
    bystander_ = PeerOf(other_follower_);
    for (const char* name : {"log", "producer", "other producer"}) bystander_->Create(At(name));
  }
  void TearDown() override {
    peer_.reset();
    bystander_.reset();
    EnsembleTest::TearDown();
  }

  // peer_ is connected to `first` and, once that is cut, will find `second`.
  void ConnectPeer(int first, int second, Duration session_timeout = seconds(20)) {
    first_ = std::make_unique<TcpRelay>(ensemble->server(first).port());
    second_ = std::make_unique<TcpRelay>(ensemble->server(second).port());
    second_->Cut();
    options_.hosts = first_->hosts() + "," + second_->hosts();
    peer_ = std::make_unique<Peer>(*this, WorldClientOptions{.session_timeout = session_timeout});
    EXPECT_EQ(peer_->Sync(root_).code, Code::kOk);
  }

  // Sends a request, and returns when it is in the first server's socket. Only a ping is shorter than its path.
  Peer::Pending SendToFirst(Request request, std::size_t path_bytes) {
    const std::int64_t bytes = first_->bytes_to_server() + static_cast<std::int64_t>(path_bytes);
    auto pending = peer_->Send(std::move(request));
    EXPECT_TRUE(Eventually([&] { return first_->bytes_to_server() > bytes; }));
    return pending;
  }
  // Sends an append and, behind it, a create of At("marker").
  Peer::Pending SendAppendAndMarker() {
    auto append = SendToFirst(Append(At("producer"), 0, At("log")), At("producer").size() + At("log").size());
    SendToFirst({.kind = Request::Kind::kCreate, .path = At("marker")}, At("marker").size());
    return append;
  }

  // The client loses its connection and goes on at the other server in the same session.
  void MovePeer() {
    const std::int64_t session = peer_->session_id();
    first_->Cut();
    ASSERT_TRUE(peer_->WaitForSession(SessionState::kConnecting));
    second_->Restore();
    ASSERT_TRUE(peer_->WaitForSession(SessionState::kConnected));
    ASSERT_EQ(peer_->session_id(), session);
  }

  // The follower works again, and the late copies have come to nothing.
  void ExpectNothingCameIn() {
    // What is behind them in the same server's queue has been carried out.
    auto behind = PeerOf(follower_);
    ASSERT_EQ(behind->Create(At("behind")).code, Code::kOk);
    EXPECT_EQ(behind->Exists(At("marker")).code, Code::kNoNode);
    EXPECT_EQ(behind->Get(At("producer")).stat.version, 0);
    EXPECT_EQ(BatchesIn(*behind), 0u);
  }

  std::size_t BatchesIn(Peer& peer) { return peer.Children(At("log")).children.size(); }

  std::unique_ptr<Peer> bystander_;  // another session, at another server
  std::unique_ptr<TcpRelay> first_, second_;
  std::unique_ptr<Peer> peer_;
};

// A reply that was lost says nothing: the client has gone on at another server in the same session and reads there that
// its append is not in; then it is committed all the same. Sent again in its chain it answers BADVERSION, in another
// chain it is there twice.
TEST_F(LateCopyTest, IsCommittedAfterTheClientHasMovedOn) {
  ConnectPeer(leader_, observer_);
  ensemble->server(follower_).Pause();
  ensemble->server(other_follower_).Pause();
  auto append = SendAppendAndMarker();
  int seen = 0;  // the leader has proposed it once it stays in progress there
  ASSERT_TRUE(Eventually([&] {
    const std::string report = ensemble->server(leader_).Report();
    seen = report.find("Outstanding: 0\n") == report.npos ? seen + 1 : 0;
    return seen >= 5;
  }));
  MovePeer();
  EXPECT_EQ(peer_->Await(append).code, Code::kConnectionLoss);
  EXPECT_EQ(peer_->Get(At("producer")).stat.version, 0);
  EXPECT_EQ(BatchesIn(*peer_), 0u);
  Request sync{.kind = Request::Kind::kSync, .path = root_, .timeout = milliseconds(200)};
  EXPECT_EQ(peer_->Do(std::move(sync)).code, Code::kTimeout);  // it waits for what was proposed before it

  ensemble->server(follower_).Resume();
  ensemble->server(other_follower_).Resume();
  ASSERT_TRUE(Eventually([&] { return peer_->Get(At("producer")).stat.version == 1; }));
  EXPECT_EQ(BatchesIn(*peer_), 1u);
  EXPECT_EQ(peer_->Do(Append(At("producer"), 0, At("log"))).code, Code::kBadVersion);
  EXPECT_EQ(BatchesIn(*peer_), 1u);
  EXPECT_EQ(peer_->Do(Append(At("other producer"), 0, At("log"))).code, Code::kOk);
  EXPECT_EQ(BatchesIn(*peer_), 2u);
}

// Sync does not help: another session syncs and reads that the append is not in, and it comes later.
TEST_F(LateCopyTest, IsCommittedAfterAnotherSessionHasSynced) {
  ConnectPeer(follower_, observer_);
  ensemble->server(follower_).Pause();
  auto append = SendAppendAndMarker();
  first_->Cut();
  EXPECT_EQ(peer_->Await(append).code, Code::kConnectionLoss);
  EXPECT_EQ(bystander_->Sync(root_).code, Code::kOk);
  EXPECT_EQ(bystander_->Get(At("producer")).stat.version, 0);
  EXPECT_EQ(bystander_->Do(Append(At("other producer"), 0, At("log"))).code, Code::kOk);

  ensemble->server(follower_).Resume();
  ASSERT_TRUE(Eventually([&] { return bystander_->Exists(At("marker")).code == Code::kOk; }));
  EXPECT_EQ(bystander_->Get(At("producer")).stat.version, 1);
  EXPECT_EQ(BatchesIn(*bystander_), 2u);  // the same message twice
}

// Once the version that it names has been burnt, a late copy comes to nothing.
TEST_F(LateCopyTest, FailsOnceItsVersionIsBurnt) {
  ConnectPeer(follower_, observer_);
  ensemble->server(follower_).Pause();
  auto append = SendAppendAndMarker();
  first_->Cut();
  EXPECT_EQ(peer_->Await(append).code, Code::kConnectionLoss);
  EXPECT_EQ(bystander_->Set(At("producer"), "burnt", 0).code, Code::kOk);

  ensemble->server(follower_).Resume();
  ASSERT_TRUE(Eventually([&] { return bystander_->Exists(At("marker")).code == Code::kOk; }));  // it came behind
  EXPECT_EQ(bystander_->Get(At("producer")).data, "burnt");
  EXPECT_EQ(BatchesIn(*bystander_), 0u);
}

// Once the servers have expired its session, a late copy comes to nothing.
TEST_F(LateCopyTest, FailsOnceItsSessionHasExpired) {
  ConnectPeer(follower_, observer_, seconds(1));
  peer_->Create(At("alive"), "", CreateMode::kEphemeral);
  bystander_->Exists(At("alive"), bystander_->Noting("alive"));
  ensemble->server(follower_).Pause();
  auto append = SendAppendAndMarker();
  first_->Cut();
  EXPECT_EQ(peer_->Await(append).code, Code::kConnectionLoss);
  ASSERT_TRUE(bystander_->WaitForNotes(1));

  ensemble->server(follower_).Resume();
  ExpectNothingCameIn();
}

// A late copy that has not got as far as the leader is refused there once its session goes on at another server.
// Nothing in postkeeper relies on it: the client cannot know how far it got.
TEST_F(LateCopyTest, IsRefusedByTheLeaderOnceItsSessionHasMoved) {
  ConnectPeer(follower_, observer_);
  ensemble->server(follower_).Pause();
  auto append = SendAppendAndMarker();
  MovePeer();
  EXPECT_EQ(peer_->Await(append).code, Code::kConnectionLoss);
  EXPECT_EQ(peer_->Get(At("producer")).stat.version, 0);

  ensemble->server(follower_).Resume();
  ExpectNothingCameIn();
}

// ---- sequence numbers ----

// Sequence numbers are dense, and (cversion + numChildren) / 2 is the next one, on leader, follower and observer alike:
// with multis that fail, deletes, the death of the leader under load, and restarts of all servers from snapshots.
TEST_F(EnsembleTest, SequencesAreDenseOnEveryServer) {
  const std::string log = At("log");
  std::set<std::string> made;
  int asked = 0, lost = 0, duplicates = 0;
  auto work = [&](Peer& peer, int multis, const std::function<void()>& meanwhile) {
    std::vector<Peer::Pending> pending;
    for (int i = 0; i < multis; ++i) {
      std::vector<Op> ops;
      ops.push_back(Op::Create(log + "/b-", "", kSequential));
      if (i % 5 == 4) ops.push_back(Op::Check(root_, 7));  // fails
      if (i % 7 == 6) ops.push_back(Op::Create(log + "/c-", "", kSequential));
      if (i % 5 != 4) asked += i % 7 == 6 ? 2 : 1;
      pending.push_back(peer.Send({.kind = Request::Kind::kMulti, .ops = std::move(ops)}));
    }
    peer.Await(pending.front());
    meanwhile();
    for (const Peer::Pending& one : pending) {
      Response response = peer.Await(one);
      if (response.code != Code::kOk && response.code != Code::kBadVersion) ++lost;
      for (const OpResult& result : response.results) {
        const bool is_made = result.code == Code::kOk && !result.path.empty();
        if (is_made) duplicates += made.insert(result.path).second ? 0 : 1;
      }
    }
  };
  auto delete_some = [&](Peer& peer) {
    std::vector<std::string> children = peer.Children(log).children;
    for (std::size_t i = 0; i < children.size(); i += 3) peer.Delete(log + "/" + children[i]);
  };
  // All that is there to know about the count: what every server says, and what the next create gets.
  auto expect_count = [&](std::int64_t count) {
    EXPECT_THAT(ChildrenCreatedOnEachServer(log), Each(count));
    std::string next = PeerOf(observer_)->Create(log + "/b-", "", kSequential).path;
    EXPECT_EQ(next, absl::StrFormat("%s/b-%010d", log, count));
    made.insert(next);
    ++asked;
  };

  auto peer = PeerOf(follower_);
  peer->Create(log);
  for (int server : {leader_, follower_, observer_}) {
    peer = PeerOf(server);
    work(*peer, 150, [] {});
    delete_some(*peer);
  }
  ASSERT_EQ(lost, 0);
  expect_count(asked);

  work(*peer, 3000, [&] { ensemble->server(leader_).End(SIGKILL); });
  EXPECT_GT(lost, 0);
  ensemble->AwaitLeader();
  ensemble->Start();
  std::int64_t count = ChildrenCreatedOnEachServer(log).front();
  EXPECT_GE(count, static_cast<std::int64_t>(made.size()));
  EXPECT_LE(count, asked);
  expect_count(count);

  for (int index = 0; index < ensemble->size(); ++index) EXPECT_TRUE(HasSnapshotOfWork(index)) << index;
  for (int index = 0; index < ensemble->size(); ++index) ensemble->server(index).End(SIGKILL);
  ensemble->Start();
  expect_count(count + 1);
  EXPECT_EQ(duplicates, 0);
}

}  // namespace
}  // namespace postkeeper::zk
