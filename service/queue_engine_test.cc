// A queue's engine in a simulated ZooKeeper: the life of a message, streams, limits and administration.
#include "tests/support/queue_engine_test.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// ---- The plain life of a message

// What was enqueued is delivered in order, once, and is gone from the store when it is acked.
TEST_F(QueueEngineTest, EnqueuedIsDeliveredAckedAndGone) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  ASSERT_TRUE(Enqueue({"c"}).ok());
  const std::vector<Delivery> got = Dequeue();
  EXPECT_THAT(Texts(got), ElementsAre("a", "b", "c"));
  for (const Delivery& delivery : got) EXPECT_EQ(delivery.attempt, 1);
  EXPECT_THAT(Dequeue(), IsEmpty());
  for (const Delivery& delivery : got) EXPECT_EQ(Ack(delivery), "ok");
  EXPECT_EQ(Ack(got[0]), "settled");
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_EQ(Stats().counts.total(), 0);
}

// A Dequeue hands its acks over before it takes the next messages, in one call.
TEST_F(QueueEngineTest, DequeueSettlesFirst) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> first = Dequeue(1);
  const std::vector<Delivery> second = Dequeue(1, Duration::zero(), std::nullopt, Tokens(first));
  EXPECT_THAT(Texts(second), ElementsAre("b"));
  EXPECT_EQ(Ack(first[0]), "settled");
}

// A lease that lapses makes the message ready again, as attempt 2, whose number is in the cursor before the message is
// sent; the first holder's late ack is refused then.
TEST_F(QueueEngineTest, LapsedLeaseComesAgainWithADurableNumber) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> first = Dequeue(1, Duration::zero(), seconds(5));
  ASSERT_THAT(first, SizeIs(1));
  const Instant before = environment_.Now();
  const std::vector<Delivery> second = Dequeue(1, seconds(20));
  ASSERT_THAT(Texts(second), ElementsAre("a"));
  EXPECT_GE(environment_.Now() - before, seconds(4));
  EXPECT_LE(environment_.Now() - before, seconds(6));
  EXPECT_EQ(second[0].attempt, 2);
  EXPECT_EQ(second[0].last_reason, "lease lapsed");
  const zk::Response cursor = environment_.RunTask(observer_.Get(layout_.Cursor(queue_->uid(), queue_->uid(), 1)));
  storage::v1::CursorRecord record;
  ASSERT_TRUE(record.ParseFromString(cursor.data));
  ASSERT_EQ(record.parts_size(), 1);
  EXPECT_EQ(record.parts(0).batches(0).notes(0).number(), 2u);
  EXPECT_EQ(Ack(first[0]), "stale");
  EXPECT_EQ(Ack(second[0]), "ok");
}

// The last holder's ack counts after its deadline as long as nobody else was given the message.
TEST_F(QueueEngineTest, LateAckOfTheLastHolderCounts) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> got = Dequeue(1, Duration::zero(), seconds(1));
  Pass(seconds(3));
  EXPECT_EQ(Stats().counts.ready, 1);
  EXPECT_EQ(Ack(got[0]), "ok");
  EXPECT_THAT(Dequeue(), IsEmpty());
}

// A nacked message waits for its delay or the queue's backoff, and carries the reason.
TEST_F(QueueEngineTest, NackDelaysAndBacksOff) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  std::vector<Delivery> got = Dequeue();
  EXPECT_EQ(Nack(got[0], seconds(7), NackKind::kRetry, "busy"), "ok");
  EXPECT_EQ(Stats().counts.delayed, 1);
  Instant before = environment_.Now();
  got = Dequeue(1, seconds(30));
  ASSERT_THAT(Texts(got), ElementsAre("a"));
  EXPECT_NEAR(std::chrono::duration<double>(environment_.Now() - before).count(), 7, 0.2);
  EXPECT_EQ(got[0].attempt, 2);
  EXPECT_EQ(got[0].last_reason, "busy");
  EXPECT_EQ(Nack(got[0]), "ok");  // 1 s doubled once
  before = environment_.Now();
  got = Dequeue(1, seconds(30));
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_NEAR(std::chrono::duration<double>(environment_.Now() - before).count(), 2, 0.2);
  EXPECT_EQ(got[0].attempt, 3);
}

// A release makes it ready at once and does not count as an attempt.
TEST_F(QueueEngineTest, ReleaseDoesNotCount) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  std::vector<Delivery> got = Dequeue();
  EXPECT_EQ(Nack(got[0], std::nullopt, NackKind::kRelease), "ok");
  got = Dequeue();
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(got[0].attempt, 1);
  EXPECT_EQ(got[0].token.number, 2u);
  EXPECT_EQ(Ack(got[0]), "ok");
}

