// A queue's engine in a simulated ZooKeeper: what is enqueued is delivered until it is acked, whatever happens to
// leases, consumers, sessions and the process itself.
#include "service/queue_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "postkeeper/storage/v1/records.pb.h"
#include "service/simulated_replica.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using OnTheWay = zk::SimulatedClient::OnTheWay;

class QueueEngineTest : public testing::Test {
 protected:
  QueueEngineTest() : environment_(1), ensemble_(environment_), observer_(ensemble_) { Boot(); }

  ~QueueEngineTest() override {
    queue_.reset();
    dead_.clear();
    replica_.reset();
  }

  // Starts a process and opens the queue.
  void Boot(SimulatedReplicaOptions options = {}) {
    replica_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, std::move(options));
    ASSERT_TRUE(replica_->Start().ok());
    queue_ = replica_->Queue("q", settings_);
  }

  // The process ends in good order and another one starts.
  void Restart() {
    queue_.reset();
    replica_->Stop();
    replica_.reset();
    Boot();
  }

  // The process is killed and another one starts, which knows that the first is dead.
  void CrashAndBoot(OnTheWay on_the_way = OnTheWay::kLost) {
    SimulatedReplicaOptions options;
    options.dead_predecessor = replica_->process();
    replica_->Crash(on_the_way);
    queue_.reset();
    dead_.push_back(std::move(replica_));
    Boot(std::move(options));
  }

  absl::Status Enqueue(const std::vector<std::string>& texts, std::string request_id = "",
                       WallTime due = NewMessage::kNotDelayed) {
    const auto pending = StartEnqueue(queue_, MakeAppend(texts, std::move(request_id), due));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, minutes(2)));
    return pending->result->status();
  }

  using DequeueOutcome = absl::StatusOr<QueueEngine::Dequeued>;
  std::shared_ptr<Pending<DequeueOutcome>> StartDequeue(int messages_max, Duration wait,
                                                        std::shared_ptr<QueueEngine::CallHandle> call = nullptr,
                                                        std::optional<Duration> lease = std::nullopt,
                                                        std::vector<std::string> acks = {}) {
    CheckedDequeue request;
    request.messages_max = messages_max;
    request.bytes_max = 3 << 20;
    request.wait = wait;
    request.lease = lease;
    request.ack_tokens = std::move(acks);
    if (!call) call = std::make_shared<QueueEngine::CallHandle>();
    return StartOn<DequeueOutcome>(queue_, queue_->Dequeue(std::move(request), call));
  }

  std::vector<Delivery> Dequeue(int messages_max = 1000, Duration wait = Duration::zero(),
                                std::optional<Duration> lease = std::nullopt, std::vector<std::string> acks = {}) {
    const auto pending = StartDequeue(messages_max, wait, nullptr, lease, std::move(acks));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, minutes(2)));
    EXPECT_TRUE(pending->result->ok()) << pending->result->status();
    if (!pending->result->ok()) return {};
    EXPECT_THAT((*pending->result)->failures, IsEmpty());
    return std::move((*pending->result)->deliveries);
  }

  absl::StatusOr<std::vector<SettleFailure>> Settle(SettleOrders orders) {
    return RunOn(environment_, queue_, queue_->Settle(std::move(orders)));
  }
  static std::vector<std::string> Tokens(const std::vector<Delivery>& deliveries) {
    std::vector<std::string> tokens;
    for (const Delivery& delivery : deliveries) tokens.push_back(EncodeLeaseToken(delivery.token));
    return tokens;
  }
  // What became of each ack: "ok", "settled", "stale", "malformed", or the error of the whole call.
  std::string Ack(const Delivery& delivery) { return AckToken(EncodeLeaseToken(delivery.token)); }
  std::string AckToken(std::string token) {
    SettleOrders orders;
    orders.ack_tokens.push_back(std::move(token));
    return Word(Settle(std::move(orders)));
  }
  std::string Nack(const Delivery& delivery, std::optional<Duration> delay = std::nullopt,
                   NackKind kind = NackKind::kRetry, std::string reason = "") {
    SettleOrders orders;
    orders.nacks.push_back({{EncodeLeaseToken(delivery.token)}, kind, std::move(reason), delay});
    return Word(Settle(std::move(orders)));
  }
  std::string Extend(const Delivery& delivery, Duration lease) {
    SettleOrders orders;
    orders.extensions.push_back({{EncodeLeaseToken(delivery.token)}, lease});
    return Word(Settle(std::move(orders)));
  }
  static std::string Word(const absl::StatusOr<std::vector<SettleFailure>>& failures) {
    if (!failures.ok()) return std::string(failures.status().message());
    if (failures->empty()) return "ok";
    switch (failures->front().error) {
      case SettleError::kAlreadySettled:
        return "settled";
      case SettleError::kStaleLease:
        return "stale";
      case SettleError::kMalformedToken:
        return "malformed";
      case SettleError::kLeaseLimit:
        return "limit";
    }
    return "?";
  }

  QueueEngine::Stats Stats() {
    const absl::StatusOr<QueueEngine::Stats> stats = RunOn(environment_, queue_, queue_->GetStats());
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.value_or(QueueEngine::Stats{});
  }

  static std::vector<std::string> Texts(const std::vector<Delivery>& deliveries) {
    std::vector<std::string> texts;
    for (const Delivery& delivery : deliveries) texts.emplace_back(delivery.message());
    return texts;
  }

  // A stream that keeps what it gets.
  struct Stream {
    QueueEngine::ConsumerId id = 0;
    std::vector<Delivery> deliveries;
    std::optional<absl::Status> end;
  };
  std::shared_ptr<Stream> OpenStream(CheckedCredit credit, bool is_credit_manual = false, bool keeps_leases = false,
                                     std::optional<Duration> lease = std::nullopt) {
    auto stream = std::make_shared<Stream>();
    CheckedOpen open;
    open.credit = credit;
    open.is_credit_manual = is_credit_manual;
    open.keeps_leases = keeps_leases;
    open.lease = lease;
    PostTo(environment_, queue_, [this, stream, open] {
      QueueEngine::ConsumerCallbacks callbacks;
      callbacks.on_deliveries = [stream](std::vector<Delivery> deliveries, Duration) {
        for (Delivery& delivery : deliveries) stream->deliveries.push_back(std::move(delivery));
      };
      callbacks.on_end = [stream](absl::Status why) { stream->end = std::move(why); };
      const auto id = queue_->AddConsumer(open, std::move(callbacks));
      ASSERT_TRUE(id.ok());
      stream->id = *id;
    });
    return stream;
  }

  std::vector<std::string> BatchesStored() {
    std::vector<std::string> batches;
    const zk::Response segments = environment_.RunTask(observer_.Children(layout_.Segments(queue_->uid())));
    for (const std::string& segment : segments.children) {
      const zk::Response names =
          environment_.RunTask(observer_.Children(Cat(layout_.Segments(queue_->uid()), "/", segment)));
      for (const std::string& name : names.children) batches.push_back(Cat(segment, "/", name));
    }
    return batches;
  }

  // As if another replica had taken the log and given it back: this one is deposed and finds out.
  void DeposeOwner() {
    const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, queue_->uid()));
    ASSERT_TRUE(owner.ok());
    std::vector<zk::Op> ops;
    ops.push_back(LetGoOp(layout_, queue_->uid(), *owner));
    ASSERT_EQ(environment_.RunTask(observer_.Multi(std::move(ops))).code, zk::Code::kOk);
  }

  // Enough traffic and time for all that is due to happen.
  void Pass(Duration time) { environment_.AdvanceBy(time); }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  QueueSettings settings_;
  std::vector<std::unique_ptr<SimulatedReplica>> dead_;
  std::unique_ptr<SimulatedReplica> replica_;
  std::shared_ptr<QueueEngine> queue_;
};

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

