#include "zkstore/simulator.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace postkeeper::zk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using OnTheWay = SimulatedClient::OnTheWay;

std::string Describe(const WatchEvent& event) {
  constexpr const char* kNames[] = {"created", "deleted", "changed", "children", "lost"};
  return absl::StrCat(kNames[static_cast<int>(event.type)], " ", event.path);
}

class SimulatorTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(WaitConnected(client_)); }

  bool WaitConnected(Client& client) {
    return environment_.RunUntil([&] { return client.session().state == SessionState::kConnected; }, seconds(60));
  }
  Response Run(Task<Response> task) { return environment_.RunTask(std::move(task)); }
  Code Create(std::string path, CreateMode mode = CreateMode::kPersistent) {
    return Run(client_.Create(std::move(path), "", mode)).code;
  }
  std::vector<Code> Multi(std::vector<Op> ops) {
    std::vector<Code> codes;
    for (const OpResult& result : Run(client_.Multi(std::move(ops))).results) codes.push_back(result.code);
    return codes;
  }
  Stat StatOf(const std::string& path) {
    Stat stat;
    EXPECT_TRUE(ensemble_.tree().FindStat(path, stat)) << path;
    return stat;
  }
  bool Exists(const std::string& path) { return ensemble_.tree().FindData(path) != nullptr; }
  // Notes what the watch says.
  Watcher Note() {
    return [this](WatchEvent event) { notes_.push_back(Describe(event)); };
  }
  // Notes how the request ends.
  void SubmitSet(SimulatedClient& client, std::string path, std::string data, std::int32_t version = kAnyVersion) {
    Request request;
    request.kind = Request::Kind::kSet;
    request.path = std::move(path);
    request.data = data;
    request.version = version;
    client.Submit(std::move(request), [this, data](Response response) {
      notes_.push_back(absl::StrCat("set ", data, " ", std::string(CodeName(response.code))));
    });
  }
  void ObserveSession(SimulatedClient& client) {
    client.ObserveSession([this](const SessionEvent& event) {
      constexpr const char* kNames[] = {"connecting", "connected", "expired", "closed"};
      notes_.push_back(kNames[static_cast<int>(event.state)]);
    });
  }
  static bool IsSet(const Request& request) { return request.kind == Request::Kind::kSet; }

  std::vector<std::string> notes_;  // outlives the clients, which write into it to the end
  SimulatedEnvironment environment_{9};
  SimulatedEnsemble ensemble_{environment_};
  SimulatedClient client_{ensemble_};
};

// ---- the tree; every expectation here was read off a ZooKeeper 3.8.0 ----

// A fresh server has the nodes and numbers of a fresh ZooKeeper; opening the session was its first transaction.
TEST_F(SimulatorTest, FreshTreeIsZooKeepers) {
  EXPECT_EQ(ensemble_.zxid(), 1);
  EXPECT_THAT(Run(client_.Children("/")).children, ElementsAre("zookeeper"));
  EXPECT_THAT(Run(client_.Children("/zookeeper")).children, ElementsAre("config", "quota"));
  EXPECT_EQ(StatOf("/").cversion, -1);
  EXPECT_EQ(StatOf("/zookeeper").cversion, -2);
}

// Every field of a stat is what ZooKeeper would say after creates, a delete and a set.
TEST_F(SimulatorTest, StatsCountAsZooKeeperDoes) {
  Create("/n");
  Create("/n/a");
  Create("/n/b");
  std::int64_t created_ms = StatOf("/n").ctime_ms;
  EXPECT_EQ(StatOf("/n").cversion, 2);
  EXPECT_EQ(StatOf("/n").pzxid, 4);
  environment_.AdvanceBy(seconds(1));
  Run(client_.Delete("/n/a", kAnyVersion));
  Response set = Run(client_.Set("/n", "yyy", 0));
  Stat stat = Run(client_.Get("/n")).stat;
  EXPECT_EQ(set.stat, stat);
  EXPECT_EQ(stat.czxid, 2);
  EXPECT_EQ(stat.mzxid, 6);
  EXPECT_EQ(stat.pzxid, 5);
  EXPECT_EQ(stat.version, 1);
  EXPECT_EQ(stat.cversion, 3);
  EXPECT_EQ(stat.num_children, 1);
  EXPECT_EQ(stat.data_length, 3);
  EXPECT_EQ(stat.children_created(), 2);
  EXPECT_EQ(stat.ctime_ms, created_ms);
  EXPECT_GE(stat.mtime_ms, created_ms + 1000);
}