// A release with a delay does not count either, also if the queue changes its process meanwhile.
TEST_F(QueueEngineTest, ReleaseWithDelayDoesNotCount) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  std::vector<Delivery> got = Dequeue();
  EXPECT_EQ(Nack(got[0], seconds(2), NackKind::kRelease), "ok");
  EXPECT_THAT(Dequeue(), IsEmpty());
  Restart();
  got = Dequeue(1, seconds(30));
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(got[0].attempt, 1);
  EXPECT_EQ(got[0].token.number, 2u);
  EXPECT_EQ(Ack(got[0]), "ok");
}

// A nack without delay while a consumer waits gives the message out at once; the later number stays the stored one.
TEST_F(QueueEngineTest, NackAtOnceKeepsTheLaterNumberStored) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> got = Dequeue();
  const auto waiting = StartDequeue(1, seconds(20));
  Pass(milliseconds(10));
  EXPECT_EQ(Nack(got[0], Duration::zero()), "ok");
  ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(5)));
  ASSERT_THAT((*waiting->result)->deliveries, SizeIs(1));
  EXPECT_EQ((*waiting->result)->deliveries[0].attempt, 2);
  Pass(seconds(1));
  const zk::Response cursor = environment_.RunTask(observer_.Get(layout_.Cursor(queue_->uid(), queue_->uid(), 1)));
  storage::v1::CursorRecord record;
  ASSERT_TRUE(record.ParseFromString(cursor.data));
  ASSERT_EQ(record.parts_size(), 1);
  EXPECT_EQ(record.parts(0).batches(0).notes(0).number(), 2u);
  EXPECT_EQ(record.parts(0).batches(0).notes(0).attempts(), 2u);
}

// An extended lease lasts from the moment of the Extend.
TEST_F(QueueEngineTest, ExtendMovesTheDeadline) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> got = Dequeue(1, Duration::zero(), seconds(5));
  Pass(seconds(4));
  EXPECT_EQ(Extend(got[0], seconds(5)), "ok");
  Pass(seconds(4));
  EXPECT_EQ(Stats().counts.leased, 1);
  Pass(seconds(2));
  EXPECT_EQ(Stats().counts.ready, 1);
  EXPECT_EQ(Extend(got[0], std::chrono::hours(13)), "limit");
}

// A delayed message is not delivered before it is due.
TEST_F(QueueEngineTest, DelayedMessagesWait) {
  const WallTime due = environment_.WallNow() + seconds(10);
  ASSERT_TRUE(Enqueue({"later"}, "", due).ok());
  ASSERT_TRUE(Enqueue({"now"}).ok());
  EXPECT_THAT(Texts(Dequeue()), ElementsAre("now"));
  EXPECT_EQ(Stats().counts.delayed, 1);
  EXPECT_THAT(Texts(Dequeue(1, seconds(30))), ElementsAre("later"));
  EXPECT_GE(environment_.WallNow(), due);
}

// ---- Waiting

// A long poll is answered when a message comes, and empty at the end of its wait.
TEST_F(QueueEngineTest, LongPollWakes) {
  const auto waiting = StartDequeue(10, seconds(20));
  Pass(seconds(3));
  EXPECT_FALSE(waiting->is_done());
  ASSERT_TRUE(Enqueue({"a"}).ok());
  Pass(milliseconds(5));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_THAT(Texts((*waiting->result)->deliveries), ElementsAre("a"));
  const Instant before = environment_.Now();
  EXPECT_THAT(Dequeue(1, seconds(7)), IsEmpty());
  EXPECT_NEAR(std::chrono::duration<double>(environment_.Now() - before).count(), 7, 0.1);
}

// Calls that wait get equal shares.
TEST_F(QueueEngineTest, WaitingCallsShare) {
  std::vector<std::shared_ptr<Pending<DequeueOutcome>>> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(StartDequeue(100, seconds(20)));
  Pass(milliseconds(100));
  ASSERT_TRUE(Enqueue({"a", "b", "c", "d"}).ok());
  Pass(milliseconds(10));
  for (const auto& call : waiting) {
    ASSERT_TRUE(call->is_done());
    EXPECT_THAT((*call->result)->deliveries, SizeIs(1));
  }
}

