// Sessions: how long they live, what dies with them, and what a request says when its connection breaks.
#include "tests/contract/contract_test.h"

namespace postkeeper::zk {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::Ge;
using testing::IsEmpty;
using testing::Le;

constexpr WorldClientOptions kShort{.session_timeout = std::chrono::seconds(1)};

class SessionContract : public ContractTest {
 protected:
  Peer other_{*world_, kShort};
};
POSTKEEPER_IN_BOTH_WORLDS(SessionContract);

std::vector<SessionState> States(const Peer& peer) {
  std::vector<SessionState> states;
  for (const SessionEvent& event : peer.sessions()) states.push_back(event.state);
  return states;
}

// An observer is told the state of the moment, and then every change.
TEST_P(SessionContract, ObserversAreTold) {
  EXPECT_THAT(States(peer_), ElementsAre(SessionState::kConnecting, SessionState::kConnected));
  EXPECT_NE(peer_.session_id(), 0);
  EXPECT_NE(peer_.session_id(), other_.session_id());
  EXPECT_EQ(peer_.sessions().back().session_id, peer_.session_id());
  world_->CutOff(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnecting));
  world_->Reconnect(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(States(peer_).size(), 4u);
}

// The session's timeout is what was asked for, within the server's bounds.
TEST_P(SessionContract, TimeoutsAreNegotiated) {
  EXPECT_EQ(other_.client().session().timeout, std::chrono::seconds(1));
  Peer hasty(*world_, {.session_timeout = std::chrono::milliseconds(100)});
  EXPECT_GT(hasty.client().session().timeout, std::chrono::milliseconds(100));
  Peer patient(*world_, {.session_timeout = std::chrono::hours(1)});
  EXPECT_LT(patient.client().session().timeout, std::chrono::minutes(1));
}

// Closing a client removes its ephemerals at once, and nothing else.
TEST_P(SessionContract, CloseRemovesEphemerals) {
  other_.Create(At("stays"));
  other_.Create(At("goes"), "", CreateMode::kEphemeral);
  other_.Create(At("goes-"), "", CreateMode::kEphemeralSequential);
  peer_.Exists(At("goes"), peer_.Noting("goes"));
  other_.client().Close(std::chrono::seconds(10));
  EXPECT_EQ(other_.client().session().state, SessionState::kClosed);
  EXPECT_THAT(peer_.Children(root_).children, ElementsAre("stays"));
  EXPECT_THAT(peer_.notes(), ElementsAre("goes: DELETED " + At("goes")));
}

// Close ends the session, and with it every watch: watchers are told so, and observers that the client is closed.
TEST_P(SessionContract, CloseTellsWatchersAndObservers) {
  other_.Get(root_, other_.Noting("watch"));
  other_.client().Close(std::chrono::seconds(10));
  ASSERT_TRUE(other_.WaitForSession(SessionState::kClosed));
  EXPECT_THAT(other_.notes(), ElementsAre("watch: LOST " + root_));
  EXPECT_EQ(other_.client().watched_path_bytes(), 0u);
}

// After Close every call ends with kClosed.
TEST_P(SessionContract, ClosedClientsRefuse) {
  other_.client().Close(std::chrono::seconds(10));
  EXPECT_EQ(other_.Get(root_).code, Code::kClosed);
  EXPECT_EQ(other_.Multi({Op::Check(root_, 0)}).code, Code::kClosed);
  ASSERT_TRUE(other_.WaitForSession(SessionState::kClosed));
}

// Requests that are on their way when the client is closed end with kClosed, if not with their answer; each one once.
TEST_P(SessionContract, CloseEndsEveryRequest) {
  std::vector<Peer::Pending> pending;
  for (int i = 0; i < 1000; ++i) {
    pending.push_back(other_.Send({.kind = Request::Kind::kSet, .path = root_, .data = "x"}, "set"));
  }
  other_.client().Close(std::chrono::seconds(10));
  for (const Peer::Pending& one : pending) EXPECT_THAT(other_.Await(one).code, AnyOf(Code::kOk, Code::kClosed));
  EXPECT_EQ(other_.notes().size(), 1000u);
}

// When the server expires a session, its ephemerals go; the client notices, tells, and makes a new session by itself.
TEST_P(SessionContract, ExpiryRemovesEphemerals) {
  const std::int64_t old_session = other_.session_id();
  other_.Create(At("e"), "", CreateMode::kEphemeral);
  other_.Create(At("stays"));
  peer_.Exists(At("e"), peer_.Noting("e"));
  world_->Expire(other_.client());
  ASSERT_TRUE(peer_.WaitForNotes(1));
  EXPECT_THAT(peer_.notes(), ElementsAre("e: DELETED " + At("e")));
  ASSERT_TRUE(world_->WaitUntil([&] { return other_.client().session().session_id != old_session; }));
  ASSERT_TRUE(other_.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(other_.Exists(At("e")).code, Code::kNoNode);
  EXPECT_EQ(other_.Exists(At("stays")).code, Code::kOk);

  std::vector<SessionEvent> events = other_.sessions();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events[events.size() - 2].state, SessionState::kExpired);
  EXPECT_EQ(events[events.size() - 2].session_id, old_session);
  EXPECT_EQ(events.back().session_id, other_.session_id());
}

// With its session every watch is lost, and says so once.
TEST_P(SessionContract, ExpiryLosesWatches) {
  const std::int64_t old_session = other_.session_id();
  other_.Create(At("a"));
  other_.Get(At("a"), other_.Noting("get"));
  other_.Children(At("a"), other_.Noting("children"));
  other_.Exists(At("missing"), other_.Noting("exists"));
  world_->Expire(other_.client());
  ASSERT_TRUE(world_->WaitUntil([&] { return other_.client().session().session_id != old_session; }));
  ASSERT_TRUE(other_.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(other_.client().watched_path_bytes(), 0u);
  peer_.Set(At("a"), "x");
  peer_.Create(At("missing"));
  other_.Sync(root_);
  EXPECT_THAT(other_.notes(), testing::UnorderedElementsAre("get: LOST " + At("a"), "children: LOST " + At("a"),
                                                            "exists: LOST " + At("missing")));
}

// A broken connection is not the end of a session: it goes on with the same id, and its ephemerals live on.
TEST_P(SessionContract, SessionsSurviveABrokenConnection) {
  const std::int64_t session = peer_.session_id();
  peer_.Create(At("e"), "", CreateMode::kEphemeral);
  world_->CutOff(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnecting));
  EXPECT_EQ(other_.Exists(At("e")).code, Code::kOk);
  world_->Reconnect(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer_.session_id(), session);
  EXPECT_EQ(peer_.Get(At("e")).stat.ephemeral_owner, session);
}

// Without a connection nothing is sent, and the answer says so at once.
TEST_P(SessionContract, NothingIsSentWithoutAConnection) {
  world_->CutOff(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnecting));
  EXPECT_EQ(peer_.Create(At("a")).code, Code::kNotConnected);
  EXPECT_EQ(peer_.Multi({Op::Create(At("a"), "")}).code, Code::kNotConnected);
  world_->Reconnect(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer_.Exists(At("a")).code, Code::kNoNode);
}