// ---- Restarts and faults

// Messages, leases and notes survive a restart: leases that were handed over keep their remaining time and their
// tokens, settled messages never come back.
TEST_F(QueueEngineTest, RestartHandsLeasesOver) {
  ASSERT_TRUE(Enqueue({"a", "b", "c", "d"}).ok());
  const std::vector<Delivery> held = Dequeue(3, Duration::zero(), seconds(20));
  EXPECT_EQ(Ack(held[0]), "ok");
  EXPECT_EQ(Nack(held[2], minutes(10)), "ok");
  Pass(seconds(5));
  Restart();
  const QueueEngine::Stats stats = Stats();
  EXPECT_EQ(stats.counts.ready, 1);
  EXPECT_EQ(stats.counts.leased, 1);
  EXPECT_EQ(stats.counts.delayed, 1);
  EXPECT_THAT(Texts(Dequeue(10)), ElementsAre("d"));
  Pass(seconds(12));
  EXPECT_EQ(Stats().counts.leased, 2);  // b for three seconds more, d for longer
  EXPECT_EQ(Ack(held[1]), "ok");
  EXPECT_EQ(Ack(held[0]), "settled");
  EXPECT_THAT(Dequeue(10, seconds(5)), IsEmpty());
}

// A handed-over lease lapses after its remaining time, and comes again as the next attempt.
TEST_F(QueueEngineTest, HandedOverLeaseLapses) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(20));
  Pass(seconds(5));
  Restart();
  Restart();  // and is handed on
  const std::vector<Delivery> again = Dequeue(1, seconds(30));
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].attempt, 2);
  EXPECT_EQ(Ack(held[0]), "stale");
}