// A cancelled call gets nothing, and what it had been given is ready at once as the same attempt.
TEST_F(QueueEngineTest, CancelledCallReleasesUncounted) {
  auto call = std::make_shared<QueueEngine::CallHandle>();
  auto waiting = StartDequeue(1, seconds(20), call);
  Pass(seconds(1));
  call->Cancel();
  Pass(milliseconds(1));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kCallCancelled));

  // Cancelled while its messages are on the way from the cursor's write.
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> first = Dequeue();
  call = std::make_shared<QueueEngine::CallHandle>();
  EXPECT_EQ(Nack(first[0], Duration::zero()), "ok");
  waiting = StartDequeue(1, seconds(20), call);
  environment_.RunUntilIdle();
  EXPECT_FALSE(waiting->is_done());
  call->Cancel();
  Pass(seconds(1));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kCallCancelled));
  EXPECT_EQ(Stats().counts.ready, 1);
  const std::vector<Delivery> again = Dequeue();
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].attempt, 2);
}

// ---- Streams

// With automatic credit a delivery's credit comes back when it is settled or lapses.
TEST_F(QueueEngineTest, AutomaticCreditComesBack) {
  const auto stream = OpenStream({2, 1 << 20}, false, false, seconds(5));
  ASSERT_TRUE(Enqueue({"a", "b", "c", "d", "e"}).ok());
  Pass(milliseconds(10));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b"));
  EXPECT_EQ(Ack(stream->deliveries[0]), "ok");
  Pass(milliseconds(10));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b", "c"));
  EXPECT_EQ(Nack(stream->deliveries[1], minutes(5)), "ok");
  Pass(milliseconds(10));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b", "c", "d"));
  Pass(seconds(6));  // c and d lapse, and come again first
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b", "c", "d", "c", "d"));
}

// With manual credit nothing comes back by itself.
TEST_F(QueueEngineTest, ManualCreditIsSpent) {
  const auto stream = OpenStream({1, 1 << 20}, true);
  ASSERT_TRUE(Enqueue({"a", "b", "c"}).ok());
  Pass(milliseconds(10));
  EXPECT_EQ(Ack(stream->deliveries.at(0)), "ok");
  Pass(seconds(1));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a"));
  PostTo(environment_, queue_, [&] { EXPECT_TRUE(queue_->AddCredit(stream->id, {2, 1 << 20}).ok()); });
  Pass(milliseconds(10));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b", "c"));
}

// Bytes are credit too; the last message may exceed it.
TEST_F(QueueEngineTest, CreditCountsBytes) {
  const auto stream = OpenStream({100, 25}, true);
  ASSERT_TRUE(Enqueue({"0123456789", "0123456789", "0123456789", "0123456789"}).ok());
  Pass(milliseconds(10));
  EXPECT_LE(stream->deliveries.size(), 3u);
  EXPECT_GE(stream->deliveries.size(), 2u);
}

// A drained stream gets no more; what it holds is released uncounted when it is closed, and its credit leaves no trace.
TEST_F(QueueEngineTest, DrainedStreamReleasesWhatIsLeft) {
  const auto stream = OpenStream({10, 1 << 20});
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  Pass(milliseconds(10));
  PostTo(environment_, queue_, [&] { queue_->StopConsumer(stream->id); });
  ASSERT_TRUE(Enqueue({"c"}).ok());
  Pass(milliseconds(10));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b"));
  EXPECT_EQ(Ack(stream->deliveries[0]), "ok");
  PostTo(environment_, queue_, [&] { queue_->RemoveConsumer(stream->id, true); });
  const std::vector<Delivery> rest = Dequeue();
  ASSERT_THAT(Texts(rest), ElementsAre("b", "c"));
  EXPECT_EQ(rest[0].attempt, 1);
}

// A broken stream releases nothing: its tokens stay good, its leases lapse.
TEST_F(QueueEngineTest, BrokenStreamKeepsItsLeases) {
  const auto stream = OpenStream({10, 1 << 20}, false, false, seconds(5));
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  Pass(milliseconds(10));
  PostTo(environment_, queue_, [&] { queue_->RemoveConsumer(stream->id, false); });
  EXPECT_THAT(Dequeue(), IsEmpty());
  EXPECT_EQ(Ack(stream->deliveries[0]), "ok");
  EXPECT_THAT(Texts(Dequeue(10, seconds(20))), ElementsAre("b"));
}

// keep_leases: the leases do not lapse while the stream lives.
TEST_F(QueueEngineTest, KeptLeasesDoNotLapse) {
  const auto stream = OpenStream({10, 1 << 20}, false, true, seconds(5));
  ASSERT_TRUE(Enqueue({"a"}).ok());
  Pass(seconds(2));
  ASSERT_TRUE(Enqueue({"b"}).ok());
  Pass(minutes(2));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b"));
  EXPECT_EQ(Stats().counts.leased, 2);
  PostTo(environment_, queue_, [&] { queue_->RemoveConsumer(stream->id, false); });
  Pass(seconds(10));
  EXPECT_EQ(Stats().counts.ready, 2);
}

