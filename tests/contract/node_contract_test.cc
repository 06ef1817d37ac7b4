// What single requests do to znodes.
#include "tests/contract/contract_test.h"

namespace postkeeper::zk {
namespace {

using testing::ElementsAre;
using testing::EndsWith;

class NodeContract : public ContractTest {};
POSTKEEPER_IN_BOTH_WORLDS(NodeContract);

// A znode's data can be read back, with the Stat of a znode that was just made.
TEST_P(NodeContract, CreatedNodeReadsBack) {
  Response made = peer_.Create(At("a"), "data");
  ASSERT_EQ(made.code, Code::kOk);
  EXPECT_EQ(made.path, At("a"));

  Response read = peer_.Get(At("a"));
  ASSERT_EQ(read.code, Code::kOk);
  EXPECT_EQ(read.data, "data");
  EXPECT_GT(read.stat.czxid, 0);
  EXPECT_EQ(read.stat.mzxid, read.stat.czxid);
  EXPECT_EQ(read.stat.pzxid, read.stat.czxid);
  EXPECT_GT(read.stat.ctime_ms, 0);
  EXPECT_EQ(read.stat.mtime_ms, read.stat.ctime_ms);
  EXPECT_EQ(read.stat.version, 0);
  EXPECT_EQ(read.stat.cversion, 0);
  EXPECT_EQ(read.stat.ephemeral_owner, 0);
  EXPECT_EQ(read.stat.data_length, 4);
  EXPECT_EQ(read.stat.num_children, 0);
  EXPECT_EQ(peer_.Exists(At("a")).stat, read.stat);
}

// Data may be any bytes, and none.
TEST_P(NodeContract, DataIsBytes) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  peer_.Create(At("all"), all);
  peer_.Create(At("none"), "");
  EXPECT_EQ(peer_.Get(At("all")).data, all);
  EXPECT_EQ(peer_.Get(At("none")).data, "");
  EXPECT_EQ(peer_.Get(At("none")).code, Code::kOk);
}

// Each refusal has its code, and changes nothing.
TEST_P(NodeContract, RefusalsHaveTheirCodes) {
  peer_.Create(At("a"));
  peer_.Create(At("a/child"));
  EXPECT_EQ(peer_.Create(At("a")).code, Code::kNodeExists);
  EXPECT_EQ(peer_.Create(At("missing/child")).code, Code::kNoNode);
  EXPECT_EQ(peer_.Get(At("missing")).code, Code::kNoNode);
  EXPECT_EQ(peer_.Exists(At("missing")).code, Code::kNoNode);
  EXPECT_EQ(peer_.Children(At("missing")).code, Code::kNoNode);
  EXPECT_EQ(peer_.Set(At("missing"), "x").code, Code::kNoNode);
  EXPECT_EQ(peer_.Delete(At("missing")).code, Code::kNoNode);
  EXPECT_EQ(peer_.Set(At("a"), "x", 1).code, Code::kBadVersion);
  EXPECT_EQ(peer_.Delete(At("a"), 1).code, Code::kBadVersion);
  EXPECT_EQ(peer_.Delete(At("a")).code, Code::kNotEmpty);
  EXPECT_EQ(peer_.Get(At("a")).stat.version, 0);
  EXPECT_THAT(peer_.Children(At("a")).children, ElementsAre("child"));
}

// A path that is none is refused, in single requests and in a multi, and the connection survives it.
TEST_P(NodeContract, BadPathsAreRefused) {
  const std::int64_t session = peer_.session_id();
  for (std::string path : {"", "a", "//", "/a/", "/a//b", "/a/./b", "/a/..", "/a\x01"}) {
    EXPECT_EQ(peer_.Create(path).code, Code::kBadArguments) << path;
    EXPECT_EQ(peer_.Get(path).code, Code::kBadArguments) << path;
    Response multi = peer_.Multi({Op::Check(root_, 0), Op::Create(path, ""), Op::Set(path, "", 0)});
    EXPECT_EQ(multi.code, Code::kBadArguments) << path;
    EXPECT_THAT(Codes(multi), ElementsAre("ROLLED_BACK", "BAD_ARGUMENTS", "RUNTIME_INCONSISTENCY")) << path;
  }
  EXPECT_EQ(peer_.Create(At(std::string("nul\0", 4))).code, Code::kBadArguments);
  EXPECT_EQ(peer_.Exists(root_).code, Code::kOk);
  EXPECT_EQ(peer_.session_id(), session);
  EXPECT_EQ(peer_.sessions().size(), 2u);  // connecting, connected; no break in between
}

// Every set raises the version by one and answers the new Stat.
TEST_P(NodeContract, SetRaisesTheVersion) {
  peer_.Create(At("a"), "0");
  for (int version = 0; version < 3; ++version) {
    Response set = peer_.Set(At("a"), "longer", version);
    ASSERT_EQ(set.code, Code::kOk);
    EXPECT_EQ(set.stat.version, version + 1);
    EXPECT_EQ(set.stat.data_length, 6);
    EXPECT_GT(set.stat.mzxid, set.stat.czxid);
    EXPECT_EQ(set.stat, peer_.Get(At("a")).stat);
  }
}

// Version -1 matches any version: it switches a fence off.
TEST_P(NodeContract, VersionMinusOneMatchesAny) {
  peer_.Create(At("a"));
  peer_.Set(At("a"), "1", 0);
  EXPECT_EQ(peer_.Set(At("a"), "2", kAnyVersion).stat.version, 2);
  EXPECT_EQ(peer_.Multi({Op::Check(At("a"), kAnyVersion)}).code, Code::kOk);
  EXPECT_EQ(peer_.Delete(At("a"), kAnyVersion).code, Code::kOk);
}

// A znode that is made again starts at version 0, so that a writer of the old one can write into the new one.
TEST_P(NodeContract, VersionsRestartWithTheNode) {
  peer_.Create(At("a"));
  peer_.Set(At("a"), "old", 0);
  peer_.Delete(At("a"));
  peer_.Create(At("a"));
  EXPECT_EQ(peer_.Get(At("a")).stat.version, 0);
  EXPECT_EQ(peer_.Set(At("a"), "written by somebody who means the old one", 0).code, Code::kOk);
}

// Making and deleting children changes the parent's cversion and pzxid, but not its version or mzxid.
TEST_P(NodeContract, ChildrenDoNotChangeTheVersionOfTheParent) {
  peer_.Create(At("a"));
  const Stat before = peer_.Get(At("a")).stat;
  peer_.Create(At("a/1"));
  peer_.Create(At("a/2"));
  const Stat between = peer_.Get(At("a")).stat;
  peer_.Delete(At("a/1"));
  const Stat after = peer_.Get(At("a")).stat;
  EXPECT_EQ(after.version, before.version);
  EXPECT_EQ(after.mzxid, before.mzxid);
  EXPECT_EQ(between.cversion, before.cversion + 2);
  EXPECT_EQ(after.cversion, before.cversion + 3);
  EXPECT_GT(between.pzxid, before.pzxid);
  EXPECT_GT(after.pzxid, between.pzxid);
  EXPECT_EQ(after.num_children, 1);
  EXPECT_EQ(peer_.Multi({Op::Check(At("a"), before.version)}).code, Code::kOk);
}

// Sequence numbers count up from 0, whatever the name before them, and deletes give none back.
TEST_P(NodeContract, SequenceNumbersAreDense) {
  peer_.Create(At("a"));
  EXPECT_EQ(peer_.Create(At("a/b-"), "", CreateMode::kPersistentSequential).path, At("a/b-0000000000"));
  EXPECT_EQ(peer_.Create(At("a/c-"), "", CreateMode::kPersistentSequential).path, At("a/c-0000000001"));
  peer_.Delete(At("a/c-0000000001"));
  EXPECT_EQ(peer_.Create(At("a/"), "", CreateMode::kPersistentSequential).path, At("a/0000000002"));
  EXPECT_EQ(peer_.Create(At("a/b-"), "", CreateMode::kEphemeralSequential).path, At("a/b-0000000003"));
}

// A create that is refused uses up no number; a plain create does.
TEST_P(NodeContract, RefusedCreatesUseUpNoNumber) {
  peer_.Create(At("a"));
  EXPECT_EQ(peer_.Create(At("a/plain")).code, Code::kOk);
  EXPECT_EQ(peer_.Create(At("a/plain")).code, Code::kNodeExists);
  EXPECT_THAT(peer_.Create(At("a/b-"), "", CreateMode::kPersistentSequential).path, EndsWith("b-0000000001"));
}

// (cversion + numChildren) / 2 is the number of children ever made, and the next sequence number.
TEST_P(NodeContract, CversionCountsTheChildrenEverMade) {
  peer_.Create(At("a"));
  for (int made = 0; made < 12; ++made) {
    EXPECT_EQ(peer_.Get(At("a")).stat.children_created(), made);
    std::string path = peer_.Create(At("a/b-"), "", CreateMode::kPersistentSequential).path;
    EXPECT_EQ(std::stoi(path.substr(path.size() - 10)), made);
    if (made % 3 != 0) peer_.Delete(path);
  }
  EXPECT_EQ(peer_.Get(At("a")).stat.children_created(), 12);
}

// A NoNode says nothing about a tail that is read after it: what was not there then may be there now.
TEST_P(NodeContract, ANoNodeSaysNothingAboutALaterTail) {
  Peer other(*world_);
  peer_.Create(At("a"));
  ASSERT_EQ(peer_.Get(At("a/b-0000000000")).code, Code::kNoNode);
  other.Create(At("a/b-"), "", CreateMode::kPersistentSequential);
  EXPECT_EQ(peer_.Get(At("a")).stat.children_created(), 1);
  EXPECT_EQ(peer_.Get(At("a/b-0000000000")).code, Code::kOk);
}

// The names of children come sorted, with the Stat of the parent.
TEST_P(NodeContract, ChildrenComeSorted) {
  peer_.Create(At("a"));
  for (const char* name : {"b", "a", "C", "a1", "0", "\xc3\xa4"}) peer_.Create(At("a/") + name);
  Response children = peer_.Children(At("a"));
  EXPECT_THAT(children.children, ElementsAre("0", "C", "a", "a1", "b", "\xc3\xa4"));
  EXPECT_EQ(children.stat.num_children, 6);
  EXPECT_EQ(children.stat, peer_.Get(At("a")).stat);
}

// An ephemeral carries its session, and cannot have children.
TEST_P(NodeContract, EphemeralsHaveNoChildren) {
  ASSERT_EQ(peer_.Create(At("e"), "", CreateMode::kEphemeral).code, Code::kOk);
  EXPECT_EQ(peer_.Get(At("e")).stat.ephemeral_owner, peer_.session_id());
  EXPECT_EQ(peer_.Create(At("e/child")).code, Code::kNoChildrenForEphemerals);
  EXPECT_EQ(peer_.Multi({Op::Create(At("e/child"), "")}).code, Code::kNoChildrenForEphemerals);
}

// Requests that were sent one after the other without waiting are carried out and answered in this order.
TEST_P(NodeContract, PipelinedRequestsStayInOrder) {
  peer_.Create(At("a"));
  std::vector<Peer::Pending> pending;
  for (int i = 0; i < 200; ++i) {
    pending.push_back(
        peer_.Send({.kind = Request::Kind::kSet, .path = At("a"), .data = std::to_string(i), .version = i}, "set"));
    pending.push_back(peer_.Send({.kind = Request::Kind::kGet, .path = At("a")}, "get"));
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(peer_.Await(pending[2 * i]).stat.version, i + 1);
    EXPECT_EQ(peer_.Await(pending[2 * i + 1]).data, std::to_string(i));
  }
  const std::vector<std::string> notes = peer_.notes();
  ASSERT_EQ(notes.size(), 400u);
  for (int i = 0; i < 400; ++i) EXPECT_EQ(notes[i], i % 2 == 0 ? "set: OK" : "get: OK");
}

// Sync is answered, and what it is given is only a place in the tree: nothing has to be there.
TEST_P(NodeContract, SyncIsAnswered) {
  EXPECT_EQ(peer_.Sync(root_).code, Code::kOk);
  EXPECT_EQ(peer_.Sync(At("missing")).code, Code::kOk);
}

}  // namespace
}  // namespace postkeeper::zk
