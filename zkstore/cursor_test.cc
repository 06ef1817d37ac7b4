// The cursor in a simulated ZooKeeper: what was written is stored once and read back, whatever happens to replies, and
// a deposed owner writes nothing.
#include "zkstore/cursor.h"

#include <algorithm>

#include "tests/support/cursor_test.h"

namespace postkeeper {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using OnTheWay = zk::SimulatedClient::OnTheWay;

// What is settled is stored with the deletion of its batch and with the head, and read back.
TEST_F(CursorTest, SettlesAndDeletesInOneWrite) {
  MakeBatches(3, 2);
  ASSERT_TRUE(Await(Settle({At(0, 0), At(0, 1), At(1, 1)})).ok());
  EXPECT_THAT(written_, ElementsAre(3u));
  EXPECT_THAT(BatchesStored(), ElementsAre("b-0000000001", "b-0000000002"));
  storage::v1::HeadRecord head;
  ASSERT_TRUE(head.ParseFromString(environment_.RunTask(other_client_.Get(layout_.Head(log_))).data));
  EXPECT_EQ(head.live_messages(), 42);
  Reopen();
  EXPECT_EQ(cursor_->settled().watermark(), At(1));
  EXPECT_TRUE(cursor_->settled().IsSettled(At(1, 1)));
  EXPECT_FALSE(cursor_->settled().IsSettled(At(1, 0)));
}

// Changes that come while a write is on its way share the next one.
TEST_F(CursorTest, ChangesShareWrites) {
  MakeBatches(100, 1);
  std::vector<Outcome> outcomes;
  for (int i = 0; i < 100; ++i) outcomes.push_back(Settle({At(i)}));
  for (const Outcome& outcome : outcomes) EXPECT_TRUE(Await(outcome).ok());
  EXPECT_LE(written_.size(), 2u);
  EXPECT_THAT(BatchesStored(), IsEmpty());
}

// One write deletes at most 256 batches; a call with more is answered when the last of them is durable.
TEST_F(CursorTest, WritesAreBounded) {
  MakeBatches(600, 1);
  std::size_t deletes_max = 0;
  client_.LoseNext([&](const zk::Request& request) {  // looks at every request and loses none
    const auto deletes = std::count_if(request.ops.begin(), request.ops.end(),
                                       [](const zk::Op& op) { return op.kind == zk::Op::Kind::kDelete; });
    deletes_max = std::max(deletes_max, static_cast<std::size_t>(deletes));
    return false;
  });
  std::vector<Position> all;
  for (int i = 0; i < 600; ++i) all.push_back(At(i));
  ASSERT_TRUE(Await(Settle(all)).ok());
  EXPECT_EQ(deletes_max, Cursor::kDeletesMax);
  EXPECT_THAT(written_, SizeIs(3));
  EXPECT_THAT(BatchesStored(), IsEmpty());
}

// A batch that somebody deleted already is left out, and the rest is written.
TEST_F(CursorTest, MissingBatchesAreLeftOut) {
  MakeBatches(4, 1);
  environment_.RunTask(other_client_.Delete(layout_.Batch(log_, At(0)), zk::kAnyVersion));
  environment_.RunTask(other_client_.Delete(layout_.Batch(log_, At(2)), zk::kAnyVersion));
  ASSERT_TRUE(Await(Settle({At(0), At(1), At(2), At(3)})).ok());
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_THAT(lost_, IsEmpty());
}

// Leftover batches go with the next write and do not count as its own.
TEST_F(CursorTest, LeftoversGoWithTheNextWrite) {
  MakeBatches(2, 1);
  cursor_->DeleteLater(At(0));
  ASSERT_TRUE(Await(Settle({At(1)})).ok());
  EXPECT_THAT(BatchesStored(), IsEmpty());
}

// The write is lost on its way, or its reply, or a copy of it comes late, at any moment: each change is stored, each
// call answered OK once, and the cursor goes on.
TEST_F(CursorTest, LostRepliesAreHarmless) {
  constexpr int kRounds = 45;
  MakeBatches(kRounds, 2);
  for (int round = 0; round < kRounds; ++round) {
    const Outcome first = Settle({At(round, 0)});
    const Outcome second = Settle({At(round, 1)});
    environment_.AdvanceBy(microseconds(60 * (round / 3)));
    client_.Disconnect(static_cast<OnTheWay>(round % 3));
    environment_.AdvanceBy(milliseconds(round % 5 * 40));
    client_.ReleaseHeld();
    EXPECT_TRUE(Await(first).ok()) << round;
    EXPECT_TRUE(Await(second).ok()) << round;
  }
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_THAT(lost_, IsEmpty());
  Reopen();
  EXPECT_EQ(cursor_->settled().watermark(), At(kRounds));
}

// The very first write, which creates the cursor, survives a lost reply too.
TEST_F(CursorTest, FirstWriteSurvivesALostReply) {
  MakeBatches(2, 1);
  client_.LoseReplyToNext(IsMulti);
  EXPECT_TRUE(Await(Settle({At(0)})).ok());
  EXPECT_TRUE(Await(Settle({At(1)})).ok());
  EXPECT_THAT(lost_, IsEmpty());
  EXPECT_EQ(StoredVersion(), 1);
}

// A deposed owner's write is refused whole: the call is told NO_OWNER, the engine once, and nothing is stored.
TEST_F(CursorTest, DeposedOwnerWritesNothing) {
  MakeBatches(2, 1);
  ASSERT_TRUE(Await(Settle({At(0)})).ok());
  Depose();
  const Outcome refused = Settle({At(1)});
  const Outcome behind = Settle({At(1)});
  EXPECT_TRUE(HasReason(Await(refused), Reason::kNoOwner));
  EXPECT_TRUE(HasReason(Await(behind), Reason::kNoOwner));
  EXPECT_TRUE(HasReason(Await(Settle({At(1)})), Reason::kNoOwner));
  EXPECT_THAT(lost_, SizeIs(1));
  EXPECT_THAT(BatchesStored(), ElementsAre("b-0000000001"));
  EXPECT_EQ(StoredVersion(), 0);
}

// A late copy of a deposed owner's write is refused as well.
TEST_F(CursorTest, LateCopyOfADeposedOwnerIsRefused) {
  MakeBatches(1, 1);
  client_.HoldNext(IsMulti);
  const Outcome outcome = Settle({At(0)});
  environment_.AdvanceBy(milliseconds(5));
  client_.Disconnect(OnTheWay::kHeld);
  Depose();
  client_.ReleaseHeld();
  EXPECT_FALSE(Await(outcome).ok());
  EXPECT_THAT(BatchesStored(), SizeIs(1));
}

// The owner has taken the log again under a new session: a write that was on its way goes on under the new version,
// whether or not its first copy is in.
TEST_F(CursorTest, WritesGoOnAfterRetaking) {
  for (int round = 0; round < 8; ++round) {
    if (round == 0) MakeBatches(8, 1);
    if (round % 2 == 0) {
      client_.LoseReplyToNext(IsMulti);
    } else {
      client_.LoseNext(IsMulti);
    }
    const Outcome outcome = Settle({At(round)});
    environment_.AdvanceBy(milliseconds(2));
    if (round >= 4) ensemble_.ExpireSession(client_.session().session_id);
    held_ = Take(other_client_, process_);
    environment_.AdvanceBy(milliseconds(30 * round));
    cursor_->SetOwner(held_);
    EXPECT_TRUE(Await(outcome).ok()) << round;
  }
  EXPECT_THAT(lost_, IsEmpty());
  EXPECT_THAT(BatchesStored(), IsEmpty());
}

// While ZooKeeper is gone calls are answered OUTCOME_UNKNOWN within the patience, not before; their changes are stored
// when it is back.
TEST_F(CursorTest, CallsAreAnsweredWhileZookeeperIsGone) {
  MakeBatches(3, 1);
  ASSERT_TRUE(Await(Settle({At(0)})).ok());
  environment_.AdvanceBy(minutes(10));
  ensemble_.Stop();
  const Instant before = environment_.Now();
  const Outcome first = Settle({At(1)});
  const Outcome second = Settle({At(2)});
  EXPECT_TRUE(HasReason(Await(first), Reason::kOutcomeUnknown));
  EXPECT_TRUE(HasReason(Await(second), Reason::kOutcomeUnknown));
  EXPECT_GE(environment_.Now() - before, seconds(1));
  EXPECT_LE(environment_.Now() - before, seconds(2));
  ensemble_.Start();
  environment_.AdvanceBy(seconds(5));
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_THAT(*first, SizeIs(1));
}

// Abandoned calls are told that their outcome is unknown.
TEST_F(CursorTest, AbandonedCallsAreUnknown) {
  MakeBatches(2, 1);
  const Outcome first = Settle({At(0)});
  const Outcome second = Settle({At(1)});
  environment_.RunUntilIdle();
  cursor_->Abandon();
  EXPECT_TRUE(HasReason(Await(first), Reason::kOutcomeUnknown));
  EXPECT_TRUE(HasReason(Await(second), Reason::kOutcomeUnknown));
  EXPECT_THAT(lost_, IsEmpty());
}

// Notes are stored and read back; older ones that come later do not replace newer ones.
TEST_F(CursorTest, NotesAreKept) {
  MakeBatches(1, 3);
  const SettledSet::Notes notes{2, 1, WallTime(milliseconds(123'456))};
  std::vector<Cursor::Change> changes;
  changes.push_back({At(0, 1), notes});
  changes.push_back({At(0, 2), SettledSet::Notes{5, 4, {}}});
  changes.push_back({At(0, 2), SettledSet::Notes{4, 4, WallTime(milliseconds(99))}});
  ASSERT_TRUE(Await(Write(std::move(changes))).ok());
  Reopen();
  EXPECT_EQ(cursor_->settled().NotesOf(At(0, 1)), notes);
  EXPECT_EQ(cursor_->settled().NotesOf(At(0, 2)).number, 5u);
  EXPECT_EQ(cursor_->settled().NotesOf(At(0, 0)), SettledSet::Notes{});
}

// Letting go stores the leases with the release of the log; the next owner finds them until its first write.
TEST_F(CursorTest, LettingGoHandsLeasesOver) {
  MakeBatches(2, 2);
  ASSERT_TRUE(Await(Settle({At(0, 0)})).ok());
  const Outcome last = Settle({At(0, 1)});
  std::vector<Cursor::HandedOverLease> leases;
  leases.push_back({At(1, 0), 3, seconds(17), {4, 6}});
  ASSERT_TRUE(environment_.RunTask(cursor_->LetGo(leases, seconds(5))).ok());
  EXPECT_TRUE(Await(last).ok());
  EXPECT_EQ(environment_.RunTask(ReadOwner(client_, layout_, log_))->state, OwnerView::State::kNobody);
  held_ = Take(client_, ProcessId::Make(environment_));
  cursor_ = Open();
  ASSERT_THAT(cursor_->handed_over(), SizeIs(1));
  EXPECT_EQ(cursor_->handed_over()[0].position, At(1, 0));
  EXPECT_EQ(cursor_->handed_over()[0].number, 3u);
  EXPECT_EQ(cursor_->handed_over()[0].remaining, seconds(17));
  EXPECT_EQ(cursor_->handed_over()[0].epochs, (Cursor::EpochRange{4, 6}));
  EXPECT_EQ(cursor_->settled().watermark(), At(1));
  ASSERT_TRUE(Await(Settle({At(1, 0)})).ok());
  EXPECT_THAT(cursor_->handed_over(), IsEmpty());
  EXPECT_EQ(Record().leases_size(), 0);
}

// More leases than are handed over at most: the rest lapses.
TEST_F(CursorTest, HandedOverLeasesAreBounded) {
  std::vector<Cursor::HandedOverLease> leases(Cursor::kHandedOverLeasesMax + 10, {At(0), 1, seconds(1), {1, 1}});
  ASSERT_TRUE(environment_.RunTask(cursor_->LetGo(leases, seconds(5))).ok());
  EXPECT_EQ(Record().leases_size(), static_cast<int>(Cursor::kHandedOverLeasesMax));
}

// The first write of each epoch records the version that it replaced; the last eight are kept.
TEST_F(CursorTest, EpochsAreRecorded) {
  MakeBatches(12, 2);
  ASSERT_TRUE(Await(Settle({At(0, 0)})).ok());
  ASSERT_TRUE(Await(Settle({At(0, 1)})).ok());
  EXPECT_EQ(Record().epochs(0).overwrote_version(), -1);
  for (int i = 1; i < 12; ++i) {
    held_ = Take(client_, process_);
    Reopen();
    ASSERT_TRUE(Await(Settle({At(i, 0)})).ok());
    ASSERT_TRUE(Await(Settle({At(i, 1)})).ok());
  }
  const storage::v1::CursorRecord record = Record();
  ASSERT_EQ(record.epochs_size(), Cursor::kEpochsKept);
  EXPECT_EQ(record.epochs(7).epoch(), held_.epoch);
  EXPECT_EQ(record.epochs(7).overwrote_version(), StoredVersion() - 2);
  EXPECT_EQ(record.epochs(6).overwrote_version(), StoredVersion() - 4);
  EXPECT_EQ(record.epochs(6).overwrote_generation(), 1u);
}

// What does not fit into the cursor goes into parts, is read back from there, survives lost replies, and goes when it
// is not needed any more.
TEST_F(CursorTest, LargeStatesSpillIntoParts) {
  constexpr int kBatches = 120;
  constexpr int kMessages = 2000;
  MakeBatches(kBatches, kMessages);
  std::vector<Position> odd;
  std::vector<Position> even;
  for (int batch = 0; batch < kBatches; ++batch) {
    for (int i = 0; i < kMessages; ++i) (i % 2 == 1 ? odd : even).push_back(At(batch, i));
  }
  client_.LoseReplyToNext(IsMulti);
  ASSERT_TRUE(Await(Settle(odd)).ok());
  EXPECT_FALSE(ChildrenOf(layout_.Parts(log_)).empty());
  const zk::Response stored = environment_.RunTask(other_client_.Get(layout_.Cursor(log_, log_, 1)));
  EXPECT_LE(stored.data.size(), SettledSet::kInlineBytesMax + 4096);
  Reopen();
  for (int batch = 0; batch < kBatches; ++batch) cursor_->settled().LearnBatch(At(batch), kMessages);
  for (int batch = 0; batch < kBatches; ++batch) {
    ASSERT_TRUE(cursor_->settled().IsSettled(At(batch, 1)));
    ASSERT_TRUE(cursor_->settled().IsSettled(At(batch, 1999)));
    ASSERT_FALSE(cursor_->settled().IsSettled(At(batch, 1998)));
  }
  client_.LoseReplyToNext(IsMulti);
  ASSERT_TRUE(Await(Settle(even)).ok());
  EXPECT_EQ(cursor_->settled().watermark(), At(kBatches));
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_THAT(ChildrenOf(layout_.Parts(log_)), IsEmpty());
}

// A cursor whose version has come to its end goes on in the next generation, also when the reply of that very write is
// lost, and is found there.
TEST_F(CursorTest, MovesOnToTheNextGeneration) {
  MakeBatches(30, 1);
  cursor_->Abandon();
  cursor_ = Open(3);
  for (int i = 0; i < 30; ++i) cursor_->settled().LearnBatch(At(i), 1);
  for (int i = 0; i < 30; ++i) {
    if (i % 2 == 0) client_.LoseReplyToNext(IsMulti);
    ASSERT_TRUE(Await(Settle({At(i)})).ok()) << i;
  }
  const std::vector<std::string> cursors = ChildrenOf(layout_.Cursors(log_));
  ASSERT_THAT(cursors, SizeIs(1));
  EXPECT_GE(Layout::ParseCursor(cursors[0])->generation, 7u);
  EXPECT_THAT(lost_, IsEmpty());
  Reopen();
  EXPECT_EQ(cursor_->settled().watermark(), At(30));
}

// A damaged cursor is reported with its path, and never overwritten.
TEST_F(CursorTest, DamagedCursorIsReported) {
  MakeBatches(1, 1);
  ASSERT_TRUE(Await(Settle({At(0)})).ok());
  const std::string path = layout_.Cursor(log_, log_, 1);
  environment_.RunTask(other_client_.Set(path, "\xff\xff", zk::kAnyVersion));
  Cursor damaged(environment_, client_, layout_, log_, log_, held_, environment_.MakeStrand(), {});
  const absl::Status loaded = environment_.RunTask(damaged.Load());
  EXPECT_TRUE(HasReason(loaded, Reason::kStoreCorrupt)) << loaded;
  EXPECT_EQ(DetailsOf(loaded).path, path);
}

}  // namespace
}  // namespace postkeeper