// ---- Limits and administration

// A full queue refuses, by messages and by bytes, and has room again after an ack.
TEST_F(QueueEngineTest, FullQueueRefuses) {
  settings_.max_messages = 3;
  settings_.max_bytes = 100;
  queue_ = replica_->Queue("small", settings_);
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  EXPECT_TRUE(HasReason(Enqueue({"c", "d"}), Reason::kQueueFull));
  ASSERT_TRUE(Enqueue({"c"}).ok());
  EXPECT_TRUE(HasReason(Enqueue({"d"}), Reason::kQueueFull));
  EXPECT_EQ(Ack(Dequeue(1)[0]), "ok");
  EXPECT_TRUE(HasReason(Enqueue({std::string(99, 'x')}), Reason::kQueueFull));
  EXPECT_TRUE(Enqueue({std::string(98, 'x')}).ok());
}

// Purge takes what is ready and delayed, leaves what is leased unless told otherwise, and is durable.
TEST_F(QueueEngineTest, PurgeIsDurable) {
  ASSERT_TRUE(Enqueue({"a", "b", "c"}).ok());
  ASSERT_TRUE(Enqueue({"d"}, "", environment_.WallNow() + minutes(1)).ok());
  const std::vector<Delivery> held = Dequeue(1);
  absl::StatusOr<std::int64_t> purged = RunOn(environment_, queue_, queue_->Purge(false));
  EXPECT_EQ(purged.value_or(-1), 3);
  EXPECT_EQ(Stats().counts.leased, 1);
  CrashAndBoot();
  EXPECT_THAT(Texts(Dequeue(10, seconds(2))), ElementsAre("a"));
  purged = RunOn(environment_, queue_, queue_->Purge(true));
  EXPECT_EQ(purged.value_or(-1), 1);
  EXPECT_EQ(Ack(held[0]), "settled");
  EXPECT_THAT(BatchesStored(), IsEmpty());
}

// A purge right after a restart purges what has not been read yet, too; and stats count it.
TEST_F(QueueEngineTest, PurgeAndStatsRightAfterARestartSeeEverything) {
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Enqueue({"x"}).ok());
  Restart();
  EXPECT_EQ(Stats().counts.ready, 100);
  Restart();
  EXPECT_EQ(RunOn(environment_, queue_, queue_->Purge(true)).value_or(-1), 100);
}

// A repeat of a call with the same request_id gets the first answer, whether that is known, on its way, or was unknown
// for a while; nothing is written twice.
TEST_F(QueueEngineTest, RepeatedRequestIdIsWrittenOnce) {
  const auto first = StartEnqueue(queue_, MakeAppend({"a"}, "id"));
  const auto second = StartEnqueue(queue_, MakeAppend({"a"}, "id"));
  ASSERT_TRUE(environment_.RunUntil([&] { return first->is_done() && second->is_done(); }, seconds(5)));
  ASSERT_TRUE(first->result->ok());
  EXPECT_EQ((*first->result)->MessageId(0), (*second->result)->MessageId(0));
  EXPECT_TRUE(Enqueue({"a"}, "id").ok());
  EXPECT_EQ(Stats().counts.ready, 1);

  const auto lost = StartEnqueue(queue_, MakeAppend({"b"}, "id2"));
  environment_.RunUntilIdle();
  ensemble_.Stop();
  ASSERT_TRUE(environment_.RunUntil([&] { return lost->is_done(); }, seconds(5)));
  EXPECT_TRUE(HasReason(lost->result->status(), Reason::kOutcomeUnknown)) << lost->result->status();
  EXPECT_TRUE(HasReason(Enqueue({"b"}, "id2"), Reason::kOutcomeUnknown));
  ensemble_.Start();
  Pass(seconds(5));
  EXPECT_TRUE(Enqueue({"b"}, "id2").ok());
  EXPECT_EQ(Stats().counts.ready, 2);
}

