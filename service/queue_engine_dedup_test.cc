// A queue's dedup_ids in a simulated ZooKeeper: a message with a known one is not written, whatever became of the first
// one and of the owner, and a call may have other messages beside it.
#include "tests/support/queue_engine_test.h"
#include "zkstore/dedup_store.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using OnTheWay = zk::SimulatedClient::OnTheWay;

class QueueDedupTest : public QueueEngineTest {
 protected:
  using Call = std::shared_ptr<Pending<AppendOutcome>>;

  // Messages as "text" or "text:dedup_id".
  Call Start(const std::vector<std::string>& messages, const std::string& request_id = "") {
    return StartEnqueue(queue_, MakeAppendWithDedupIds(messages, request_id));
  }
  AppendOutcome Await(const Call& call) {
    EXPECT_TRUE(environment_.RunUntil([&] { return call->is_done(); }, minutes(2)));
    return *call->result;
  }
  // The message ids, and behind them the indexes of the duplicates.
  std::vector<std::string> Put(const std::vector<std::string>& messages, const std::string& request_id = "") {
    AppendOutcome outcome = Await(Start(messages, request_id));
    if (HasReason(outcome.status(), Reason::kNoOwner)) {  // a deposed owner found out; clients repeat
      Pass(milliseconds(100));
      outcome = Await(Start(messages, request_id));
    }
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.ok() ? AnswerOf(*outcome) : std::vector<std::string>();
  }
  std::vector<std::string> Left() {
    Pass(milliseconds(100));  // a Dequeue takes what is read
    return Texts(Dequeue(100));
  }
  // All messages are taken and acked; their batches are gone.
  void Empty() {
    while (true) {
      const std::vector<Delivery> got = Dequeue(100, seconds(1));
      if (got.empty()) break;
      for (const Delivery& delivery : got) EXPECT_EQ(Ack(delivery), "ok");
    }
    EXPECT_THAT(BatchesStored(), IsEmpty());
  }
  // The log changes hands, or this owner its life, in each way.
  void ChangeOwner(int way) {
    if (way == 0) Restart();
    if (way == 1) CrashAndBoot();
    if (way == 2) DeposeOwner();
  }
};

// The batch is still in the log after a restart in good order, a crash, or a loss of the log; the others of a call are
// written.
TEST_F(QueueDedupTest, RepeatWhileTheBatchLives) {
  const std::vector<std::string> first = Put({"a:A", "b", "c:C"});
  ASSERT_THAT(first, SizeIs(3));
  for (int way = -1; way < 3; ++way) {
    ChangeOwner(way);
    EXPECT_THAT(Put({"a:A"}), ElementsAre(first[0], "0")) << way;
    const std::vector<std::string> mixed = Put({Cat("new", way), "c:C", "a:A"});
    ASSERT_THAT(mixed, SizeIs(5)) << way;
    EXPECT_THAT(mixed, ElementsAre(testing::_, first[2], first[0], "1", "2")) << way;
  }
  EXPECT_THAT(Left(), ElementsAre("a", "b", "c", "new-1", "new0", "new1", "new2"));
}

// The first message was settled and its batch deleted, by an ack or a purge; several owners come and go.
TEST_F(QueueDedupTest, RepeatAfterTheBatchIsDeleted) {
  const std::vector<std::string> first = Put({"a:A", "b:B"});
  const std::vector<std::string> second = Put({"c", "d:D"});
  Empty();
  const std::vector<std::string> third = Put({"e:E"});
  EXPECT_EQ(RunOn(environment_, queue_, queue_->Purge(true)).value_or(-1), 1);
  EXPECT_THAT(BatchesStored(), IsEmpty());
  for (int way = 0; way < 3; ++way) {
    ChangeOwner(way);
    EXPECT_THAT(Put({"e:E", "d:D", "b:B", "a:A"}),
                ElementsAre(third[0], second[1], first[1], first[0], "0", "1", "2", "3"))
        << way;
    EXPECT_EQ(Stats().counts.total(), 0);
  }
}

// Past the window the id is free, in the log and in dedup/.
TEST_F(QueueDedupTest, TheWindowEnds) {
  const std::vector<std::string> gone = Put({"gone:G"});
  Empty();
  const std::vector<std::string> kept = Put({"kept:K"});
  Pass(minutes(5));
  CrashAndBoot();
  EXPECT_THAT(Put({"gone:G", "kept:K"}), ElementsAre(gone[0], kept[0], "0", "1"));
  Pass(minutes(5));
  const std::vector<std::string> again = Put({"gone:G", "kept:K"});
  EXPECT_THAT(again, SizeIs(2)) << "no duplicates";
  CrashAndBoot();
  EXPECT_THAT(Put({"kept:K", "gone:G"}), ElementsAre(again[1], again[0], "0", "1"));
  EXPECT_THAT(Left(), ElementsAre("kept", "gone", "kept"));
}

