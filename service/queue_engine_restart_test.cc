// A queue's engine in a simulated ZooKeeper: what was promised holds over restarts, expired sessions and lost replies.
#include "tests/support/queue_engine_test.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using OnTheWay = zk::SimulatedClient::OnTheWay;

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

// A handed-over lease belongs to the one who had it last: first deliveries of two owners have the same number, and only
// the later one's token settles.
TEST_F(QueueEngineTest, HandedOverLeaseKnowsItsEpoch) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> first = Dequeue(1, Duration::zero(), minutes(5));
  CrashAndBoot();
  const std::vector<Delivery> second = Dequeue(1, seconds(5), minutes(5));
  ASSERT_THAT(second, SizeIs(1));
  ASSERT_EQ(second[0].token.number, first[0].token.number);
  Restart();
  Restart();
  EXPECT_EQ(Ack(first[0]), "stale");
  EXPECT_EQ(Stats().counts.leased, 1);
  EXPECT_EQ(Ack(second[0]), "ok");
}

// The clock of an owner was ahead, and it has given out a message, twice, that is not due by the clock of the next one:
// the lease that was handed over counts all the same.
TEST_F(QueueEngineTest, HandedOverLeaseOutlivesAClockThatWasAhead) {
  replica_->environment().SetWallOffset(minutes(10));
  ASSERT_TRUE(Enqueue({"a"}, "", replica_->environment().WallNow() + seconds(1)).ok());
  ASSERT_THAT(Dequeue(1, seconds(5), seconds(1)), SizeIs(1));
  const std::vector<Delivery> second = Dequeue(1, seconds(5), minutes(5));
  ASSERT_THAT(second, SizeIs(1));
  ASSERT_EQ(second[0].token.number, 2u);
  Restart();
  EXPECT_THAT(Dequeue(1, seconds(1)), IsEmpty());
  EXPECT_EQ(Stats().counts.leased, 1);
  EXPECT_EQ(Ack(second[0]), "ok");
}

// The log is taken again, but the connection breaks before the answer comes: it is taken once more when the connection
// is back, although the session is the same.
TEST_F(QueueEngineTest, RetakingOutlastsALostConnection) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), minutes(5));
  zk::SimulatedClient& client = replica_->client();
  bool is_retaking = false;
  client.LoseReplyToNext([&is_retaking](const zk::Request& request) {
    return is_retaking = request.kind == zk::Request::Kind::kSet && request.path.ends_with("/owner");
  });
  ensemble_.ExpireSession(client.session().session_id);
  ASSERT_TRUE(environment_.RunUntil([&is_retaking] { return is_retaking; }, seconds(30)));
  auto is_cut_off = [&client] { return client.session().state != zk::SessionState::kConnected; };
  ASSERT_TRUE(environment_.RunUntil(is_cut_off, seconds(30)));
  client.SetReachable(false);
  Pass(seconds(1));
  client.SetReachable(true);
  Pass(seconds(5));
  EXPECT_EQ(Ack(held[0]), "ok");
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

// A deposed owner that does not know it yet does not call a lease stale: the next owner may have accepted the token. It
// finds out, and says that it does not own the queue.
TEST_F(QueueEngineTest, DeposedOwnerCallsNoLeaseStale) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> first = Dequeue(1, Duration::zero(), seconds(1));
  ASSERT_THAT(first, SizeIs(1));
  Pass(seconds(2));
  ASSERT_THAT(Dequeue(1, seconds(5)), SizeIs(1));
  EXPECT_EQ(Ack(first.front()), "stale");
  DeposeOwner();
  EXPECT_EQ(Ack(first.front()), "another replica has taken the log");
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