// Each wrong request gets ZooKeeper's code, and uses up a zxid if it was a write that reached the server.
TEST_F(SimulatorTest, ErrorsAreZooKeepers) {
  Create("/n");
  Create("/n/child");
  Create("/e", CreateMode::kEphemeral);
  std::int64_t before = ensemble_.zxid();
  EXPECT_EQ(Create("/n"), Code::kNodeExists);
  EXPECT_EQ(Create("/"), Code::kNodeExists);
  EXPECT_EQ(Create("/nope/a"), Code::kNoNode);
  EXPECT_EQ(Create("/e/a", CreateMode::kEphemeralSequential), Code::kNoChildrenForEphemerals);
  EXPECT_EQ(Run(client_.Delete("/n", 9)).code, Code::kBadVersion);
  EXPECT_EQ(Run(client_.Delete("/n", 0)).code, Code::kNotEmpty);
  EXPECT_EQ(Run(client_.Delete("/n/child", -2)).code, Code::kBadVersion);
  EXPECT_EQ(Run(client_.Delete("/nope", 0)).code, Code::kNoNode);
  EXPECT_EQ(Run(client_.Delete("/", kAnyVersion)).code, Code::kBadArguments);
  EXPECT_EQ(Run(client_.Delete("/zookeeper/quota", kAnyVersion)).code, Code::kBadArguments);
  EXPECT_EQ(Run(client_.Set("/n", "", 7)).code, Code::kBadVersion);
  EXPECT_EQ(Run(client_.Set("/nope", "", kAnyVersion)).code, Code::kNoNode);
  EXPECT_EQ(Create("/a\xef\x80\x80"), Code::kBadArguments);      // U+F000
  EXPECT_EQ(Create("/a\xf0\x9f\x98\x80"), Code::kBadArguments);  // U+1F600
  EXPECT_EQ(Create("/a\xff"), Code::kBadArguments);              // not UTF-8
  EXPECT_EQ(ensemble_.zxid(), before + 15);
  for (const char* path : {"", "n", "/n/", "//n", "/n/../n", "/.", "/a\x01", "/a\x7f"}) {
    EXPECT_EQ(Create(path), Code::kBadArguments) << path;
    EXPECT_EQ(Run(client_.Get(path)).code, Code::kBadArguments) << path;
  }
  EXPECT_EQ(Create(std::string("/a\0b", 4)), Code::kBadArguments);
  EXPECT_EQ(Run(client_.Get("/nope")).code, Code::kNoNode);
  EXPECT_EQ(Run(client_.Exists("/nope")).code, Code::kNoNode);
  EXPECT_EQ(Run(client_.Children("/nope")).code, Code::kNoNode);
  EXPECT_EQ(Run(client_.Sync("/nope")).code, Code::kOk);
  EXPECT_EQ(ensemble_.zxid(), before + 15);
  EXPECT_EQ(Create("/a\xc3\xa9"), Code::kOk);
}

// Sequence numbers are dense, count all creates, are not consumed by a failed multi, and do not go back after deletes.
TEST_F(SimulatorTest, SequencesAreDense) {
  Create("/n");
  Create("/n/plain");
  auto sequential = [](std::string path) { return Op::Create(std::move(path), "", CreateMode::kPersistentSequential); };
  std::vector<Op> ops;
  for (const char* path : {"/n/s-", "/n/t-"}) ops.push_back(sequential(path));
  Response made = Run(client_.Multi(ops));
  ASSERT_EQ(made.results.size(), 2u);
  EXPECT_EQ(made.results[0].path, "/n/s-0000000001");
  EXPECT_EQ(made.results[1].path, "/n/t-0000000002");

  ops = {sequential("/n/s-"), Op::Check("/nope", 0)};
  EXPECT_THAT(Multi(ops), ElementsAre(Code::kRolledBack, Code::kNoNode));
  Run(client_.Delete("/n/plain", kAnyVersion));
  EXPECT_EQ(Run(client_.Create("/n/", "", CreateMode::kPersistentSequential)).path, "/n/0000000003");
  EXPECT_EQ(StatOf("/n").children_created(), 4);

  // A name that is taken already fails, and the number stays the next one.
  Create("/n/s-0000000005");
  EXPECT_EQ(Create("/n/s-", CreateMode::kPersistentSequential), Code::kNodeExists);
  EXPECT_EQ(StatOf("/n").children_created(), 5);
}

