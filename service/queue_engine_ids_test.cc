// A queue's request_ids in a simulated ZooKeeper: a repeat writes nothing and gets the first answer, whatever became of
// the messages and of the owner.
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

class QueueIdsTest : public QueueEngineTest {
 protected:
  using Call = std::shared_ptr<Pending<AppendOutcome>>;

  Call Start(const std::vector<std::string>& texts, std::string id) {
    return StartEnqueue(queue_, MakeAppend(texts, std::move(id)));
  }
  AppendOutcome Await(const Call& call) {
    EXPECT_TRUE(environment_.RunUntil([&] { return call->is_done(); }, minutes(2)));
    return *call->result;
  }
  // The message ids. A deposed owner that finds out by this call says NO_OWNER; then it is repeated, as clients do.
  std::vector<std::string> EnqueueWithId(const std::vector<std::string>& texts, const std::string& id) {
    AppendOutcome outcome = Await(Start(texts, id));
    if (HasReason(outcome.status(), Reason::kNoOwner)) {
      Pass(milliseconds(100));
      outcome = Await(Start(texts, id));
    }
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    if (!outcome.ok()) return {};
    std::vector<std::string> ids;
    for (std::uint32_t i = 0; i < outcome->count; ++i) ids.push_back(outcome->MessageId(i));
    return ids;
  }
  std::vector<std::string> DedupNodes() {
    return environment_.RunTask(observer_.Children(layout_.Dedups(queue_->uid()))).children;
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
  // The process is killed; the next one cannot list the saved ids before it has tried so often.
  void CrashAndBootWithBrokenLooks(int looks_broken) {
    SimulatedReplicaOptions options;
    options.dead_predecessor = replica_->process();
    replica_->Crash();
    queue_.reset();
    dead_.push_back(std::move(replica_));
    replica_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
    looks_broken_ = looks_broken;
    BreakNextLook();
    ASSERT_TRUE(replica_->Start().ok());
    queue_ = replica_->Queue("q", settings_);
  }
  void BreakNextLook() {
    replica_->client().LoseNext([this](const zk::Request& request) {
      if (request.kind != zk::Request::Kind::kChildren || !request.path.ends_with("/dedup")) return false;
      if (--looks_broken_ > 0) asio::post(environment_.executor(), [this] { BreakNextLook(); });
      return true;
    });
  }

  int looks_broken_ = 0;  // still to come
};

// The batch is still in the log after a restart in good order, a crash, or a loss of the log.
TEST_F(QueueIdsTest, RepeatWhileTheBatchLives) {
  ASSERT_TRUE(Enqueue({"before"}).ok());
  const std::vector<std::string> first = EnqueueWithId({"a", "b"}, "id");
  ASSERT_THAT(first, SizeIs(2));
  Restart();
  EXPECT_EQ(EnqueueWithId({"a", "b"}, "id"), first);
  CrashAndBoot();
  EXPECT_EQ(EnqueueWithId({"a", "b"}, "id"), first);
  DeposeOwner();
  EXPECT_EQ(EnqueueWithId({"a", "b"}, "id"), first);
  EXPECT_THAT(EnqueueWithId({"c"}, "other"), SizeIs(1));
  Pass(milliseconds(100));  // a Dequeue takes what is read
  EXPECT_THAT(Texts(Dequeue(10)), ElementsAre("before", "a", "b", "c"));
}

// The batch was settled and deleted before; several owners come and go.
TEST_F(QueueIdsTest, RepeatAfterTheBatchIsDeleted) {
  const std::vector<std::string> first = EnqueueWithId({"a", "b"}, "id");
  const std::vector<std::string> second = EnqueueWithId({"c"}, "id2");
  Empty();
  EXPECT_THAT(DedupNodes(), SizeIs(1));
  for (int round = 0; round < 3; ++round) {
    if (round == 1) {
      Restart();
    } else {
      CrashAndBoot();
    }
    EXPECT_EQ(EnqueueWithId({"a", "b"}, "id"), first);
    EXPECT_EQ(EnqueueWithId({"c"}, "id2"), second);
    EXPECT_EQ(Stats().counts.total(), 0);
  }
}

// Purging deletes batches, too.
TEST_F(QueueIdsTest, RepeatAfterAPurge) {
  const std::vector<std::string> first = EnqueueWithId({"a", "b"}, "id");
  const absl::StatusOr<std::int64_t> purged = RunOn(environment_, queue_, queue_->Purge(true));
  ASSERT_TRUE(purged.ok());
  EXPECT_THAT(BatchesStored(), IsEmpty());
  CrashAndBoot();
  EXPECT_EQ(EnqueueWithId({"a", "b"}, "id"), first);
  EXPECT_EQ(Stats().counts.total(), 0);
}

// The process is killed before it hears the outcome: the repeat gets the answer if the write was in, else it writes.
// A copy of the write that comes later changes nothing.
TEST_F(QueueIdsTest, RepeatAfterACrashWithUnknownOutcome) {
  int written_before = 0;
  for (int round = 0; round < 12; ++round) {
    const std::string text = Cat("m", round);
    const Call call = Start({text}, text);
    environment_.AdvanceBy(std::chrono::microseconds(100 * round));
    CrashAndBoot(static_cast<OnTheWay>(round % 3));
    const Call repeat = Start({text}, text);
    environment_.AdvanceBy(milliseconds(1));
    for (const auto& dead : dead_) dead->client().ReleaseHeld();
    const AppendOutcome outcome = Await(repeat);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    if (outcome->writer.process != replica_->process()) ++written_before;
    EXPECT_EQ(Stats().counts.total(), round + 1) << round;
  }
  EXPECT_GT(written_before, 0);
  EXPECT_LT(written_before, 12);
}

// Past the window the id is free, in the log and in dedup/, which holds nothing then.
TEST_F(QueueIdsTest, TheWindowEnds) {
  const std::vector<std::string> kept = EnqueueWithId({"kept"}, "kept");
  const std::vector<Delivery> held = Dequeue(1, seconds(1), minutes(60));
  const std::vector<std::string> gone = EnqueueWithId({"gone"}, "gone");
  const std::vector<Delivery> got = Dequeue(1, seconds(1));
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(Ack(got[0]), "ok");
  Pass(minutes(5));
  CrashAndBoot();
  EXPECT_EQ(EnqueueWithId({"kept"}, "kept"), kept);
  EXPECT_EQ(EnqueueWithId({"gone"}, "gone"), gone);
  EXPECT_THAT(DedupNodes(), SizeIs(1));
  Pass(minutes(5));
  EXPECT_NE(EnqueueWithId({"kept"}, "kept"), kept);
  Pass(minutes(1));
  EXPECT_THAT(DedupNodes(), IsEmpty());
  CrashAndBoot();
  EXPECT_NE(EnqueueWithId({"gone"}, "gone"), gone);
}

// While a new owner reads the ids, calls with one wait, and nobody else does; dispatching goes on.
TEST_F(QueueIdsTest, CallsWaitUntilTheIdsAreRead) {
  const std::vector<std::string> first = EnqueueWithId({"a"}, "id");
  Empty();
  CrashAndBootWithBrokenLooks(20);  // for longer than an owner behind a crash gives nothing out
  const Call repeat = Start({"a"}, "id");
  const Call fresh = Start({"b"}, "id2");
  EXPECT_TRUE(Enqueue({"c"}).ok());
  EXPECT_GT(looks_broken_, 0);
  EXPECT_FALSE(repeat->is_done());
  EXPECT_FALSE(fresh->is_done());
  EXPECT_THAT(Texts(Dequeue(10, seconds(1))), ElementsAre("c"));
  EXPECT_EQ(Await(repeat)->MessageId(0), first[0]);
  EXPECT_TRUE(Await(fresh).ok());
  EXPECT_EQ(looks_broken_, 0);
  EXPECT_EQ(Stats().counts.total(), 2);
}

// Ids that cannot be read for long keep nobody waiting for ever: the call is told that nothing was written.
TEST_F(QueueIdsTest, CallsDoNotWaitForever) {
  const std::vector<std::string> first = EnqueueWithId({"a"}, "id");
  Empty();
  CrashAndBootWithBrokenLooks(1'000'000);
  const Instant before = environment_.Now();
  const Call repeat = Start({"a"}, "id");
  const AppendOutcome outcome = Await(repeat);
  EXPECT_TRUE(HasReason(outcome.status(), Reason::kNoOwner)) << outcome.status();
  EXPECT_LE(environment_.Now() - before, kOwnerPatience + seconds(1));
  looks_broken_ = 0;
  Pass(seconds(2));
  EXPECT_EQ(EnqueueWithId({"a"}, "id"), first);
  EXPECT_EQ(Stats().counts.total(), 0);
}

// Ids that cannot be read are not made up for: calls with an id are refused until those are past the window, all others
// are served.
TEST_F(QueueIdsTest, DamagedIdsRefuseCallsWithIds) {
  const std::string path = layout_.Dedup(queue_->uid(), 0, 1);
  ASSERT_EQ(environment_.RunTask(observer_.Create(path, "\xff")).code, zk::Code::kOk);
  CrashAndBoot();
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const Instant before = environment_.Now();
  EXPECT_TRUE(HasReason(Enqueue({"b"}, "id"), Reason::kStoreCorrupt));
  EXPECT_LE(environment_.Now() - before, seconds(1));
  EXPECT_EQ(replica_->context().corruptions, 1);
  Pass(minutes(10) + seconds(30));
  EXPECT_TRUE(Enqueue({"b"}, "id").ok());
  EXPECT_THAT(DedupNodes(), IsEmpty());
}

// A queue whose calls have no ids is settled without a word about ids.
TEST_F(QueueIdsTest, NoIdsNoWrites) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  bool is_touched = false;
  ensemble_.SetTreeObserver(
      [&](const zk::TreeEvent& event) { is_touched |= event.path.find("/dedup") != event.path.npos; });
  Empty();
  Pass(minutes(1));
  ensemble_.SetTreeObserver(nullptr);
  EXPECT_FALSE(is_touched);
}

// A deleted queue leaves no ids behind.
TEST_F(QueueIdsTest, DeletedWithTheQueue) {
  EnqueueWithId({"a"}, "id");
  Empty();
  const Uid uid = queue_->uid();
  ASSERT_THAT(DedupNodes(), SizeIs(1));
  ASSERT_TRUE(environment_.RunTask(replica_->broker().Delete({.name = SimulatedReplica::QueueName("q")})).ok());
  Pass(minutes(2));
  EXPECT_EQ(environment_.RunTask(observer_.Exists(layout_.LogData(uid))).code, zk::Code::kNoNode);
}

}  // namespace
}  // namespace postkeeper
