// One owner per log: who may take it, and that whoever had it before can write nothing more.
#include "zkstore/owner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/catalog.h"
#include "zkstore/errors.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using OnTheWay = zk::SimulatedClient::OnTheWay;

class OwnerTest : public testing::Test {
 protected:
  OwnerTest() : environment_(1), ensemble_(environment_), client_(ensemble_), other_client_(ensemble_) {
    environment_.AdvanceBy(seconds(1));
    Catalog catalog(environment_, client_, layout_);
    EXPECT_TRUE(environment_.RunTask(catalog.Open()).ok());
    LogName name{LogKind::kQueue, "default", "q"};
    absl::StatusOr<Catalog::Created> created = environment_.RunTask(catalog.Create(name, QueueSettings()));
    EXPECT_TRUE(created.ok());
    log_ = created->entry.uid;
    me_ = ProcessId::Make(environment_);
    other_ = ProcessId::Make(environment_);
    Register(client_, me_);
    Register(other_client_, other_);
  }

  void Register(zk::Client& client, const ProcessId& process) {
    EXPECT_EQ(environment_.RunTask(client.Create(layout_.Replica(process), "", zk::CreateMode::kEphemeral)).code,
              zk::Code::kOk);
  }
  absl::StatusOr<OwnerView> Take(zk::Client& client, const ProcessId& process, std::string address = "here:1",
                                 TakeOptions options = {}) {
    return environment_.RunTask(TakeOwnership(client, layout_, log_, process, std::move(address), std::move(options)));
  }
  // As the owner does whose session has expired.
  absl::StatusOr<OwnerView> Retake(zk::Client& client, const ProcessId& process) {
    return Take(client, process, "here:1", {.keeps_reign = true});
  }
  void LetGo(const OwnerView& held) {
    std::vector<zk::Op> ops;
    ops.push_back(LetGoOp(layout_, log_, held));
    ASSERT_EQ(environment_.RunTask(client_.Multi(std::move(ops))).code, zk::Code::kOk);
  }
  Task<void> TakeInto(std::optional<absl::StatusOr<OwnerView>>& outcome) {
    std::string address = "here:1";
    TakeOptions options;
    outcome = co_await TakeOwnership(client_, layout_, log_, me_, address, options);
  }
  absl::StatusOr<OwnerView> Read() { return environment_.RunTask(ReadOwner(client_, layout_, log_)); }
  // A write on the log's behalf, by this owner.
  zk::Code WriteAs(zk::Client& client, const OwnerView& owner) {
    std::vector<zk::Op> ops;
    ops.push_back(zk::Op::Check(layout_.Owner(log_), owner.version));
    ops.push_back(zk::Op::Set(layout_.Head(log_), "", zk::kAnyVersion));
    return environment_.RunTask(client.Multi(std::move(ops))).code;
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient client_;
  zk::SimulatedClient other_client_;
  const Layout layout_{"/postkeeper"};
  Uid log_;
  ProcessId me_;
  ProcessId other_;
};

// A new log belongs to nobody, and the first who takes it begins epoch 1.
TEST_F(OwnerTest, NewLogIsFree) {
  EXPECT_EQ(Read()->state, OwnerView::State::kNobody);
  const absl::StatusOr<OwnerView> taken = Take(client_, me_);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->epoch, 1);
  const absl::StatusOr<OwnerView> read = Read();
  EXPECT_EQ(read->state, OwnerView::State::kProcess);
  EXPECT_EQ(read->process, me_);
  EXPECT_EQ(read->address, "here:1");
  EXPECT_EQ(read->version, taken->version);
  EXPECT_EQ(WriteAs(client_, *taken), zk::Code::kOk);
}

// A live owner keeps what it has; the refusal names its address.
TEST_F(OwnerTest, LiveOwnerKeepsTheLog) {
  ASSERT_TRUE(Take(client_, me_, "here:1").ok());
  const absl::Status refused = Take(other_client_, other_).status();
  EXPECT_TRUE(HasReason(refused, Reason::kNoOwner)) << refused;
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("here:1"));
}

