// Several replicas in a simulated ZooKeeper: each log has the owner it should have, soon after one comes or goes, and
// nothing is lost on the way.
#include "service/balancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "postkeeper/storage/v1/records.pb.h"
#include "tests/support/simulated_replica.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::SizeIs;

constexpr int kQueues = 24;
constexpr Duration kProbation = std::chrono::seconds(30);  // the default
// Until all replicas have heard of a change that a watch tells.
constexpr Duration kSoon = milliseconds(500);
// Until a crashed replica's session has expired, with the server's tick.
constexpr Duration kExpiry = seconds(12);

class BalancerTest : public testing::Test {
 protected:
  BalancerTest() : environment_(1), ensemble_(environment_), observer_(ensemble_), one_(Join(1)) {
    for (int i = 0; i < kQueues; ++i) Create(*one_, Cat("q", i));
  }

  std::unique_ptr<SimulatedReplica> Join(int number) {
    SimulatedReplicaOptions options;
    options.address = Cat("127.0.0.1:", 7000 + number);
    auto replica = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
    EXPECT_TRUE(replica->Start().ok());
    return replica;
  }

  void Create(SimulatedReplica& replica, std::string id) {
    const Name name = SimulatedReplica::QueueName(std::move(id));
    const absl::StatusOr<LogEntry> created = environment_.RunTask(replica.broker().Create(name, QueueSettings()));
    ASSERT_TRUE(created.ok());
    uids_.push_back(created->uid);
  }

  // As the owner records say; those of nobody are not in it.
  std::map<ProcessId, std::set<Uid>> Owners() {
    std::map<ProcessId, std::set<Uid>> owners;
    for (const Uid& uid : uids_) {
      const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, uid));
      if (owner.ok() && owner->state == OwnerView::State::kProcess) owners[owner->process].insert(uid);
    }
    return owners;
  }
  std::set<Uid> OwnedBy(const SimulatedReplica& replica) { return Owners()[replica.process()]; }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  std::vector<Uid> uids_;
  std::unique_ptr<SimulatedReplica> one_;
};

// Whoever creates a queue has it at once, wherever it belongs.
TEST_F(BalancerTest, TheCreatorServesAtOnce) {
  const auto two = Join(2);
  environment_.AdvanceBy(kSoon);
  Create(*two, "late");
  environment_.AdvanceBy(kSoon);
  EXPECT_THAT(OwnedBy(*one_), SizeIs(kQueues));
  EXPECT_THAT(OwnedBy(*two), SizeIs(1));
}

// A replica that joins gets its share when it has been there for a while, and not before; then nothing moves any more.
TEST_F(BalancerTest, ANewReplicaGetsItsShare) {
  environment_.AdvanceBy(minutes(1));
  const auto two = Join(2);
  environment_.AdvanceBy(kProbation - seconds(1));
  EXPECT_THAT(OwnedBy(*one_), SizeIs(kQueues));
  environment_.AdvanceBy(Balancer::kInterval + seconds(5));
  const std::map<ProcessId, std::set<Uid>> owners = Owners();
  ASSERT_THAT(owners, SizeIs(2));
  EXPECT_GE(owners.at(one_->process()).size(), 4u);
  EXPECT_GE(owners.at(two->process()).size(), 4u);
  EXPECT_EQ(owners.at(one_->process()).size() + owners.at(two->process()).size(), std::size_t{kQueues});
  environment_.AdvanceBy(minutes(20));
  EXPECT_EQ(Owners(), owners);
}

// A replica that stops in good order is followed within moments by the ones that remain.
TEST_F(BalancerTest, TheOthersTakeFromOneThatStops) {
  const auto two = Join(2);
  const auto three = Join(3);
  environment_.AdvanceBy(kSoon);
  one_->Stop();
  environment_.AdvanceBy(kSoon);
  const std::map<ProcessId, std::set<Uid>> owners = Owners();
  EXPECT_EQ(owners.count(one_->process()), 0u);
  ASSERT_THAT(owners, SizeIs(2));
  EXPECT_GE(owners.at(two->process()).size(), 4u);
  EXPECT_EQ(owners.at(two->process()).size() + owners.at(three->process()).size(), std::size_t{kQueues});
}

