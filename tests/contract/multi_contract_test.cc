// What a multi does: all of its operations or none.
#include "tests/contract/contract_test.h"

namespace postkeeper::zk {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class MultiContract : public ContractTest {
 protected:
  void SetUp() override {
    peer_.Create(At("a"), "data");
    peer_.Create(At("log"));
  }

  // Two operations that succeed on either side of one that fails: the code of the whole, and of each operation.
  void ExpectFailure(Op failing, Code code) {
    const Stat before = peer_.Get(At("a")).stat;
    Response multi = peer_.Multi({Op::Set(At("a"), "new", 0), Op::Create(At("log/b-"), "", kSequential),
                                  std::move(failing), Op::Check(root_, 0), Op::Create(At("log/c-"), "", kSequential)});
    EXPECT_EQ(multi.code, code);
    const std::string name(CodeName(code));
    EXPECT_THAT(Codes(multi),
                ElementsAre("ROLLED_BACK", "ROLLED_BACK", name, "RUNTIME_INCONSISTENCY", "RUNTIME_INCONSISTENCY"));
    for (const OpResult& result : multi.results) EXPECT_EQ(result.path, "");
    EXPECT_EQ(peer_.Get(At("a")).stat, before);
    EXPECT_THAT(peer_.Children(At("log")).children, IsEmpty());
  }