// When the owner's session has expired, another takes the log in the next epoch, and no write of the first succeeds.
TEST_F(OwnerTest, DeposedOwnerWritesNothing) {
  const absl::StatusOr<OwnerView> mine = Take(client_, me_);
  ensemble_.ExpireSession(client_.session().session_id);
  environment_.AdvanceBy(milliseconds(1));
  const absl::StatusOr<OwnerView> others = Take(other_client_, other_);
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_EQ(others->epoch, mine->epoch + 1);
  environment_.AdvanceBy(seconds(2));
  EXPECT_EQ(WriteAs(client_, *mine), zk::Code::kBadVersion);
  EXPECT_EQ(WriteAs(other_client_, *others), zk::Code::kOk);
  Register(client_, me_);
  EXPECT_TRUE(HasReason(Take(client_, me_).status(), Reason::kNoOwner));
}

// A process takes its own log again under a new session, in the next epoch.
TEST_F(OwnerTest, OwnLogIsTakenAgain) {
  const absl::StatusOr<OwnerView> first = Take(client_, me_);
  ensemble_.ExpireSession(client_.session().session_id);
  environment_.AdvanceBy(seconds(2));
  const absl::StatusOr<OwnerView> second = Take(client_, me_);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->epoch, first->epoch + 1);
  EXPECT_EQ(WriteAs(client_, *first), zk::Code::kBadVersion);
  EXPECT_EQ(WriteAs(client_, *second), zk::Code::kOk);
}

// The reply of the taking is lost: that is said, and the repetition succeeds.
TEST_F(OwnerTest, LostReplyIsRepeated) {
  client_.LoseReplyToNext([](const zk::Request& request) { return request.kind == zk::Request::Kind::kSet; });
  EXPECT_TRUE(HasReason(Take(client_, me_).status(), Reason::kZookeeperUnavailable));
  environment_.AdvanceBy(seconds(1));
  const absl::StatusOr<OwnerView> taken = Take(client_, me_);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(WriteAs(client_, *taken), zk::Code::kOk);
}

// A copy of the taking that was held back in the network changes nothing once another has the log.
TEST_F(OwnerTest, LateCopyOfATakingChangesNothing) {
  client_.HoldNext([](const zk::Request& request) { return request.kind == zk::Request::Kind::kSet; });
  std::optional<absl::StatusOr<OwnerView>> mine;
  Spawn(environment_.executor(), TakeInto(mine));
  environment_.AdvanceBy(milliseconds(10));
  client_.Disconnect(OnTheWay::kHeld);
  environment_.AdvanceBy(milliseconds(200));
  const absl::StatusOr<OwnerView> others = Take(other_client_, other_);
  ASSERT_TRUE(others.ok());
  client_.ReleaseHeld();
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(mine.has_value());
  EXPECT_EQ(Read()->process, other_);
  EXPECT_EQ(WriteAs(other_client_, *others), zk::Code::kOk);
}

// A log that was given back can be taken at once; its epochs go on.
TEST_F(OwnerTest, LettingGoFreesTheLog) {
  const absl::StatusOr<OwnerView> mine = Take(client_, me_);
  std::vector<zk::Op> ops;
  ops.push_back(LetGoOp(layout_, log_, *mine));
  ASSERT_EQ(environment_.RunTask(client_.Multi(std::move(ops))).code, zk::Code::kOk);
  EXPECT_EQ(WriteAs(client_, *mine), zk::Code::kBadVersion);
  const absl::StatusOr<OwnerView> others = Take(other_client_, other_);
  ASSERT_TRUE(others.ok());
  EXPECT_EQ(others->epoch, 2);
}