// Of equal ids in one call the first message is written.
TEST_F(QueueDedupTest, EqualIdsInOneCall) {
  const std::vector<std::string> answer = Put({"a:A", "b", "a2:A", "c", "a3:A"});
  ASSERT_THAT(answer, SizeIs(7));
  EXPECT_THAT(answer, ElementsAre(answer[0], answer[1], answer[0], answer[3], answer[0], "2", "4"));
  EXPECT_THAT(Left(), ElementsAre("a", "b", "c"));
}

// A repeat by request_id gets the answer as it was, duplicates and all: also when those are past the window, from
// another owner, and when the batch is deleted.
TEST_F(QueueDedupTest, ARequestIdKeepsTheWholeAnswer) {
  const std::vector<std::string> old = Put({"old:O"});
  Pass(minutes(6));
  const std::vector<std::string> first = Put({"a:A", "old:O", "b", "a:A"}, "r");
  EXPECT_THAT(first, ElementsAre(first[0], old[0], first[2], first[0], "1", "3"));
  EXPECT_EQ(Put({"a:A", "old:O", "b", "a:A"}, "r"), first);
  for (int way = 0; way < 3; ++way) {
    ChangeOwner(way);
    EXPECT_EQ(Put({"a:A", "old:O", "b", "a:A"}, "r"), first) << way;
  }
  CrashAndBoot();  // one that is deposed hears of it only when it writes
  Empty();
  Pass(minutes(5));
  for (int way = 0; way < 3; ++way) {
    ChangeOwner(way);
    EXPECT_EQ(Put({"a:A", "old:O", "b", "a:A"}, "r"), first) << way;
    EXPECT_EQ(Stats().counts.total(), 0);
  }
  EXPECT_THAT(Put({"old:O"}), SizeIs(1)) << "it is past the window";
}

// What is left to be written of a call decides: with nothing left it is answered without a write, also when the queue
// is full.
TEST_F(QueueDedupTest, NothingLeftIsNoWrite) {
  const std::vector<std::string> first = Put({"a:A", "b:B"});
  QueueSettings full = settings_;
  full.max_messages = 2;
  LogEntry entry = queue_->entry();
  entry.settings = full;
  PostTo(environment_, queue_, [&] { queue_->SetEntry(entry); });
  bool is_written = false;
  ensemble_.SetTreeObserver([&](const zk::TreeEvent&) { is_written = true; });
  EXPECT_THAT(Put({"b:B", "a:A"}, "r"), ElementsAre(first[1], first[0], "0", "1"));
  ensemble_.SetTreeObserver(nullptr);
  EXPECT_FALSE(is_written);
  EXPECT_TRUE(HasReason(Await(Start({"b:B", "c:C"})).status(), Reason::kQueueFull));
  PostTo(environment_, queue_, [&] {
    entry.settings = settings_;
    queue_->SetEntry(entry);
  });
  EXPECT_THAT(Put({"b:B", "c:C"}), SizeIs(3)) << "only b is a duplicate: c was refused with its call";
}

// A call with an id that is on its way waits for that batch, and then writes only its own.
TEST_F(QueueDedupTest, WaitsForABatchOnItsWay) {
  const Call first = Start({"a:A", "b"});
  const Call second = Start({"x", "a:A", "y"});
  const Call third = Start({"a:A"});
  const Call fourth = Start({"z:Z"});
  environment_.RunUntilIdle();
  EXPECT_FALSE(first->is_done());
  EXPECT_FALSE(second->is_done());
  EXPECT_FALSE(third->is_done());
  ASSERT_TRUE(Await(first).ok());
  const std::string id = Await(first)->MessageId(0);
  EXPECT_THAT(AnswerOf(*Await(second)), ElementsAre(testing::_, id, testing::_, "1"));
  EXPECT_THAT(AnswerOf(*Await(third)), ElementsAre(id, "0"));
  ASSERT_TRUE(Await(fourth).ok());
  EXPECT_THAT(Left(), testing::UnorderedElementsAre("a", "b", "x", "y", "z"));
}

// The call on its way fails for certain, since ZooKeeper was away before it was sent: the one that waited writes the
// message, once.
TEST_F(QueueDedupTest, WritesWhatTheFirstCouldNot) {
  SimulatedReplicaOptions options;
  options.append = {.in_flight_max = 1, .batch_messages_max = 2};
  queue_.reset();
  replica_->Stop();
  replica_.reset();
  Boot(options);
  ASSERT_TRUE(Enqueue({"before"}).ok());
  const Call sent = Start({"sent", "sent too"});
  const Call first = Start({"a:A", "b"});
  const Call second = Start({"x", "a:A"});
  environment_.AdvanceBy(std::chrono::microseconds(1));
  ensemble_.Stop();
  EXPECT_TRUE(HasReason(Await(first).status(), Reason::kZookeeperUnavailable)) << Await(first).status();
  EXPECT_FALSE(second->is_done());
  ensemble_.Start();
  const AppendOutcome written = Await(second);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->duplicate_count(), 0u);
  EXPECT_THAT(Left(), ElementsAre("before", "sent", "sent too", "x", "a"));
}

