// What a deposed owner says of its last write, whose reply was lost: OK if and only if it is in.
#include "zkstore/cursor_fate.h"

#include "tests/support/cursor_test.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::IsEmpty;
using testing::SizeIs;

using CursorFateTest = CursorTest;

// A deposed owner whose last write's reply was lost reads the cursor: nobody has written since, so it stands as the
// write left it, and a write that waited behind it was never sent.
TEST_F(CursorFateTest, LastWriteIsFoundWhereNobodyHasWrittenSince) {
  for (const bool is_in : {true, false}) {
    MakeBatches(3, 1);
    ASSERT_TRUE(Await(Settle({At(0)})).ok());
    const Outcome last = LastWrite(At(1), is_in);
    const Outcome behind = Settle({At(2)});
    Depose();
    Reconnect();
    EXPECT_EQ(Fate(last), is_in ? "ok" : "NO_OWNER");
    EXPECT_EQ(Fate(behind), "NO_OWNER");
    EXPECT_EQ(StoredVersion(), is_in ? 1 : 0);
    environment_.RunTask(other_client_.Delete(layout_.Cursor(log_, log_, 1), zk::kAnyVersion));
    held_ = Take(client_, process_);
    Reopen();
  }
  EXPECT_THAT(lost_, SizeIs(2));
}

// The new owner's first write says what it replaced, however often it has written since.
TEST_F(CursorFateTest, LastWriteIsFoundBehindANewOwnersWrites) {
  for (const bool is_in : {true, false}) {
    for (int writes = 1; writes <= 3; ++writes) {
      MakeBatches(2, 1);
      ASSERT_TRUE(Await(Settle({At(0)})).ok());
      const Outcome last = LastWrite(At(1), is_in);
      Succeed(writes);
      Reconnect();
      EXPECT_EQ(Fate(last), is_in ? "ok" : "NO_OWNER") << writes;
      held_ = Take(client_, process_);
      Reopen();
    }
  }
}

// The same for the very first write, which creates the cursor: a new owner creates it, or writes what is there.
TEST_F(CursorFateTest, FirstWriteOfADeposedOwnerIsFound) {
  for (const bool is_in : {true, false}) {
    for (int writes = 0; writes <= 2; ++writes) {
      const Outcome last = LastWrite(At(0), is_in);
      Succeed(writes);
      Reconnect();
      EXPECT_EQ(Fate(last), is_in ? "ok" : "NO_OWNER") << writes;
      for (const std::string& name : ChildrenOf(layout_.Cursors(log_))) {
        environment_.RunTask(other_client_.Delete(Cat(layout_.Cursors(log_), "/", name), zk::kAnyVersion));
      }
      held_ = Take(client_, process_);
      Reopen();
    }
  }
}

// The same where our write, the new owner's, or both move the cursor to its next generation.
TEST_F(CursorFateTest, LastWriteIsFoundAcrossGenerations) {
  for (const bool is_in : {true, false}) {
    for (int before = 1; before <= 5; ++before) {
      for (int writes = 0; writes <= 4; ++writes) {
        cursor_->Abandon();
        held_ = Take(client_, process_);
        cursor_ = Open(3);
        for (int i = 0; i < before; ++i) ASSERT_TRUE(Await(Settle({Position(8, 0, 1)})).ok());
        const Outcome last = LastWrite(At(1), is_in);
        Succeed(writes, 3);
        Reconnect();
        EXPECT_EQ(Fate(last), is_in ? "ok" : "NO_OWNER") << before << " writes before, " << writes << " after";
      }
    }
  }
}

// Past eight epochs nobody knows which of them was the first; that a write is not in can still be told.
TEST_F(CursorFateTest, PastEightEpochsTheLastWriteIsUnknown) {
  for (const int epochs : {7, 8, 9, 12}) {
    for (const bool is_in : {true, false}) {
      for (const std::string& name : ChildrenOf(layout_.Cursors(log_))) {
        environment_.RunTask(other_client_.Delete(Cat(layout_.Cursors(log_), "/", name), zk::kAnyVersion));
      }
      held_ = Take(client_, process_);
      Reopen();
      ASSERT_TRUE(Await(Settle({At(0)})).ok());
      const Outcome last = LastWrite(At(1), is_in);
      for (int i = 0; i < epochs; ++i) Succeed(1);
      Reconnect();
      if (epochs <= 7) {
        EXPECT_EQ(Fate(last), is_in ? "ok" : "NO_OWNER") << epochs;
      } else if (is_in) {
        EXPECT_EQ(Fate(last), "OUTCOME_UNKNOWN") << epochs;
      } else {
        EXPECT_NE(Fate(last), "ok") << epochs;
      }
    }
  }
}

// The engine has heard of the new owner by itself while a write is on its way; its reply still counts, and so does what
// the cursor says when there is none.
TEST_F(CursorFateTest, DeposedWhileAWriteIsOnItsWay) {
  MakeBatches(4, 1);
  Outcome last = Settle({At(0)});
  environment_.RunUntilIdle();
  cursor_->Depose();
  EXPECT_EQ(Fate(last), "ok");
  EXPECT_EQ(Fate(Settle({At(1)})), "NO_OWNER");
  held_ = Take(client_, process_);
  Reopen();
  last = LastWrite(At(1), true);
  cursor_->Depose();
  Depose();
  Reconnect();
  EXPECT_EQ(Fate(last), "ok");
  EXPECT_THAT(lost_, IsEmpty()) << "the engine knew";
}

// A deposed owner that cannot reach ZooKeeper does not keep its calls waiting, and one that can, soon, reads until it
// is answered.
TEST_F(CursorFateTest, PatienceEndsTheSearchForTheLastWrite) {
  MakeBatches(3, 1);
  ASSERT_TRUE(Await(Settle({At(0)})).ok());
  Outcome last = LastWrite(At(1), true);
  Depose();
  cursor_->Depose();
  const Instant before = environment_.Now();
  EXPECT_EQ(Fate(last), "OUTCOME_UNKNOWN");
  EXPECT_LE(environment_.Now() - before, Cursor::kPatience + milliseconds(200));
  Reconnect();
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(*last, SizeIs(1));

  held_ = Take(client_, process_);
  Reopen();
  last = LastWrite(At(2), true);
  Depose();
  Reconnect();
  int reads_lost = 0;
  auto is_read = [&](const zk::Request& request) {
    return request.kind != zk::Request::Kind::kMulti && reads_lost++ < 3;
  };
  for (int i = 0; i < 3; ++i) client_.LoseReplyToNext(is_read);
  EXPECT_EQ(Fate(last), "ok");
  EXPECT_GE(reads_lost, 3);
}

// A cursor that is gone with its log, or that cannot be read, says nothing.
TEST_F(CursorFateTest, NothingIsSaidOfALostCursor) {
  MakeBatches(2, 1);
  ASSERT_TRUE(Await(Settle({At(0)})).ok());
  const Outcome last = LastWrite(At(1), true);
  Depose();
  environment_.RunTask(other_client_.Set(layout_.Cursor(log_, log_, 1), "\xff\xff", zk::kAnyVersion));
  Reconnect();
  EXPECT_EQ(Fate(last), "OUTCOME_UNKNOWN");
}

}  // namespace
}  // namespace postkeeper