// A multi is all or nothing; its operations see what those before them do.
TEST_F(SimulatorTest, MultiIsAtomic) {
  std::vector<Op> ops = {Op::Create("/p", ""), Op::Create("/p/c", ""), Op::Delete("/p"), Op::Check("/p", 0)};
  EXPECT_THAT(Multi(ops),
              ElementsAre(Code::kRolledBack, Code::kRolledBack, Code::kNotEmpty, Code::kRuntimeInconsistency));
  EXPECT_FALSE(Exists("/p"));
  EXPECT_EQ(StatOf("/").children_created(), 0);

  ops = {Op::Create("/p", ""),  Op::Create("/p/c", ""), Op::Delete("/p/c"),
         Op::Set("/p", "a", 0), Op::Set("/p", "bc", 1), Op::Check("/p", 2)};
  Response done = Run(client_.Multi(ops));
  EXPECT_EQ(done.code, Code::kOk);
  EXPECT_EQ(done.results[3].stat.version, 1);
  EXPECT_EQ(done.results[4].stat.version, 2);
  EXPECT_EQ(done.results[4].stat.data_length, 2);
  EXPECT_EQ(done.results[4].stat.czxid, done.results[4].stat.mzxid);
  EXPECT_EQ(StatOf("/p").cversion, 2);

  ops = {Op::Create("/e", "", CreateMode::kEphemeral), Op::Create("/e/c", "")};
  EXPECT_THAT(Multi(ops), ElementsAre(Code::kRolledBack, Code::kNoChildrenForEphemerals));
  EXPECT_THAT(Multi({Op::Check("/nope", kAnyVersion)}), ElementsAre(Code::kNoNode));
  EXPECT_THAT(Multi({Op::Check("/p", 0), Op::Check("bad", 0)}), ElementsAre(Code::kRolledBack, Code::kBadArguments));
  std::int64_t before = ensemble_.zxid();
  EXPECT_THAT(Multi({}), IsEmpty());
  EXPECT_EQ(ensemble_.zxid(), before + 1);
}

// ---- watches ----

// Deleting a node fires its data, exists and children watches as deleted, once each, then the parent's children watch.
TEST_F(SimulatorTest, WatchesFireInZooKeepersOrder) {
  Create("/w");
  Create("/w/x");
  Run(client_.Get("/w/x", Note()));
  Run(client_.Exists("/w/x", Note()));
  Run(client_.Children("/w/x", Note()));
  Run(client_.Children("/w", Note()));
  Run(client_.Exists("/w/y", Note()));
  EXPECT_EQ(client_.watched_path_bytes(), 4u * 4 + 2);
  Create("/w/y");
  EXPECT_THAT(notes_, ElementsAre("created /w/y", "children /w"));
  notes_.clear();
  Run(client_.Children("/w", Note()));
  Run(client_.Delete("/w/x", kAnyVersion));
  EXPECT_THAT(notes_, ElementsAre("deleted /w/x", "deleted /w/x", "deleted /w/x", "children /w"));
  notes_.clear();
  Create("/w/x");
  Run(client_.Set("/w/x", "1", 0));
  EXPECT_THAT(notes_, IsEmpty());
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
}

// A multi fires watches operation by operation; one that fails fires none. A set does not wake a children watch.
TEST_F(SimulatorTest, MultisFireWatches) {
  Create("/w");
  Run(client_.Exists("/w/q", Note()));
  Run(client_.Children("/w", Note()));
  Multi({Op::Create("/w/q", ""), Op::Check("/nope", 0)});
  Multi({Op::Set("/w", "1", 0)});
  EXPECT_THAT(notes_, IsEmpty());
  Multi({Op::Create("/w/q", ""), Op::Set("/w/q", "1", 0), Op::Delete("/w/q"), Op::Create("/w/q", "")});
  EXPECT_THAT(notes_, ElementsAre("created /w/q", "children /w"));
}