// When the connection breaks, requests on their way have an unknown outcome, and requests that still wait have not been
// sent; every one of them is answered, and those that succeeded come first.
TEST_P(SessionContract, ABrokenConnectionEndsEveryRequest) {
  peer_.Create(At("a"));
  std::vector<Peer::Pending> pending;
  for (int i = 0; i < 2000; ++i) {
    pending.push_back(peer_.Send({.kind = Request::Kind::kSet, .path = At("a"), .data = "x", .version = i}));
  }
  world_->Disconnect(peer_.client());
  int succeeded = 0, lost = 0;
  for (const Peer::Pending& one : pending) {
    Code code = peer_.Await(one).code;
    EXPECT_THAT(code, AnyOf(Code::kOk, Code::kConnectionLoss, Code::kNotConnected));
    if (code == Code::kOk) {
      EXPECT_EQ(lost, 0);
      ++succeeded;
    } else {
      ++lost;
    }
  }
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnected));
  EXPECT_GT(lost, 0);
  EXPECT_THAT(peer_.Get(At("a")).stat.version, AllOf(Ge(succeeded), Le(2000)));
}

// A request that is too large is not sent.
TEST_P(SessionContract, LargeRequestsAreRefused) {
  const Request empty{.kind = Request::Kind::kCreate, .path = At("a")};
  const std::string fits(peer_.client().request_bytes_max() - WireBytes(empty), 'x');
  EXPECT_EQ(peer_.Create(At("a"), fits + "x").code, Code::kTooLarge);
  EXPECT_EQ(peer_.Multi({Op::Create(At("a"), fits), Op::Check(root_, 0)}).code, Code::kTooLarge);
  EXPECT_EQ(peer_.Create(At("a"), fits).code, Code::kOk);
  EXPECT_EQ(peer_.Get(At("a")).data, fits);
  EXPECT_EQ(States(peer_).size(), 2u);
}

