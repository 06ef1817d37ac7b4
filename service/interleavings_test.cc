// Interleavings of two replicas that reviews of the design have found, each tried at many moments. Those of logs,
// cursors and the catalog stand beside that code; docs/TESTING.md lists all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/queue_engine_test.h"

namespace postkeeper {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class InterleavingsTest : public QueueEngineTest {
 protected:
  InterleavingsTest() {
    other_ = std::make_unique<SimulatedReplica>(environment_, ensemble_,
                                                SimulatedReplicaOptions{.address = "127.0.0.1:7412"});
    EXPECT_TRUE(other_->Start().ok());
    others_queue_ = other_->Queue("q", settings_);
  }
  ~InterleavingsTest() override { others_queue_.reset(); }

  // The engine that owns the queue; waits until one of the two does.
  std::shared_ptr<QueueEngine> Owner() {
    EXPECT_TRUE(
        environment_.RunUntil([this] { return queue_->is_serving() || others_queue_->is_serving(); }, seconds(40)));
    return others_queue_->is_serving() ? others_queue_ : queue_;
  }
  // Everything that is ready at that engine, leased for long.
  std::vector<Delivery> Take(const std::shared_ptr<QueueEngine>& engine) {
    CheckedDequeue request;
    request.messages_max = 10;
    request.bytes_max = 1 << 20;
    request.lease = std::chrono::minutes(10);
    const auto call = std::make_shared<QueueEngine::CallHandle>();
    absl::StatusOr<QueueEngine::Dequeued> taken =
        RunOn(environment_, engine, engine->Dequeue(std::move(request), call));
    return taken.ok() ? std::move(taken->deliveries) : std::vector<Delivery>();
  }
  using SettleOutcome = absl::StatusOr<std::vector<SettleFailure>>;
  std::shared_ptr<Pending<SettleOutcome>> StartAck(const std::shared_ptr<QueueEngine>& engine,
                                                   const Delivery& delivery) {
    SettleOrders orders;
    orders.ack_tokens.push_back(EncodeLeaseToken(delivery.token));
    return StartOn<SettleOutcome>(engine, engine->Settle(std::move(orders)));
  }
  void AckAll(const std::shared_ptr<QueueEngine>& engine, const std::vector<Delivery>& deliveries) {
    for (const Delivery& delivery : deliveries) {
      const auto acked = StartAck(engine, delivery);
      ASSERT_TRUE(environment_.RunUntil([&] { return acked->is_done(); }, seconds(30)));
      EXPECT_TRUE(acked->result->ok() && (*acked->result)->empty());
    }
  }

  std::unique_ptr<SimulatedReplica> other_;
  std::shared_ptr<QueueEngine> others_queue_;
};

// Each at another moment.
class TakeOverTest : public InterleavingsTest, public testing::WithParamInterface<int> {
 protected:
  // As the store says. A deposed owner may not know yet.
  std::shared_ptr<QueueEngine> OwnerOfRecord() {
    for (int look = 0; look < 400; ++look) {
      const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, queue_->uid()));
      const bool is_here = owner.ok() && owner->process == replica_->process();
      const std::shared_ptr<QueueEngine> engine = is_here ? queue_ : others_queue_;
      const bool is_owned = owner.ok() && owner->state == OwnerView::State::kProcess;
      if (is_owned && engine->is_serving() && engine->epoch() == owner->epoch) return engine;
      Pass(milliseconds(100));
    }
    ADD_FAILURE() << "nobody takes the queue";
    return queue_;
  }
};