// A watch comes before the answer to the request that caused it, and a watch on nothing comes from no failed get.
TEST_F(SimulatorTest, WatchComesBeforeTheAnswer) {
  Create("/w");
  EXPECT_EQ(Run(client_.Get("/nope", Note())).code, Code::kNoNode);
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
  Run(client_.Get("/w", Note()));
  SubmitSet(client_, "/w", "1");
  Create("/nope");
  EXPECT_THAT(notes_, ElementsAre("changed /w", "set 1 OK"));
}

// Watches outlive a connection: what happened meanwhile is told after the reconnect, the rest stays armed.
TEST_F(SimulatorTest, WatchesSurviveAReconnect) {
  SimulatedClient other(ensemble_);
  ASSERT_TRUE(WaitConnected(other));
  for (const char* path : {"/data", "/gone", "/parent", "/quiet"}) Create(path);
  Run(client_.Get("/data", Note()));
  Run(client_.Get("/gone", Note()));
  Run(client_.Exists("/later", Note()));
  Run(client_.Children("/parent", Note()));
  Run(client_.Get("/quiet", Note()));
  client_.SetConnectable(false);
  client_.Disconnect();
  Run(other.Set("/data", "1", 0));
  Run(other.Delete("/gone", 0));
  Run(other.Create("/later", ""));
  Run(other.Create("/parent/child", ""));
  EXPECT_THAT(notes_, IsEmpty());
  client_.SetConnectable(true);
  ASSERT_TRUE(WaitConnected(client_));
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_THAT(notes_, ElementsAre("changed /data", "deleted /gone", "created /later", "children /parent"));
  Run(other.Set("/quiet", "1", 0));
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_EQ(notes_.back(), "changed /quiet");
}

// ---- sessions ----

// When a session is closed its ephemerals go at once, in the order in which ZooKeeper's Java lists them.
TEST_F(SimulatorTest, CloseRemovesEphemeralsInJavasOrder) {
  auto other = std::make_unique<SimulatedClient>(ensemble_);
  ASSERT_TRUE(WaitConnected(*other));
  Create("/eo");
  for (int i = 0; i < 30; ++i) {
    std::string path = absl::StrCat("/eo/q", i);
    EXPECT_EQ(Run(other->Create(path, "", CreateMode::kEphemeral)).code, Code::kOk);
    Run(client_.Exists(path, Note()));
  }
  EXPECT_EQ(StatOf("/eo/q1").ephemeral_owner, other->session().session_id);
  other->Close(seconds(1));
  environment_.AdvanceBy(milliseconds(10));
  std::vector<std::string> expected;
  for (int i :
       {11, 10, 13, 12, 15, 14, 28, 27, 29, 1, 2, 0, 9, 20, 7, 22, 8, 21, 5, 24, 6, 23, 3, 26, 4, 25, 17, 16, 19, 18}) {
    expected.push_back(absl::StrCat("deleted /eo/q", i));
  }
  EXPECT_EQ(notes_, expected);
  EXPECT_EQ(StatOf("/eo").cversion, 60);
  EXPECT_EQ(Run(other->Get("/")).code, Code::kClosed);
  EXPECT_EQ(ensemble_.sessions().size(), 1u);
}

// A client that is idle keeps its session by itself.
TEST_F(SimulatorTest, IdleSessionsLive) {
  std::int64_t session = client_.session().session_id;
  environment_.AdvanceBy(std::chrono::hours(1));
  EXPECT_EQ(client_.session().session_id, session);
  EXPECT_EQ(client_.session().state, SessionState::kConnected);
  EXPECT_EQ(client_.connections_made(), 1);
  EXPECT_EQ(client_.last_answered_sent_at(), Instant{}) << "pings must not count";
}

// Out of reach, a client gives its connection up after two thirds of the timeout; the server expires the session after
// the timeout; back in reach the client learns it, loses its watches and goes on in a new session.
TEST_F(SimulatorTest, UnreachableSessionsExpire) {
  Create("/e", CreateMode::kEphemeral);
  Run(client_.Get("/e", Note()));
  ObserveSession(client_);
  environment_.RunUntilIdle();
  std::int64_t session = client_.session().session_id;
  client_.SetReachable(false);
  environment_.AdvanceBy(seconds(6));
  EXPECT_THAT(notes_, ElementsAre("connected"));
  SubmitSet(client_, "/e", "1");
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(notes_, ElementsAre("connected", "set 1 CONNECTION_LOSS", "connecting"));
  SubmitSet(client_, "/e", "2");
  environment_.AdvanceBy(seconds(2));
  EXPECT_TRUE(Exists("/e"));
  environment_.AdvanceBy(seconds(2));
  EXPECT_FALSE(Exists("/e"));
  EXPECT_EQ(client_.session().state, SessionState::kConnecting);
  client_.SetReachable(true);
  ASSERT_TRUE(WaitConnected(client_));
  environment_.RunUntilIdle();
  EXPECT_THAT(notes_, ElementsAre("connected", "set 1 CONNECTION_LOSS", "connecting", "set 2 NOT_CONNECTED", "lost /e",
                                  "expired", "connected"));
  EXPECT_NE(client_.session().session_id, session);
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
}

