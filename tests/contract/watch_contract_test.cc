// When watches fire, and in which order with everything else that a client is told.
#include "tests/contract/contract_test.h"

namespace postkeeper::zk {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class WatchContract : public ContractTest {
 protected:
  // Whatever an event of an earlier change would cause has arrived when this returns.
  void Settle(Peer& peer) { peer.Sync(root_); }

  Peer other_{*world_};
};
POSTKEEPER_IN_BOTH_WORLDS(WatchContract);

// A watch that a client's own request sets off is told before the answer to that request, and before later ones.
TEST_P(WatchContract, FiresBeforeTheReplyThatFollows) {
  peer_.Create(At("a"));
  peer_.Exists(At("new"), peer_.Noting("exists"));
  peer_.Get(At("a"), peer_.Noting("get"));
  peer_.Children(root_, peer_.Noting("children"));
  auto set = peer_.Send({.kind = Request::Kind::kSet, .path = At("a"), .data = "x"}, "set");
  auto create = peer_.Send({.kind = Request::Kind::kCreate, .path = At("new")}, "create");
  auto get = peer_.Send({.kind = Request::Kind::kGet, .path = At("a")}, "get again");
  peer_.Await(get);
  EXPECT_THAT(peer_.notes(), ElementsAre("get: CHANGED " + At("a"), "set: OK", "exists: CREATED " + At("new"),
                                         "children: CHILDREN " + root_, "create: OK", "get again: OK"));
}

// A client that reads what another one wrote has been told of its watch before.
TEST_P(WatchContract, FiresBeforeTheNewDataCanBeRead) {
  peer_.Create(At("a"));
  for (int i = 0; i < 50; ++i) {
    peer_.ForgetNotes();
    peer_.Get(At("a"), peer_.Noting("get"));
    other_.Send({.kind = Request::Kind::kSet, .path = At("a"), .data = std::to_string(i)});
    while (peer_.Get(At("a")).data != std::to_string(i)) continue;
    EXPECT_THAT(peer_.notes(), ElementsAre("get: CHANGED " + At("a")));
  }
}

// A watch fires once.
TEST_P(WatchContract, FiresOnce) {
  peer_.Create(At("a"));
  peer_.Get(At("a"), peer_.Noting("get"));
  other_.Set(At("a"), "1");
  other_.Set(At("a"), "2");
  other_.Delete(At("a"));
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), ElementsAre("get: CHANGED " + At("a")));
  EXPECT_EQ(peer_.client().watched_path_bytes(), 0u);
}

// A watch on a name that does not exist fires when it is made; one on a znode that exists, when it changes or goes.
TEST_P(WatchContract, ExistsWatch) {
  peer_.Create(At("changes"));
  peer_.Create(At("goes"));
  peer_.Exists(At("comes"), peer_.Noting("comes"));
  peer_.Exists(At("changes"), peer_.Noting("changes"));
  peer_.Exists(At("goes"), peer_.Noting("goes"));
  other_.Create(At("comes"));
  other_.Set(At("changes"), "x");
  other_.Delete(At("goes"));
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), ElementsAre("comes: CREATED " + At("comes"), "changes: CHANGED " + At("changes"),
                                         "goes: DELETED " + At("goes")));
}

// A watch on children fires when one is made or deleted, or the znode itself goes; not when data changes.
TEST_P(WatchContract, ChildrenWatch) {
  peer_.Create(At("a"));
  peer_.Create(At("a/child"));
  peer_.Children(At("a"), peer_.Noting("first"));
  other_.Set(At("a"), "x");
  other_.Set(At("a/child"), "x");
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), IsEmpty());
  other_.Create(At("a/other"));
  Settle(peer_);
  peer_.Children(At("a"), peer_.Noting("second"));
  other_.Delete(At("a/other"));
  Settle(peer_);
  other_.Delete(At("a/child"));
  peer_.Children(At("a"), peer_.Noting("third"));
  other_.Delete(At("a"));
  Settle(peer_);
  EXPECT_THAT(peer_.notes(),
              ElementsAre("first: CHILDREN " + At("a"), "second: CHILDREN " + At("a"), "third: DELETED " + At("a")));
}

// A refused get or children sets no watch, and costs no room.
TEST_P(WatchContract, RefusedRequestsSetNoWatch) {
  peer_.Get(At("new"), peer_.Noting("get"));
  peer_.Children(At("new"), peer_.Noting("children"));
  EXPECT_EQ(peer_.client().watched_path_bytes(), 0u);
  other_.Create(At("new"));
  other_.Create(At("new/child"));
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), IsEmpty());
}