// Deleting ends streams and calls that wait with QUEUE_NOT_FOUND, and so are later calls; the name is free.
TEST_F(QueueEngineTest, DeleteEndsConsumers) {
  const auto stream = OpenStream({10, 1 << 20});
  const auto waiting = StartDequeue(1, seconds(20));
  Pass(seconds(1));
  const absl::Status deleted =
      environment_.RunTask(replica_->broker().Delete({.name = SimulatedReplica::QueueName("q")}));
  ASSERT_TRUE(deleted.ok()) << deleted;
  Pass(milliseconds(10));
  ASSERT_TRUE(stream->end);
  EXPECT_TRUE(HasReason(*stream->end, Reason::kQueueNotFound));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kQueueNotFound));
  const absl::Status enqueued = Enqueue({"late"});
  EXPECT_TRUE(HasReason(enqueued, Reason::kQueueNotFound)) << enqueued;
  queue_ = replica_->Queue("q");
  ASSERT_TRUE(Enqueue({"new"}).ok());
  EXPECT_THAT(Texts(Dequeue()), ElementsAre("new"));
}

// A lease token of the deleted queue is refused by the queue of the same name that came after it.
TEST_F(QueueEngineTest, TokensOfADeletedQueueAreRefused) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> old = Dequeue();
  ASSERT_TRUE(environment_.RunTask(replica_->broker().Delete({.name = SimulatedReplica::QueueName("q")})).ok());
  queue_ = replica_->Queue("q");
  ASSERT_TRUE(Enqueue({"b"}).ok());
  const std::vector<Delivery> got = Dequeue();
  EXPECT_EQ(Ack(old[0]), "malformed");
  EXPECT_EQ(AckToken("t-nonsense"), "malformed");
  EXPECT_EQ(Ack(got[0]), "ok");
}

// A token that was made up, of a message that its batch does not have, does not cost a message that is there.
TEST_F(QueueEngineTest, MadeUpTokensLoseNothing) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> got = Dequeue();
  LeaseToken made_up = got[0].token;
  made_up.position = Position(made_up.position.segment(), made_up.position.batch(), 7);
  AckToken(EncodeLeaseToken(made_up));
  made_up.position = Position(made_up.position.segment(), made_up.position.batch() + 1, 0);
  EXPECT_EQ(AckToken(EncodeLeaseToken(made_up)), "malformed");
  made_up.position = Position(0, 5, 0);
  AckToken(EncodeLeaseToken(made_up));
  EXPECT_EQ(Ack(got[0]), "ok");
  EXPECT_THAT(BatchesStored(), SizeIs(1));
  CrashAndBoot();
  EXPECT_THAT(Texts(Dequeue(10, seconds(5))), ElementsAre("b"));
}

// ---- Segments

// A long log over many segments is read to its end after a restart and by a second reign, with nothing passed over.
TEST_F(QueueEngineTest, ManySegmentsAreReadWhole) {
  queue_.reset();
  replica_->Stop();
  SimulatedReplicaOptions options;
  options.append.segment_batches_max = 2;
  options.append.batch_messages_max = 1;
  options.cache_bytes = 1;  // all is read from the store
  replica_.reset();
  Boot(options);
  std::vector<std::string> expected;
  std::vector<std::shared_ptr<Pending<AppendOutcome>>> calls;
  for (int i = 0; i < 400; ++i) {
    expected.push_back(Cat("m", i));
    calls.push_back(StartEnqueue(queue_, MakeAppend({expected.back()})));
  }
  for (const auto& call : calls) {
    ASSERT_TRUE(environment_.RunUntil([&] { return call->is_done(); }, minutes(2)));
    ASSERT_TRUE(call->result->ok());
  }
  const std::size_t segments_written =
      environment_.RunTask(observer_.Children(layout_.Segments(queue_->uid()))).children.size();
  ASSERT_GT(segments_written, 70u) << "more than a reader remembers";
  // Another process takes the log away for a moment, so that this one reads it again from the front.
  DeposeOwner();
  std::vector<Delivery> got = Dequeue(1000);
  const auto acked = Settle({.ack_tokens = Tokens(got)});  // finds out that the log is lost
  ASSERT_TRUE(environment_.RunUntil([this] { return queue_->is_serving(); }, seconds(20)));
  Pass(seconds(5));
  EXPECT_EQ(replica_->context().corruptions, 0);
  got = Dequeue(1000, seconds(5));
  EXPECT_EQ(Texts(got), expected);
  const auto settled = Settle({.ack_tokens = Tokens(got)});
  ASSERT_TRUE(settled.ok()) << settled.status();
  EXPECT_THAT(*settled, IsEmpty());
  Pass(seconds(10));
  // All segments but the last are removed.
  const zk::Response segments = environment_.RunTask(observer_.Children(layout_.Segments(queue_->uid())));
  EXPECT_LE(segments.children.size(), 2u);
}

}  // namespace
}  // namespace postkeeper