// A pause of the network that is shorter than that loses nothing.
TEST_F(SimulatorTest, ShortPausesOnlyDelay) {
  Create("/a");
  SubmitSet(client_, "/a", "1");
  client_.SetReachable(false);
  environment_.AdvanceBy(seconds(3));
  EXPECT_THAT(notes_, IsEmpty());
  client_.SetReachable(true);
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_THAT(notes_, ElementsAre("set 1 OK"));
  EXPECT_EQ(client_.connections_made(), 1);
}

// A session that the server expires ends with the same events; requests that arrive then are told that it expired or
// are lost with the connection.
TEST_F(SimulatorTest, ExpireSessionAtOnce) {
  Create("/e", CreateMode::kEphemeral);
  Run(client_.Exists("/later", Note()));
  EXPECT_TRUE(ensemble_.ExpireSession(client_.session().session_id));
  EXPECT_FALSE(Exists("/e"));
  ObserveSession(client_);
  Code code = Run(client_.Get("/e")).code;
  EXPECT_TRUE(code == Code::kSessionExpired || code == Code::kConnectionLoss) << CodeName(code);
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(notes_, ElementsAre("connected", "connecting", "lost /later", "expired", "connected"));
  EXPECT_FALSE(ensemble_.ExpireSession(1));
}

// A client whose process has crashed is expired by the server after its timeout, not before.
TEST_F(SimulatorTest, AbandonedSessionsExpire) {
  auto crashed = std::make_unique<SimulatedClient>(ensemble_);
  ASSERT_TRUE(WaitConnected(*crashed));
  Run(crashed->Create("/e", "", CreateMode::kEphemeral));
  SubmitSet(*crashed, "/e", "1");
  crashed->Abandon();
  crashed.reset();
  EXPECT_THAT(notes_, ElementsAre("set 1 CONNECTION_LOSS"));
  environment_.AdvanceBy(seconds(9));
  EXPECT_TRUE(Exists("/e"));
  environment_.AdvanceBy(seconds(2));
  EXPECT_FALSE(Exists("/e"));
}

// Stopping the ensemble keeps what is stored and the sessions, however long it takes.
TEST_F(SimulatorTest, EnsembleStopsAndStarts) {
  Create("/e", CreateMode::kEphemeral);
  std::int64_t session = client_.session().session_id;
  SubmitSet(client_, "/e", "1");
  ensemble_.Stop();
  environment_.AdvanceBy(std::chrono::minutes(10));
  EXPECT_THAT(notes_, ElementsAre("set 1 CONNECTION_LOSS"));
  EXPECT_EQ(client_.session().state, SessionState::kConnecting);
  ensemble_.Start();
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(client_.session().session_id, session);
  EXPECT_EQ(Run(client_.Get("/e")).data, "");
}

// ---- connections that break ----

// Requests on their way end with kConnectionLoss whatever becomes of them; what becomes of them is the test's choice.
TEST_F(SimulatorTest, DisconnectLosesOrDelivers) {
  Create("/a");
  SubmitSet(client_, "/a", "1");
  client_.Disconnect(OnTheWay::kLost);
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(Run(client_.Get("/a")).data, "");
  SubmitSet(client_, "/a", "2");
  client_.Disconnect(OnTheWay::kDelivered);
  SubmitSet(client_, "/a", "3");
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(Run(client_.Get("/a")).data, "2");
  EXPECT_THAT(notes_, ElementsAre("set 1 CONNECTION_LOSS", "set 2 CONNECTION_LOSS", "set 3 NOT_CONNECTED"));
}