// The same, since the log was lost: both are told so, and the message is written once by whoever repeats.
TEST_F(QueueDedupTest, NothingIsWrittenOfALostLog) {
  ASSERT_TRUE(Enqueue({"before"}).ok());
  DeposeOwner();
  const Call first = Start({"a:A", "b"});
  const Call second = Start({"x", "a:A"});
  EXPECT_TRUE(HasReason(Await(first).status(), Reason::kNoOwner)) << Await(first).status();
  EXPECT_TRUE(HasReason(Await(second).status(), Reason::kNoOwner)) << Await(second).status();
  Pass(milliseconds(100));
  EXPECT_THAT(Put({"x", "a:A"}), SizeIs(2)) << "no duplicates";
  EXPECT_THAT(Put({"a:A", "b"}), SizeIs(3)) << "a is one now";
  EXPECT_THAT(Left(), ElementsAre("before", "x", "a", "b"));
}

// Two calls whose messages overlap crosswise do not wait for each other.
TEST_F(QueueDedupTest, CrosswiseCallsDoNotLock) {
  const Call one = Start({"a:A", "b:B"});
  const Call two = Start({"b:B", "c:C"});
  const Call three = Start({"c:C", "a:A", "d:D"});
  for (const Call& call : {one, two, three}) ASSERT_TRUE(Await(call).ok());
  EXPECT_EQ(Await(one)->duplicate_count(), 0u);
  EXPECT_EQ(Await(two)->MessageId(0), Await(one)->MessageId(1));
  EXPECT_EQ(Await(three)->MessageId(1), Await(one)->MessageId(0));
  EXPECT_THAT(Left(), testing::UnorderedElementsAre("a", "b", "c", "d"));
}

// While ZooKeeper has not said whether the first is in, the second call is told OUTCOME_UNKNOWN and writes nothing;
// when it is known, it gets the first one's id.
TEST_F(QueueDedupTest, UnknownIsNotWrittenAgain) {
  ASSERT_TRUE(Enqueue({"before"}).ok());
  const Call lost = Start({"a:A"});
  environment_.RunUntilIdle();
  ensemble_.Stop();
  EXPECT_TRUE(HasReason(Await(lost).status(), Reason::kOutcomeUnknown)) << Await(lost).status();
  EXPECT_TRUE(HasReason(Await(Start({"x", "a:A"})).status(), Reason::kOutcomeUnknown));
  ensemble_.Start();
  Pass(seconds(5));
  EXPECT_THAT(Put({"x", "a:A"}), ElementsAre(testing::_, testing::_, "1"));
  EXPECT_THAT(Left(), ElementsAre("before", "a", "x"));
}

// The process is killed before it hears the outcome: the repeat finds the message if it was in, else it writes. A copy
// of the write that comes later changes nothing.
TEST_F(QueueDedupTest, RepeatAfterACrashWithUnknownOutcome) {
  int written_before = 0;
  for (int round = 0; round < 12; ++round) {
    const std::string message = Cat("m", round, ":", round);
    const Call call = Start({message});
    environment_.AdvanceBy(std::chrono::microseconds(100 * round));
    CrashAndBoot(static_cast<OnTheWay>(round % 3));
    const Call repeat = Start({message});
    environment_.AdvanceBy(milliseconds(1));
    for (const auto& dead : dead_) dead->client().ReleaseHeld();
    const AppendOutcome outcome = Await(repeat);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    written_before += static_cast<int>(outcome->duplicate_count());
    EXPECT_EQ(Stats().counts.total(), round + 1) << round;
  }
  EXPECT_GT(written_before, 0);
  EXPECT_LT(written_before, 12);
}

// Both kinds of ids share one bound; past it a call with new ids is refused, and one whose messages are all known is
// not.
TEST_F(QueueDedupTest, TheBoundIsSharedByBothKinds) {
  SimulatedReplicaOptions options;
  options.limits.request_ids_max = 4;
  queue_.reset();
  replica_->Stop();
  replica_.reset();
  Boot(options);
  ASSERT_THAT(Put({"a:A", "b:B"}, "r"), SizeIs(2));
  ASSERT_THAT(Put({"c:C"}), SizeIs(1));
  EXPECT_TRUE(HasReason(Await(Start({"d:D"})).status(), Reason::kTooManyCalls));
  EXPECT_TRUE(HasReason(Await(Start({"d"}, "s")).status(), Reason::kTooManyCalls));
  EXPECT_THAT(Put({"c:C", "a:A"}), SizeIs(4));
  EXPECT_TRUE(Enqueue({"without"}).ok());
  Pass(minutes(10));
  EXPECT_THAT(Put({"d:D"}, "s"), SizeIs(1));
}

}  // namespace
}  // namespace postkeeper