// After a crash the new owner accepts tokens of the epoch before while it has not given the message out; never after.
TEST_F(QueueEngineTest, TokensOfTheEpochBeforeAreAccepted) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> held = Dequeue(2);
  CrashAndBoot();
  EXPECT_EQ(Ack(held[0]), "ok");
  const std::vector<Delivery> again = Dequeue(2, seconds(5));
  ASSERT_THAT(Texts(again), ElementsAre("b"));
  EXPECT_EQ(Ack(held[1]), "stale");
  EXPECT_EQ(Ack(again[0]), "ok");
}

// A first delivery's token of two epochs before is stale: in between the message may have been with somebody else.
TEST_F(QueueEngineTest, TokensOfOlderEpochsAreStale) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> first = Dequeue();
  CrashAndBoot();
  const std::vector<Delivery> second = Dequeue(1, seconds(5));
  ASSERT_THAT(second, SizeIs(1));
  EXPECT_EQ(Nack(second[0], minutes(1)), "ok");
  CrashAndBoot();
  EXPECT_EQ(Ack(first[0]), "stale");
  EXPECT_EQ(Ack(second[0]), "ok");
}

// Delivery numbers, attempts and due times survive a crash.
TEST_F(QueueEngineTest, NotesSurviveACrash) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  std::vector<Delivery> got = Dequeue();
  EXPECT_EQ(Nack(got[0], Duration::zero()), "ok");
  got = Dequeue();
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(got[0].attempt, 2);
  EXPECT_EQ(Nack(got[0], minutes(1)), "ok");
  CrashAndBoot();
  EXPECT_EQ(Stats().counts.delayed, 1);
  got = Dequeue(1, seconds(59));
  if (got.empty()) got = Dequeue(1, seconds(59));
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(got[0].attempt, 3);
}

// The session expires in the middle: the memory is kept, leases and streams live on, and nothing acked comes again.
TEST_F(QueueEngineTest, ExpiredSessionKeepsTheMemory) {
  const auto stream = OpenStream({2, 1 << 20});
  ASSERT_TRUE(Enqueue({"a", "b", "c"}).ok());
  Pass(milliseconds(10));
  ASSERT_THAT(Texts(stream->deliveries), ElementsAre("a", "b"));
  EXPECT_EQ(Ack(stream->deliveries[0]), "ok");
  Pass(milliseconds(10));
  ensemble_.ExpireSession(replica_->client().session().session_id);
  Pass(seconds(5));
  ASSERT_TRUE(queue_->is_serving());
  EXPECT_EQ(Stats().counts.leased, 2);
  EXPECT_EQ(Ack(stream->deliveries[1]), "ok");
  EXPECT_EQ(Ack(stream->deliveries[2]), "ok");
  ASSERT_TRUE(Enqueue({"d"}).ok());
  Pass(milliseconds(100));
  EXPECT_THAT(Texts(stream->deliveries), ElementsAre("a", "b", "c", "d"));
  EXPECT_GT(stream->deliveries[3].token.epoch, stream->deliveries[0].token.epoch);
}

// ZooKeeper is gone: acks and enqueues are answered within two seconds, a waiting Dequeue at its deadline; when it is
// back, all goes on, and what was acked stays acked.
TEST_F(QueueEngineTest, ZookeeperGoneAndBack) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> held = Dequeue(1);
  Pass(minutes(1) - seconds(35));
  ensemble_.Stop();
  Pass(milliseconds(10));
  Instant before = environment_.Now();
  EXPECT_NE(Ack(held[0]), "ok");
  EXPECT_LE(environment_.Now() - before, seconds(2));
  EXPECT_GE(environment_.Now() - before, seconds(1)) << "a short break is waited out";
  before = environment_.Now();
  EXPECT_TRUE(HasReason(Enqueue({"c"}), Reason::kOutcomeUnknown));
  EXPECT_LE(environment_.Now() - before, seconds(2));
  ensemble_.Start();
  Pass(seconds(15));
  EXPECT_EQ(Ack(held[0]), "settled");
  EXPECT_THAT(Texts(Dequeue(10, seconds(5))), ElementsAre("b", "c"));
}

// A message that comes again while ZooKeeper is gone cannot be given out; the call that waits for it ends, and the
// message comes when ZooKeeper is back.
TEST_F(QueueEngineTest, RedeliveryWaitsForZookeeper) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> held = Dequeue(1);
  EXPECT_EQ(Nack(held[0], Duration::zero()), "ok");
  const auto waiting = StartDequeue(1, seconds(5));
  environment_.RunUntilIdle();
  ensemble_.Stop();
  ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(6)));
  ensemble_.Start();
  const std::vector<Delivery> again = Dequeue(1, seconds(20));
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].attempt, 2);
}