// A late copy is carried out after its client has gone on in the same session, unless its version is burnt.
TEST_F(SimulatorTest, LateCopiesAreCarriedOut) {
  Create("/a");
  Create("/b");
  SubmitSet(client_, "/a", "late", 0);
  SubmitSet(client_, "/b", "late", 0);
  client_.Disconnect(OnTheWay::kHeld);
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(Run(client_.Set("/b", "burnt", 0)).code, Code::kOk);
  environment_.AdvanceBy(std::chrono::minutes(5));
  EXPECT_EQ(Run(client_.Get("/a", Note())).data, "");
  EXPECT_EQ(client_.ReleaseHeld(), 2u);
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "late");
  EXPECT_EQ(*ensemble_.tree().FindData("/b"), "burnt");
  EXPECT_THAT(notes_, ElementsAre("set late CONNECTION_LOSS", "set late CONNECTION_LOSS", "changed /a"));
}

// A late copy of a session that has expired is not carried out any more, nor one that is lost for good.
TEST_F(SimulatorTest, LateCopiesDieWithTheSession) {
  Create("/a");
  SubmitSet(client_, "/a", "late", 0);
  client_.Disconnect(OnTheWay::kHeld);
  ensemble_.ExpireSession(client_.session().session_id);
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(client_.ReleaseHeld(), 1u);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "");
  ASSERT_TRUE(WaitConnected(client_));
  SubmitSet(client_, "/a", "late", 0);
  client_.Disconnect(OnTheWay::kHeld);
  client_.LoseHeld();
  EXPECT_EQ(client_.ReleaseHeld(), 0u);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "");
}

// One chosen request is lost, or its reply, or it is held back with all that is sent after it.
TEST_F(SimulatorTest, ChosenRequestsFail) {
  Create("/a");
  client_.LoseNext(IsSet);
  EXPECT_EQ(Run(client_.Exists("/a")).code, Code::kOk);
  EXPECT_EQ(Run(client_.Set("/a", "1", 0)).code, Code::kConnectionLoss);
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "");
  ASSERT_TRUE(WaitConnected(client_));
  client_.LoseReplyToNext(IsSet);
  EXPECT_EQ(Run(client_.Set("/a", "2", 0)).code, Code::kConnectionLoss);
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "2");
  ASSERT_TRUE(WaitConnected(client_));
  client_.HoldNext(IsSet);
  SubmitSet(client_, "/a", "3", 1);
  SubmitSet(client_, "/a", "4", 2);
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(notes_, IsEmpty());
  EXPECT_EQ(client_.ReleaseHeld(), 1u);
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_THAT(notes_, ElementsAre("set 3 OK", "set 4 OK"));
}

// ---- limits ----

// A request over the limit is refused unsent; sent all the same, it makes the server drop the connection, but the
// session lives. The server's limit is exact.
TEST_F(SimulatorTest, OversizeRequests) {
  Create("/a");
  std::int64_t sent = client_.requests_sent();
  Response refused = Run(client_.Set("/a", std::string(1'048'575, 'x'), 0));
  EXPECT_EQ(refused.code, Code::kTooLarge);
  EXPECT_THAT(Multi({Op::Check("/a", 0), Op::Set("/a", std::string(1'048'575, 'x'), 0)}),
              ElementsAre(Code::kTooLarge, Code::kTooLarge));
  EXPECT_EQ(client_.requests_sent(), sent);

  client_.SetChecksRequestSize(false);
  std::int64_t session = client_.session().session_id;
  constexpr std::size_t kFixed = 8 + 4 + 2 + 4 + 4;
  EXPECT_EQ(Run(client_.Set("/a", std::string(1'048'575 - kFixed, 'x'), 0)).code, Code::kOk);
  EXPECT_EQ(Run(client_.Set("/a", std::string(1'048'576 - kFixed, 'x'), 1)).code, Code::kConnectionLoss);
  ASSERT_TRUE(WaitConnected(client_));
  EXPECT_EQ(client_.session().session_id, session);
  EXPECT_EQ(StatOf("/a").version, 1);
}