  static constexpr CreateMode kSequential = CreateMode::kPersistentSequential;
};
POSTKEEPER_IN_BOTH_WORLDS(MultiContract);

// The paths of creates and the Stats of sets come back from a multi.
TEST_P(MultiContract, ResultsComeBack) {
  Response multi = peer_.Multi({Op::Set(At("a"), "new", 0), Op::Check(At("log"), 0),
                                Op::Create(At("log/b-"), "1", kSequential), Op::Create(At("plain"), "2"),
                                Op::Create(At("log/b-"), "3", kSequential), Op::Delete(At("plain"), 0)});
  ASSERT_EQ(multi.code, Code::kOk);
  EXPECT_THAT(Codes(multi), ElementsAre("OK", "OK", "OK", "OK", "OK", "OK"));
  EXPECT_EQ(multi.results[0].stat, peer_.Get(At("a")).stat);
  EXPECT_EQ(multi.results[0].stat.version, 1);
  EXPECT_EQ(multi.results[2].path, At("log/b-0000000000"));
  EXPECT_EQ(multi.results[3].path, At("plain"));
  EXPECT_EQ(multi.results[4].path, At("log/b-0000000001"));
  EXPECT_EQ(peer_.Get(At("log/b-0000000001")).data, "3");
  EXPECT_EQ(peer_.Exists(At("plain")).code, Code::kNoNode);
}

// All operations of a multi are one transaction: they carry the same zxid.
TEST_P(MultiContract, IsOneTransaction) {
  peer_.Multi({Op::Set(At("a"), "new", 0), Op::Create(At("log/b"), "")});
  const Stat set = peer_.Get(At("a")).stat;
  EXPECT_EQ(peer_.Get(At("log/b")).stat.czxid, set.mzxid);
  EXPECT_EQ(peer_.Get(At("log")).stat.pzxid, set.mzxid);
}

// Each way to fail has its code, at its place; what is before was rolled back, what is after was not tried.
TEST_P(MultiContract, FailuresHaveTheirCodeAndPlace) {
  peer_.Create(At("full"));
  peer_.Create(At("full/child"));
  peer_.Create(At("e"), "", CreateMode::kEphemeral);
  ExpectFailure(Op::Set(At("missing"), "", 0), Code::kNoNode);
  ExpectFailure(Op::Set(At("full"), "", 7), Code::kBadVersion);
  ExpectFailure(Op::Check(At("missing"), 0), Code::kNoNode);
  ExpectFailure(Op::Check(At("full"), 7), Code::kBadVersion);
  ExpectFailure(Op::Delete(At("missing")), Code::kNoNode);
  ExpectFailure(Op::Delete(At("full/child"), 7), Code::kBadVersion);
  ExpectFailure(Op::Delete(At("full")), Code::kNotEmpty);
  ExpectFailure(Op::Create(At("full"), ""), Code::kNodeExists);
  ExpectFailure(Op::Create(At("missing/child"), ""), Code::kNoNode);
  ExpectFailure(Op::Create(At("e/child"), ""), Code::kNoChildrenForEphemerals);
}

// If several operations would fail, the first one decides.
TEST_P(MultiContract, TheFirstFailureDecides) {
  Response multi = peer_.Multi({Op::Check(At("a"), 7), Op::Delete(At("missing"))});
  EXPECT_EQ(multi.code, Code::kBadVersion);
  EXPECT_THAT(Codes(multi), ElementsAre("BAD_VERSION", "RUNTIME_INCONSISTENCY"));
}

// One delete of a znode that is not there fails all the other deletes too.
TEST_P(MultiContract, OneMissingNodeFailsAllDeletes) {
  peer_.Create(At("log/1"));
  peer_.Create(At("log/3"));
  Response multi = peer_.Multi({Op::Delete(At("log/1")), Op::Delete(At("log/2")), Op::Delete(At("log/3"))});
  EXPECT_EQ(multi.code, Code::kNoNode);
  EXPECT_THAT(Codes(multi), ElementsAre("ROLLED_BACK", "NO_NODE", "RUNTIME_INCONSISTENCY"));
  EXPECT_THAT(peer_.Children(At("log")).children, ElementsAre("1", "3"));
}

// A multi that failed has used up no sequence number, even if its create came before the operation that failed.
TEST_P(MultiContract, FailedMultisUseUpNoNumber) {
  for (int i = 0; i < 5; ++i) {
    peer_.Multi(
        {Op::Create(At("log/b-"), "", kSequential), Op::Create(At("log/b-"), "", kSequential), Op::Check(At("a"), 7)});
    Response made = peer_.Multi({Op::Check(At("a"), 0), Op::Create(At("log/b-"), "", kSequential)});
    EXPECT_EQ(made.results[1].path, At("log/b-000000000" + std::to_string(i)));
  }
  EXPECT_EQ(peer_.Get(At("log")).stat.cversion, 5);
}

// An operation sees what the operations before it in the same multi did.
TEST_P(MultiContract, OperationsSeeTheOnesBefore) {
  Response multi = peer_.Multi({Op::Create(At("new"), "1"), Op::Set(At("new"), "2", 0), Op::Check(At("new"), 1),
                                Op::Create(At("new/child"), ""), Op::Delete(At("new/child")), Op::Delete(At("new"), 1),
                                Op::Create(At("new"), "3")});
  EXPECT_EQ(multi.code, Code::kOk);
  EXPECT_EQ(peer_.Get(At("new")).data, "3");
  EXPECT_EQ(peer_.Get(At("new")).stat.version, 0);
}

// check(parent) is not disturbed by children that are made and deleted, also in the same multi.
TEST_P(MultiContract, CheckOfTheParentIgnoresChildren) {
  Response multi = peer_.Multi({Op::Check(At("log"), 0), Op::Create(At("log/b-"), "", kSequential),
                                Op::Check(At("log"), 0), Op::Delete(At("log/b-0000000000")), Op::Check(At("log"), 0)});
  EXPECT_EQ(multi.code, Code::kOk);
}

// The version chain: multis that were sent without waiting run in order, and once one has failed all later ones fail
// with BADVERSION and write nothing.
TEST_P(MultiContract, AFailedMemberFailsTheRestOfItsChain) {
  peer_.Create(At("producer"));
  peer_.Create(At("closed"));
  std::vector<Peer::Pending> pending;
  for (int i = 0; i < 10; ++i) {
    const std::string log = i == 4 ? At("missing") : At("log");
    std::vector<Op> ops = {Op::Set(At("producer"), "batch", i), Op::Create(log + "/b-", "", kSequential)};
    pending.push_back(peer_.Send({.kind = Request::Kind::kMulti, .ops = std::move(ops)}));
  }
  for (int i = 0; i < 10; ++i) {
    Code expected = i < 4 ? Code::kOk : i == 4 ? Code::kNoNode : Code::kBadVersion;
    EXPECT_EQ(peer_.Await(pending[i]).code, expected) << i;
  }
  EXPECT_EQ(peer_.Get(At("producer")).stat.version, 4);
  EXPECT_EQ(peer_.Children(At("log")).children.size(), 4u);
}

// Sending a member of a chain again is safe: if the first copy got in, the second answers BADVERSION.
TEST_P(MultiContract, AResentMemberAnswersBadVersion) {
  peer_.Create(At("producer"));
  const std::vector<Op> ops = {Op::Set(At("producer"), "batch", 0), Op::Create(At("log/b-"), "", kSequential)};
  EXPECT_EQ(peer_.Multi(ops).code, Code::kOk);
  Response again = peer_.Multi(ops);
  EXPECT_EQ(again.code, Code::kBadVersion);
  EXPECT_THAT(Codes(again), ElementsAre("BAD_VERSION", "RUNTIME_INCONSISTENCY"));
  EXPECT_EQ(peer_.Children(At("log")).children.size(), 1u);
}

// Burning a version: a copy that comes later than the burn can no longer get in.
TEST_P(MultiContract, ABurntVersionShutsOutLateCopies) {
  peer_.Create(At("producer"));
  EXPECT_EQ(peer_.Set(At("producer"), "burn 0", 0).code, Code::kOk);
  EXPECT_EQ(peer_.Multi({Op::Set(At("producer"), "batch", 0), Op::Create(At("log/b-"), "", kSequential)}).code,
            Code::kBadVersion);
  EXPECT_EQ(peer_.Get(At("producer")).data, "burn 0");
}

// A multi without operations succeeds.
TEST_P(MultiContract, AnEmptyMultiSucceeds) {
  Response multi = peer_.Multi({});
  EXPECT_EQ(multi.code, Code::kOk);
  EXPECT_THAT(multi.results, IsEmpty());
}

// A multi may have hundreds of operations.
TEST_P(MultiContract, ManyOperations) {
  std::vector<Op> ops;
  for (int i = 0; i < 300; ++i) ops.push_back(Op::Create(At("log/b-"), std::string(1000, 'x'), kSequential));
  Response multi = peer_.Multi(std::move(ops));
  ASSERT_EQ(multi.code, Code::kOk);
  EXPECT_EQ(multi.results[299].path, At("log/b-0000000299"));
}

}  // namespace
}  // namespace postkeeper::zk