// An exists-watch on a name in a folder that is then deleted never fires; only making that very name fires it.
TEST_P(WatchContract, ExistsWatchInADeletedFolderNeverFires) {
  peer_.Create(At("folder"));
  peer_.Exists(At("folder/next"), peer_.Noting("exists"));
  other_.Delete(At("folder"));
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), IsEmpty());
  EXPECT_EQ(peer_.client().watched_path_bytes(), At("folder/next").size());
}

// Several watches of one client on one znode all fire.
TEST_P(WatchContract, AllWatchersOfAPathAreTold) {
  peer_.Create(At("a"));
  peer_.Get(At("a"), peer_.Noting("1"));
  peer_.Exists(At("a"), peer_.Noting("2"));
  peer_.Get(At("a"), peer_.Noting("3"));
  other_.Set(At("a"), "x");
  Settle(peer_);
  EXPECT_THAT(peer_.notes(),
              UnorderedElementsAre("1: CHANGED " + At("a"), "2: CHANGED " + At("a"), "3: CHANGED " + At("a")));
}

// A delete tells the watchers of the data and of the children of the znode, then those of its parent's children.
TEST_P(WatchContract, ADeleteTellsTheNodeAndThenTheParent) {
  peer_.Create(At("a"));
  peer_.Get(At("a"), peer_.Noting("data"));
  peer_.Children(At("a"), peer_.Noting("children"));
  peer_.Children(root_, peer_.Noting("parent"));
  other_.Delete(At("a"));
  Settle(peer_);
  std::vector<std::string> notes = peer_.notes();
  ASSERT_EQ(notes.size(), 3u);
  EXPECT_THAT(std::vector(notes.begin(), notes.begin() + 2),
              UnorderedElementsAre("data: DELETED " + At("a"), "children: DELETED " + At("a")));
  EXPECT_EQ(notes[2], "parent: CHILDREN " + root_);
}

// A multi tells of all its changes, in the order of its operations, and a failed one of none.
TEST_P(WatchContract, AMultiTellsInTheOrderOfItsOperations) {
  for (const char* name : {"a", "b", "c"}) {
    peer_.Create(At(name));
    peer_.Get(At(name), peer_.Noting(name));
  }
  other_.Multi({Op::Set(At("c"), "", 0), Op::Set(At("a"), "", 0), Op::Check(root_, 7)});
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), IsEmpty());
  other_.Multi({Op::Set(At("c"), "", 0), Op::Delete(At("b")), Op::Set(At("a"), "", 0)});
  Settle(peer_);
  EXPECT_THAT(peer_.notes(), ElementsAre("c: CHANGED " + At("c"), "b: DELETED " + At("b"), "a: CHANGED " + At("a")));
}

// Watches survive a broken connection; what happened meanwhile is told after the reconnect.
TEST_P(WatchContract, WatchesSurviveAReconnect) {
  peer_.Create(At("changes"));
  peer_.Create(At("goes"));
  peer_.Create(At("stays"));
  peer_.Get(At("changes"), peer_.Noting("changes"));
  peer_.Get(At("goes"), peer_.Noting("goes"));
  peer_.Get(At("stays"), peer_.Noting("stays"));
  peer_.Exists(At("comes"), peer_.Noting("comes"));
  peer_.Children(At("stays"), peer_.Noting("children"));
  const std::int64_t session = peer_.session_id();
  world_->CutOff(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnecting));
  other_.Set(At("changes"), "x");
  other_.Delete(At("goes"));
  other_.Create(At("comes"));
  other_.Create(At("stays/child"));
  world_->Reconnect(peer_.client());
  ASSERT_TRUE(peer_.WaitForSession(SessionState::kConnected));
  Settle(peer_);
  EXPECT_EQ(peer_.session_id(), session);
  EXPECT_THAT(peer_.notes(),
              UnorderedElementsAre("changes: CHANGED " + At("changes"), "goes: DELETED " + At("goes"),
                                   "comes: CREATED " + At("comes"), "children: CHILDREN " + At("stays")));
  EXPECT_EQ(peer_.client().watched_path_bytes(), At("stays").size());
}

// The bytes of the paths of outstanding watches are counted, from the request on until the watch fires.
TEST_P(WatchContract, PathBytesAreCounted) {
  peer_.Create(At("a"));
  EXPECT_EQ(peer_.client().watched_path_bytes(), 0u);
  peer_.Get(At("a"), peer_.Noting("get"));
  peer_.Exists(At("missing"), peer_.Noting("exists"));
  EXPECT_EQ(peer_.client().watched_path_bytes(), At("a").size() + At("missing").size());
  other_.Delete(At("a"));
  Settle(peer_);
  EXPECT_EQ(peer_.client().watched_path_bytes(), At("missing").size());
}

}  // namespace
}  // namespace postkeeper::zk