// When one crashes, the others take its logs as soon as its session has expired: also those that nobody but the dead
// one has ever used.
TEST_F(BalancerTest, TheOthersTakeFromOneThatCrashed) {
  const auto two = Join(2);
  const auto three = Join(3);
  environment_.AdvanceBy(seconds(1));
  Create(*one_, "known to nobody else");
  one_->Crash();
  environment_.AdvanceBy(kExpiry);
  const std::map<ProcessId, std::set<Uid>> owners = Owners();
  EXPECT_EQ(owners.count(one_->process()), 0u);
  ASSERT_THAT(owners, SizeIs(2));
  EXPECT_EQ(owners.at(two->process()).size() + owners.at(three->process()).size(), std::size_t{kQueues + 1});
}

// What nobody takes goes on where it was, and is not handed over again soon.
TEST_F(BalancerTest, WhatNobodyTakesComesBack) {
  environment_.AdvanceBy(minutes(1));
  const std::string registration = layout_.Replica(ProcessId::Make(environment_));
  ASSERT_EQ(environment_.RunTask(observer_.Create(registration, "", zk::CreateMode::kEphemeral)).code, zk::Code::kOk);
  environment_.AdvanceBy(kProbation + Balancer::kRest - seconds(10));
  EXPECT_THAT(OwnedBy(*one_), SizeIs(kQueues));
  int handed_over = 0;
  for (const Uid& uid : uids_) {
    const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, uid));
    ASSERT_TRUE(owner.ok());
    // Taken when it was created; perhaps let go, and taken again.
    EXPECT_TRUE(owner->version == 1 || owner->version == 3) << owner->version;
    if (owner->version == 3) ++handed_over;
  }
  EXPECT_GE(handed_over, 4);
}

// A lease outlives the move: its token settles at the new owner, and the message is not given to anybody else.
TEST_F(BalancerTest, LeasesMoveWithTheirQueue) {
  const auto two = Join(2);
  environment_.AdvanceBy(Broker::kDiscoverInterval + kSoon);
  std::shared_ptr<QueueEngine> here = one_->Queue("q0");
  auto sent = StartEnqueue(here, MakeAppend({"held", "free"}));
  ASSERT_TRUE(environment_.RunUntil([&] { return sent->is_done(); }, seconds(5)));
  using DequeueOutcome = absl::StatusOr<QueueEngine::Dequeued>;
  const auto take = [&](const std::shared_ptr<QueueEngine>& engine, int messages_max) {
    CheckedDequeue request{.messages_max = messages_max, .bytes_max = 1 << 20, .lease = minutes(10)};
    return RunOn<DequeueOutcome>(environment_, engine,
                                 engine->Dequeue(std::move(request), std::make_shared<QueueEngine::CallHandle>()));
  };
  const DequeueOutcome held = take(here, 1);
  ASSERT_TRUE(held.ok());
  ASSERT_THAT(held->deliveries, SizeIs(1));

  Spawn(here->strand(), here->HandOver(seconds(5)));
  environment_.AdvanceBy(milliseconds(100));
  storage::v1::HeadRecord head;
  ASSERT_TRUE(head.ParseFromString(environment_.RunTask(observer_.Get(layout_.Head(here->uid()))).data));
  EXPECT_EQ(head.live_messages(), 2);
  const std::shared_ptr<QueueEngine> there = two->Queue("q0");
  ASSERT_TRUE(environment_.RunUntil([&] { return there->is_serving(); }, kSoon));
  const DequeueOutcome rest = take(there, 10);
  ASSERT_TRUE(rest.ok());
  EXPECT_THAT(rest->deliveries, SizeIs(1));
  SettleOrders orders;
  orders.ack_tokens.push_back(EncodeLeaseToken(held->deliveries[0].token));
  const auto settled = RunOn<absl::StatusOr<std::vector<SettleFailure>>>(environment_, there, there->Settle(orders));
  ASSERT_TRUE(settled.ok());
  EXPECT_THAT(*settled, SizeIs(0));
  EXPECT_FALSE(here->is_serving());
}

}  // namespace
}  // namespace postkeeper