// An owner's ack is on its way while the log is taken from it. If the ack is answered OK, the next owner does not
// deliver the message: it reads the cursor only after no write of the other can come in any more.
TEST_P(TakeOverTest, AnAckRacesATakeOver) {
  const std::shared_ptr<QueueEngine> owner = OwnerOfRecord();
  const auto sent = StartEnqueue(owner, MakeAppend({"m"}));
  ASSERT_TRUE(environment_.RunUntil([&] { return sent->is_done() && sent->result->ok(); }, seconds(10)));
  const std::vector<Delivery> given = Take(owner);
  ASSERT_THAT(given, SizeIs(1));
  // First the one, or first the other.
  std::shared_ptr<Pending<SettleOutcome>> acked;
  if (GetParam() % 2 == 0) acked = StartAck(owner, given[0]);
  Pass(microseconds(70 * (GetParam() / 2)));
  DeposeOwner();
  if (!acked) acked = StartAck(owner, given[0]);
  ASSERT_TRUE(environment_.RunUntil([&] { return acked->is_done(); }, seconds(30)));
  const bool is_ok = acked->result->ok() && (*acked->result)->empty();
  EXPECT_EQ(is_ok, GetParam() % 2 == 0);
  const std::shared_ptr<QueueEngine> next = OwnerOfRecord();
  Pass(milliseconds(200));
  EXPECT_EQ(Take(next).empty(), is_ok);
}

INSTANTIATE_TEST_SUITE_P(Moments, TakeOverTest, testing::Range(0, 24));

// An owner's session expires, and it comes back while another takes the log that seems free: one of the two has it, and
// a lease of the one who lost it settles nothing that the other has given out.
TEST_F(InterleavingsTest, AnExpiredOwnerComesBackWhileAnotherTakesItsLog) {
  int changes = 0;
  for (int round = 0; round < 24; ++round) {
    const std::shared_ptr<QueueEngine> owner = Owner();
    SimulatedReplica& owners = owner == queue_ ? *replica_ : *other_;
    const auto sent = StartEnqueue(owner, MakeAppend({Cat("m", round)}));
    ASSERT_TRUE(environment_.RunUntil([&] { return sent->is_done() && sent->result->ok(); }, seconds(10)));
    const std::vector<Delivery> given = Take(owner);
    ASSERT_THAT(given, SizeIs(1)) << round;
    ensemble_.ExpireSession(owners.client().session().session_id);
    Pass(microseconds(500 * round));
    (owner == queue_ ? others_queue_ : queue_)->LookForOwner();
    Pass(seconds(3));
    EXPECT_NE(queue_->is_serving(), others_queue_->is_serving()) << round;
    const std::shared_ptr<QueueEngine> next = Owner();
    changes += next == owner ? 0 : 1;
    const std::vector<Delivery> again = Take(next);
    EXPECT_EQ(again.size(), next == owner ? 0u : 1u) << round;  // the memory is kept, or the lease is not known
    const auto late = StartAck(next, given[0]);
    ASSERT_TRUE(environment_.RunUntil([&] { return late->is_done(); }, seconds(30)));
    ASSERT_TRUE(late->result->ok());
    EXPECT_EQ((*late->result)->empty(), again.empty()) << round;
    AckAll(next, again);
  }
  EXPECT_GT(changes, 0);
}

// A message is released, uncounted, and given to another consumer: the first one's late ack is refused, since the
// number in the token rises with every giving-out.
TEST_F(InterleavingsTest, AnAckBehindAReleaseSettlesNothing) {
  const std::shared_ptr<QueueEngine> owner = Owner();
  const auto sent = StartEnqueue(owner, MakeAppend({"a"}));
  ASSERT_TRUE(environment_.RunUntil([&] { return sent->is_done(); }, seconds(10)));
  const std::vector<Delivery> first = Take(owner);
  ASSERT_THAT(Texts(first), ElementsAre("a"));
  SettleOrders release;
  release.nacks.push_back({{EncodeLeaseToken(first[0].token)}, NackKind::kRelease, "", std::nullopt});
  ASSERT_TRUE(RunOn(environment_, owner, owner->Settle(std::move(release))).ok());
  const std::vector<Delivery> second = Take(owner);
  ASSERT_THAT(Texts(second), ElementsAre("a"));
  EXPECT_EQ(second[0].attempt, first[0].attempt);
  const auto late = StartAck(owner, first[0]);
  ASSERT_TRUE(environment_.RunUntil([&] { return late->is_done(); }, seconds(10)));
  ASSERT_THAT(**late->result, SizeIs(1));
  EXPECT_EQ((*late->result)->front().error, SettleError::kStaleLease);
  AckAll(owner, second);
}

}  // namespace
}  // namespace postkeeper