// Why it must not be sent: the server drops the connection, and everything that is on its way with it.
TEST_P(SessionContract, AnOversizeRequestDropsTheConnection) {
  Peer reckless(*world_, {.checks_request_size = false});
  const std::int64_t session = reckless.session_id();
  auto large = reckless.Send({.kind = Request::Kind::kCreate, .path = At("large"), .data = std::string(1'048'576, 'x')},
                             "large");
  auto small = reckless.Send({.kind = Request::Kind::kCreate, .path = At("small")}, "small");
  EXPECT_EQ(reckless.Await(large).code, Code::kConnectionLoss);
  EXPECT_THAT(reckless.Await(small).code, AnyOf(Code::kConnectionLoss, Code::kNotConnected));
  ASSERT_TRUE(world_->WaitUntil([&] { return reckless.client().session().state == SessionState::kConnected; }));
  EXPECT_THAT(States(reckless), ElementsAre(SessionState::kConnecting, SessionState::kConnected,
                                            SessionState::kConnecting, SessionState::kConnected));
  EXPECT_EQ(reckless.session_id(), session);
  EXPECT_THAT(reckless.Children(root_).children, IsEmpty());
}

// One ephemeral for each process is enough to count the processes that live.
TEST_P(SessionContract, OneEphemeralCountsAProcess) {
  peer_.Create(At("replicas"));
  peer_.Create(At("replicas/one"), "", CreateMode::kEphemeral);
  {
    Peer third(*world_);
    other_.Create(At("replicas/two"), "", CreateMode::kEphemeral);
    third.Create(At("replicas/three"), "", CreateMode::kEphemeral);
    EXPECT_EQ(peer_.Get(At("replicas")).stat.num_children, 3);
  }
  EXPECT_THAT(peer_.Children(At("replicas")).children, ElementsAre("one", "two"));
  peer_.Exists(At("replicas/two"), peer_.Noting("two"));
  world_->Expire(other_.client());
  ASSERT_TRUE(peer_.WaitForNotes(1));
  EXPECT_EQ(peer_.Get(At("replicas")).stat.num_children, 1);
}

// The moment from which self-fencing counts is the sending of an answered request, not its answer, and it never goes
// back.
TEST_P(SessionContract, LastAnsweredSentAtRises) {
  Instant last = peer_.client().last_answered_sent_at();
  for (int i = 0; i < 20; ++i) {
    peer_.Exists(At("missing"));  // a refusal is an answer
    Instant now = peer_.client().last_answered_sent_at();
    EXPECT_GT(now, last);
    last = now;
  }
  world_->CutOff(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnecting));
  peer_.Exists(At("missing"));
  EXPECT_EQ(peer_.client().last_answered_sent_at(), last);
}

}  // namespace
}  // namespace postkeeper::zk