// At most kInFlightRequestsMax requests are on their way; of those that wait, settling goes first and bulk last.
TEST_F(SimulatorTest, WindowAndPriorities) {
  Create("/a");
  std::int64_t sent = client_.requests_sent();
  auto submit = [&](Priority priority, std::string note) {
    Request request;
    request.kind = Request::Kind::kExists;
    request.path = "/a";
    request.priority = priority;
    client_.Submit(std::move(request), [this, note](Response response) {
      if (!note.empty() && response.code == Code::kOk) notes_.push_back(note);
    });
  };
  for (int i = 0; i < Client::kInFlightRequestsMax; ++i) submit(Priority::kNormal, "");
  submit(Priority::kBulk, "bulk");
  submit(Priority::kNormal, "normal");
  submit(Priority::kSettle, "settle");
  EXPECT_EQ(client_.requests_sent() - sent, Client::kInFlightRequestsMax);
  environment_.AdvanceBy(milliseconds(10));
  EXPECT_THAT(notes_, ElementsAre("settle", "normal", "bulk"));
}

// The bytes on their way are bounded too.
TEST_F(SimulatorTest, WindowOfBytes) {
  Create("/a");
  std::int64_t sent = client_.requests_sent();
  for (int i = 0; i < 20; ++i) SubmitSet(client_, "/a", std::string(1'000'000, 'x'));
  EXPECT_EQ(client_.requests_sent() - sent, 8);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(client_.requests_sent() - sent, 20);
  EXPECT_EQ(StatOf("/a").version, 20);
}

// Past the limit of waiting requests, one more is refused, definitely.
TEST_F(SimulatorTest, QueueIsBounded) {
  client_.SetReachable(false);
  int refused = 0, others = 0;
  for (int i = 0; i < Client::kInFlightRequestsMax + Client::kQueuedRequestsMax + 2; ++i) {
    Request request;
    request.kind = Request::Kind::kSync;
    request.path = "/";
    client_.Submit(std::move(request),
                   [&](Response response) { ++(response.code == Code::kNotConnected ? refused : others); });
  }
  environment_.RunUntilIdle();
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(others, 0);
  client_.SetReachable(true);
  environment_.AdvanceBy(seconds(5));
  EXPECT_EQ(others, Client::kInFlightRequestsMax + Client::kQueuedRequestsMax);
}

// A request that is not answered in time ends with kTimeout, once; its late answer is dropped, and sets no watch.
TEST_F(SimulatorTest, RequestsTimeOut) {
  Create("/a");
  client_.SetReachable(false);
  Request request;
  request.kind = Request::Kind::kGet;
  request.path = "/a";
  request.timeout = seconds(2);
  request.watcher = [](WatchEvent) { FAIL(); };
  int timeouts = 0;
  client_.Submit(std::move(request), [&](Response response) { timeouts += response.code == Code::kTimeout; });
  environment_.AdvanceBy(milliseconds(1999));
  EXPECT_EQ(timeouts, 0);
  environment_.AdvanceBy(milliseconds(1));
  EXPECT_EQ(timeouts, 1);
  client_.SetReachable(true);
  EXPECT_EQ(Run(client_.Set("/a", "1", 0)).code, Code::kOk);
  EXPECT_EQ(timeouts, 1);
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
}

// Destroying a client runs every completion once and ends its session; its watches are told that they are lost.
TEST_F(SimulatorTest, DestructionEndsEverything) {
  Create("/a");
  auto other = std::make_unique<SimulatedClient>(ensemble_);
  ASSERT_TRUE(WaitConnected(*other));
  Run(other->Get("/a", Note()));
  SubmitSet(*other, "/a", "1");
  other.reset();
  EXPECT_THAT(notes_, ElementsAre("set 1 CLOSED", "lost /a"));
  EXPECT_EQ(*ensemble_.tree().FindData("/a"), "1");
  EXPECT_EQ(ensemble_.sessions().size(), 1u);
}

// The same seed and the same program give the same run, to the nanosecond.
TEST_F(SimulatorTest, RunsAreReproducible) {
  auto run = [](std::uint64_t seed) {
    SimulatedEnvironment environment(seed);
    SimulatedEnsemble ensemble(environment);
    SimulatedClient client(ensemble);
    std::string history;
    for (int i = 0; i < 50; ++i) {
      auto is_connected = [&] { return client.session().state == SessionState::kConnected; };
      EXPECT_TRUE(environment.RunUntil(is_connected, seconds(60)));
      Response response = environment.RunTask(client.Create("/n-", "", CreateMode::kPersistentSequential));
      absl::StrAppend(&history, environment.Now().time_since_epoch().count(), " ", response.path, "\n");
      if (i % 10 == 9) client.Disconnect(OnTheWay::kDelivered);
    }
    return history;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace postkeeper::zk