// The log is lost to another process and comes back: calls and streams that were about to get messages are not stuck,
// and the streams' credit is not lost.
TEST_F(QueueEngineTest, LosingTheLogLeavesNobodyStuck) {
  const auto stream = OpenStream({2, 1 << 20});
  ASSERT_TRUE(Enqueue({"a", "b", "c"}).ok());
  Pass(milliseconds(10));
  ASSERT_THAT(stream->deliveries, SizeIs(2));
  DeposeOwner();
  // A redelivery is on its way through the cursor when the loss is found out.
  SettleOrders orders;
  orders.nacks.push_back({{EncodeLeaseToken(stream->deliveries[0].token)}, NackKind::kRetry, "", Duration::zero()});
  PostTo(environment_, queue_, [&] { queue_->StopConsumer(stream->id); });
  const auto waiting = StartDequeue(2, seconds(20));
  environment_.RunUntilIdle();
  (void)Settle(std::move(orders));
  const auto waiting_too = StartDequeue(5, seconds(20));
  ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done() && waiting_too->is_done(); }, seconds(30)));
  ASSERT_TRUE(queue_->is_serving());
  const auto other = OpenStream({10, 1 << 20});
  Pass(minutes(2));
  std::map<std::string, int> seen;
  for (const Delivery& delivery : other->deliveries) ++seen[std::string(delivery.message())];
  EXPECT_THAT(seen, SizeIs(3));
}

// A stream lives on over a loss of the log, with all its credit.
TEST_F(QueueEngineTest, CreditSurvivesALossOfTheLog) {
  const auto stream = OpenStream({2, 1 << 20});
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  Pass(milliseconds(10));
  ASSERT_THAT(stream->deliveries, SizeIs(2));
  DeposeOwner();
  EXPECT_NE(Ack(stream->deliveries[0]), "ok");
  Pass(seconds(5));
  ASSERT_TRUE(queue_->is_serving());
  ASSERT_GE(stream->deliveries.size(), 4u);  // both come again
  EXPECT_EQ(Ack(stream->deliveries[2]), "ok");
  EXPECT_EQ(Ack(stream->deliveries[3]), "ok");
  ASSERT_TRUE(Enqueue({"c"}).ok());
  Pass(milliseconds(100));
  EXPECT_EQ(Texts({stream->deliveries.back()}), std::vector<std::string>{"c"});
}

// An engine that is closed while it takes its log leaves nothing behind (the replica's destructor checks it).
TEST_F(QueueEngineTest, ClosedWhileTaking) {
  for (int microseconds : {0, 300, 600, 1200, 2000, 3000}) {
    SimulatedReplica other(environment_, ensemble_);
    ASSERT_TRUE(other.Start().ok());
    const std::shared_ptr<QueueEngine> engine = other.Queue(Cat("other", microseconds));
    Pass(std::chrono::microseconds(microseconds));
    other.Stop();
  }
}

// The reply of a settling write is lost, or the write itself, or a copy of it comes late: the ack is answered OK once,
// and the message is gone.
TEST_F(QueueEngineTest, AcksSurviveBrokenConnections) {
  for (int round = 0; round < 12; ++round) {
    ASSERT_TRUE(Enqueue({"a", "b"}).ok());
    const std::vector<Delivery> got = Dequeue(2, seconds(5));
    ASSERT_THAT(got, SizeIs(2)) << round;
    SettleOrders orders;
    orders.ack_tokens = Tokens(got);
    const auto settled = StartOn<absl::StatusOr<std::vector<SettleFailure>>>(queue_, queue_->Settle(std::move(orders)));
    environment_.AdvanceBy(std::chrono::microseconds(40 * round));
    replica_->client().Disconnect(static_cast<OnTheWay>(round % 3));
    Pass(milliseconds(120));
    replica_->client().ReleaseHeld();
    ASSERT_TRUE(environment_.RunUntil([&] { return settled->is_done(); }, seconds(10)));
    ASSERT_TRUE(settled->result->ok()) << settled->result->status();
    EXPECT_THAT(**settled->result, IsEmpty());
  }
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_EQ(replica_->context().corruptions, 0);
}

// Self-fence: nothing is handed out when ZooKeeper has not answered for two thirds of the session's timeout.
TEST_F(QueueEngineTest, NothingIsHandedOutBlindly) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  replica_->client().SetReachable(false);
  Pass(seconds(6) + milliseconds(900));
  const auto waiting = StartDequeue(1, seconds(1));
  ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(5)));
  EXPECT_TRUE(!waiting->result->ok() || (*waiting->result)->deliveries.empty());
  replica_->client().SetReachable(true);
  EXPECT_THAT(Texts(Dequeue(1, seconds(30))), ElementsAre("a"));
}

}  // namespace
}  // namespace postkeeper