// A new session adds an epoch to the reign; who comes next knows all epochs of the reign before.
TEST_F(OwnerTest, AReignHasAnEpochForEachSession) {
  ASSERT_EQ(Take(client_, me_)->first_epoch, 1);
  ASSERT_EQ(Retake(client_, me_)->first_epoch, 1);
  const absl::StatusOr<OwnerView> mine = Retake(client_, me_);
  EXPECT_EQ(mine->epoch, 3);
  EXPECT_EQ(mine->first_epoch, 1);
  LetGo(*mine);
  const absl::StatusOr<OwnerView> others = Take(other_client_, other_);
  EXPECT_EQ(others->first_epoch, 4);
  EXPECT_EQ(others->first_epoch_before, 1);
  EXPECT_FALSE(others->was_let_down);
  const absl::StatusOr<OwnerView> others_again = Retake(other_client_, other_);
  EXPECT_EQ(others_again->first_epoch, 4);
  EXPECT_EQ(others_again->first_epoch_before, 1);
}

// A take whose reply was lost, or that led to nothing, is no reign: the one before it is still that of the process that
// served. One that has served is.
TEST_F(OwnerTest, OnlyWhoServedHadAReign) {
  const absl::StatusOr<OwnerView> mine = Take(client_, me_);
  LetGo(*mine);
  ASSERT_EQ(Take(other_client_, other_, "here:1", {.taker = 7})->first_epoch_before, 1);
  const absl::StatusOr<OwnerView> again = Take(other_client_, other_, "here:1", {.taker = 7});
  EXPECT_EQ(again->first_epoch, 3);
  EXPECT_EQ(again->first_epoch_before, 1);
  const absl::StatusOr<OwnerView> served = Take(other_client_, other_, "here:1", {.taker = 7, .served_reign = 3});
  EXPECT_EQ(served->first_epoch, 4);
  EXPECT_EQ(served->first_epoch_before, 3);
  // Nobody knows what another object of the process has done with it.
  const absl::StatusOr<OwnerView> by_another = Take(other_client_, other_, "here:1", {.taker = 8});
  EXPECT_EQ(by_another->first_epoch, 5);
  EXPECT_EQ(by_another->first_epoch_before, 4);
}

// An owner that has given out nothing, and does not know what the one before had, passes both on when it lets go.
TEST_F(OwnerTest, WhoNeverServedPassesOn) {
  ASSERT_TRUE(Take(client_, me_).ok());
  const absl::StatusOr<OwnerView> mine = Take(client_, me_);
  EXPECT_TRUE(mine->was_let_down);
  LetGo(AsNeverServed(*mine));
  const absl::StatusOr<OwnerView> others = Take(other_client_, other_);
  EXPECT_EQ(others->first_epoch, 3);
  EXPECT_EQ(others->first_epoch_before, 1);
  EXPECT_TRUE(others->was_let_down);
  LetGo(*others);
  EXPECT_FALSE(Take(client_, me_)->was_let_down);
}

// A deleted log is NOT_FOUND, and so is one that never was.
TEST_F(OwnerTest, DeletedLogCannotBeTaken) {
  const absl::StatusOr<OwnerView> mine = Take(client_, me_);
  std::vector<zk::Op> ops;
  ops.push_back(MarkDeletedOp(layout_, log_, *mine));
  ASSERT_EQ(environment_.RunTask(client_.Multi(std::move(ops))).code, zk::Code::kOk);
  EXPECT_EQ(Read()->state, OwnerView::State::kDeleted);
  EXPECT_TRUE(absl::IsNotFound(Take(client_, me_).status()));
  log_ = Uid::Make(environment_);
  EXPECT_TRUE(absl::IsNotFound(Take(client_, me_).status()));
}

// A record that is not ours is damage, and is left as it is.
TEST_F(OwnerTest, DamagedRecordIsReported) {
  environment_.RunTask(client_.Set(layout_.Owner(log_), "\xff\xff nonsense", zk::kAnyVersion));
  const absl::Status read = Take(client_, me_).status();
  EXPECT_TRUE(HasReason(read, Reason::kStoreCorrupt)) << read;
  EXPECT_EQ(DetailsOf(read).path, layout_.Owner(log_));
}

}  // namespace
}  // namespace postkeeper
