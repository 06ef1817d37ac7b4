// Appends through a replica that does not own the log: they need nobody, stay in order and within the bounds, and the
// owner learns of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "service/append_room.h"
#include "service/owner_route.h"
#include "tests/support/queue_engine_test.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;

// `queue_` is the owner's; `elsewhere_` is the same queue at the other replica.
class AppendElsewhereTest : public QueueEngineTest {
 protected:
  AppendElsewhereTest() { BootOther(); }
  ~AppendElsewhereTest() override {
    queue_.reset();
    elsewhere_.reset();
    ResumeOwner();
  }

  void BootOther(SimulatedReplicaOptions options = {}) {
    EXPECT_EQ(Enqueue({"first"}), absl::OkStatus());
    const std::vector<Delivery> first = Dequeue();
    EXPECT_EQ(Ack(first.at(0)), "ok");
    options.append.segment_batches_max = 7;
    options.address = "127.0.0.1:7412";
    other_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
    EXPECT_TRUE(other_->Start().ok());
    elsewhere_ = other_->Queue("q", settings_);
    Pass(seconds(1));
    EXPECT_TRUE(queue_->is_serving());
    EXPECT_FALSE(elsewhere_->is_serving());
  }
  void SetSettings(const QueueSettings& settings) {
    LogEntry entry = queue_->entry();
    entry.settings = settings;
    const absl::StatusOr<LogEntry> updated = environment_.RunTask(replica_->catalog().Update(entry));
    ASSERT_TRUE(updated.ok());
    PostTo(environment_, queue_, [this, updated] { queue_->SetEntry(*updated); });
  }
  // As SIGSTOP does it.
  void PauseOwner() {
    replica_->environment().Pause();
    replica_->client().SetReads(false);
  }
  void ResumeOwner() {
    replica_->environment().Resume();
    replica_->client().SetReads(true);
  }

  AppendRoute Route(const CheckedAppend& append, bool is_relayed = false) {
    LogHandle handle(elsewhere_);
    const AppendSize size = SizeOf(append);
    return RunOn(environment_, elsewhere_, RouteAppend(handle, size, is_relayed));
  }
  // What the services do at the other replica, if it needs no owner.
  AppendOutcome TryElsewhere(const std::vector<std::string>& texts) {
    if (Route(MakeAppend(texts)) != AppendRoute::kHere) return absl::AbortedError("it needs the owner");
    const auto pending = StartEnqueue(elsewhere_, MakeAppend(texts));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, seconds(30)));
    return *pending->result;
  }
  absl::Status EnqueueElsewhere(const std::vector<std::string>& texts) { return TryElsewhere(texts).status(); }
  // An answer has what is ready; only an empty one says that there is no more.
  std::vector<std::string> TakeAll() {
    std::vector<std::string> texts;
    for (std::vector<Delivery> taken = Dequeue(); !taken.empty(); taken = Dequeue()) {
      for (std::string& text : Texts(taken)) texts.push_back(std::move(text));
    }
    return texts;
  }
  // One message each, until it needs the owner; returns how many went.
  int FillElsewhere(int most) {
    for (int i = 0; i < most; ++i) {
      if (!EnqueueElsewhere({Cat("fill", i)}).ok()) return i;
    }
    return most;
  }

  std::unique_ptr<SimulatedReplica> other_;
  std::shared_ptr<QueueEngine> elsewhere_;
};

// The owner is stopped, as by SIGSTOP: an Enqueue elsewhere is answered at once, and the messages are delivered in
// order and once when it goes on.
TEST_F(AppendElsewhereTest, AStoppedOwnerIsNotWaitedFor) {
  PauseOwner();
  const Instant began = environment_.Now();
  for (int i = 0; i < 5; ++i) ASSERT_EQ(EnqueueElsewhere({Cat("m", i)}), absl::OkStatus());
  EXPECT_LT(environment_.Now() - began, milliseconds(100));
  ResumeOwner();
  Pass(milliseconds(100));
  EXPECT_THAT(TakeAll(), ElementsAre("m0", "m1", "m2", "m3", "m4"));
}

// Nobody owns the log, since its owner was killed: an Enqueue is answered at once, and the next owner delivers.
TEST_F(AppendElsewhereTest, NobodyIsNeeded) {
  replica_->Crash();
  const Instant began = environment_.Now();
  ASSERT_EQ(EnqueueElsewhere({"a"}), absl::OkStatus());
  ASSERT_EQ(EnqueueElsewhere({"b"}), absl::OkStatus());
  EXPECT_LT(environment_.Now() - began, milliseconds(100));
  ASSERT_TRUE(environment_.RunUntil([this] { return elsewhere_->is_serving(); }, minutes(1)));
  const auto third = StartEnqueue(elsewhere_, MakeAppend({"c"}));
  Pass(seconds(1));
  ASSERT_TRUE(third->is_done() && third->result->ok());
  std::swap(queue_, elsewhere_);
  EXPECT_THAT(TakeAll(), ElementsAre("a", "b", "c"));
  elsewhere_.reset();
}

// A reading of the head that ends after this replica has taken the log is of no use: what an owner writes is counted
// once, not also as somebody else's.
TEST_F(AppendElsewhereTest, AReadingFromBeforeATakeOver) {
  ASSERT_EQ(EnqueueElsewhere({"a"}), absl::OkStatus());
  Pass(seconds(2));
  other_->client().HoldNext([](const zk::Request& request) {
    return request.kind == zk::Request::Kind::kGet && request.path.ends_with("/head");
  });
  ASSERT_EQ(EnqueueElsewhere({"b"}), absl::OkStatus());
  replica_->Crash();
  ASSERT_TRUE(environment_.RunUntil([this] { return elsewhere_->is_serving(); }, minutes(1)));
  other_->client().ReleaseHeld();
  Pass(milliseconds(100));
  const auto third = StartEnqueue(elsewhere_, MakeAppend({std::string(1000, 'c')}));
  Pass(seconds(1));
  ASSERT_TRUE(third->is_done() && third->result->ok());
  EXPECT_EQ(other_->context().foreign_bytes, 0);
  std::swap(queue_, elsewhere_);
  elsewhere_.reset();
}

// One call after the other, here and there: they stand in the log in that order, over sealed segments.
TEST_F(AppendElsewhereTest, OneCallAfterTheOtherIsInOrder) {
  std::vector<std::string> expected;
  for (int i = 0; i < 60; ++i) {
    expected.push_back(Cat("m", i));
    const absl::Status status = i % 3 == 0 ? Enqueue({expected.back()}) : EnqueueElsewhere({expected.back()});
    ASSERT_EQ(status, absl::OkStatus()) << i;
  }
  EXPECT_THAT(TakeAll(), testing::ElementsAreArray(expected));
}

// What was answered elsewhere is counted at once, in numbers and in the rate, and an empty answer means that there is
// nothing.
TEST_F(AppendElsewhereTest, TheOwnerKnowsOfWhatWasAnswered) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(EnqueueElsewhere({"a", "b"}), absl::OkStatus());
    ASSERT_EQ(Dequeue().size(), 2u) << i;
  }
  ASSERT_EQ(EnqueueElsewhere({"a", "b", "c"}), absl::OkStatus());
  const QueueEngine::Stats stats = Stats();
  EXPECT_EQ(stats.counts.ready, 3);
  EXPECT_GT(stats.enqueue_rate, 0);
  const auto purged = RunOn(environment_, queue_, queue_->Purge(/*leased_too=*/false));
  ASSERT_TRUE(purged.ok());
  EXPECT_EQ(*purged, 3);
}

// A consumer that waits at the owner gets what is enqueued elsewhere within a few milliseconds: the watch tells.
TEST_F(AppendElsewhereTest, AWaitingConsumerHearsAtOnce) {
  for (int i = 0; i < 10; ++i) {
    const auto waiting = StartDequeue(10, seconds(20));
    Pass(seconds(i % 3));
    const Instant began = environment_.Now();
    ASSERT_EQ(EnqueueElsewhere({"m"}), absl::OkStatus());
    ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(20)));
    EXPECT_LT(environment_.Now() - began, milliseconds(20)) << i;
    ASSERT_TRUE(waiting->result->ok());
    EXPECT_THAT(Texts((*waiting->result)->deliveries), ElementsAre("m"));
  }
}

// With request_id, or sent on by another replica, it is the owner's.
TEST_F(AppendElsewhereTest, WhatNeedsTheOwnerGoesThere) {
  EXPECT_EQ(Route(MakeAppend({"a"})), AppendRoute::kHere);
  EXPECT_EQ(Route(MakeAppend({"a"}, "id")), AppendRoute::kOwner);
  EXPECT_EQ(Route(MakeAppend({"a"}), /*is_relayed=*/true), AppendRoute::kOwner);
}

// Without an owner that reads, a replica appends its allowance, a sixteenth of the bound, and no more however long it
// tries; when the owner goes on, it goes on, too, until the queue is full by the owner's count.
TEST_F(AppendElsewhereTest, TheAllowanceBoundsWhatTheOwnerHasNotSeen) {
  QueueSettings settings;
  settings.max_messages = 320;
  SetSettings(settings);
  PauseOwner();
  EXPECT_EQ(FillElsewhere(1000), 20);
  Pass(seconds(5));
  EXPECT_EQ(FillElsewhere(1000), 0);
  ResumeOwner();
  int filled = 20;
  for (int round = 0; round < 100; ++round) {
    Pass(milliseconds(200));
    filled += FillElsewhere(1000);
  }
  EXPECT_GT(filled, 320 - 20);
  EXPECT_LE(filled, 320 + 20);
  // The rest is decided by the owner.
  int refused = 0;
  for (int i = 0; i < 50; ++i) refused += HasReason(Enqueue({"m"}), Reason::kQueueFull) ? 1 : 0;
  EXPECT_GE(refused, 50 - 20);
  EXPECT_LE(Stats().counts.total(), 320 + 20);
  EXPECT_EQ(TakeAll().size(), static_cast<std::size_t>(filled + 50 - refused));
}

// A message that fits nowhere without asking is the owner's to decide: a queue with a small bound.
TEST_F(AppendElsewhereTest, SmallQueuesAskTheirOwner) {
  QueueSettings settings;
  settings.max_messages = 15;
  SetSettings(settings);
  EXPECT_EQ(Route(MakeAppend({"a"})), AppendRoute::kOwner);
}

// The queue is deleted, and one of the same name made, while another replica appends to it: what was answered OK stands
// in one of the two, what was refused in none, and nothing of the old incarnation is in the new one.
TEST_F(AppendElsewhereTest, DeletedAndMadeAgain) {
  ASSERT_EQ(EnqueueElsewhere({"before"}), absl::OkStatus());
  const std::shared_ptr<QueueEngine> old = elsewhere_;
  std::vector<std::shared_ptr<Pending<AppendOutcome>>> calls;
  const auto deleted = StartOn<absl::Status>(queue_, queue_->Delete());
  for (int i = 0; i < 40; ++i) {
    calls.push_back(StartEnqueue(old, MakeAppend({Cat("old", i)})));
    Pass(std::chrono::microseconds(130));
  }
  ASSERT_TRUE(environment_.RunUntil([&] { return deleted->is_done(); }, seconds(20)));
  ASSERT_TRUE(deleted->result->ok()) << *deleted->result;
  const Name name = SimulatedReplica::QueueName("q");
  ASSERT_TRUE(environment_.RunTask(replica_->broker().Create(name, QueueSettings())).ok());
  calls.push_back(StartEnqueue(old, MakeAppend({"late"})));
  ASSERT_TRUE(environment_.RunUntil(
      [&] { return std::all_of(calls.begin(), calls.end(), [](const auto& call) { return call->is_done(); }); },
      seconds(40)));
  int accepted = 0;
  for (const auto& call : calls) {
    if (call->result->ok()) {
      ++accepted;
    } else {
      EXPECT_TRUE(HasReason(call->result->status(), Reason::kQueueNotFound)) << call->result->status();
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 41);
  EXPECT_FALSE(calls.back()->result->ok());
  // Whoever was refused resolves the name again.
  EXPECT_TRUE(old->is_gone());
  EXPECT_EQ(other_->broker().FindQueue(name), nullptr);
  const auto next = environment_.RunTask(other_->broker().OpenQueue(name));
  ASSERT_TRUE(next.ok());
  EXPECT_NE((*next)->uid(), old->uid());
  elsewhere_ = *next;
  if (Route(MakeAppend({"new"})) == AppendRoute::kHere || elsewhere_->is_serving()) {
    const auto sent = StartEnqueue(elsewhere_, MakeAppend({"new"}));
    ASSERT_TRUE(environment_.RunUntil([&] { return sent->is_done(); }, seconds(20)));
    EXPECT_TRUE(sent->result->ok());
  }
  queue_ = replica_->Queue("q");
  Pass(seconds(1));
  EXPECT_THAT(TakeAll(), ElementsAre("new"));
}

// A replica that stops answers what it has taken: accepted messages are in the log, refused ones are not.
TEST_F(AppendElsewhereTest, AStoppingReplicaFinishesItsAppends) {
  std::vector<std::shared_ptr<Pending<AppendOutcome>>> calls;
  ASSERT_EQ(EnqueueElsewhere({"m"}), absl::OkStatus());
  EXPECT_THAT(TakeAll(), ElementsAre("m"));
  for (int i = 0; i < 10; ++i) calls.push_back(StartEnqueue(elsewhere_, MakeAppend({Cat("m", i)})));
  Pass(std::chrono::microseconds(100));
  elsewhere_.reset();
  other_->Stop();
  std::size_t accepted = 0;
  for (const auto& call : calls) {
    ASSERT_TRUE(call->is_done());
    if (call->result->ok()) ++accepted;
  }
  EXPECT_EQ(accepted, 10u);
  EXPECT_EQ(TakeAll().size(), accepted);
  EXPECT_THAT(environment_.RunTask(observer_.Children(layout_.Producers(queue_->uid()))).children, testing::SizeIs(1));
}

// A topic: published elsewhere, read at the owner in order; "latest" begins behind what was answered before.
TEST_F(AppendElsewhereTest, Topics) {
  const std::shared_ptr<TopicEngine> topic = replica_->Topic("t");
  Pass(seconds(1));
  ASSERT_TRUE(topic->is_serving());
  const Name name = SimulatedReplica::TopicName("t");
  const auto opened = environment_.RunTask(other_->broker().OpenTopic(name));
  ASSERT_TRUE(opened.ok());
  const std::shared_ptr<TopicEngine> far = *opened;
  Pass(seconds(1));
  const auto publish = [&](const std::string& text) {
    LogHandle handle(far);
    const AppendSize size = SizeOf(MakeAppend({text}));
    EXPECT_EQ(RunOn(environment_, far, RouteAppend(handle, size, false)), AppendRoute::kHere);
    const auto pending = StartPublish(far, MakeAppend({text}));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, seconds(20)));
    EXPECT_TRUE(pending->result->ok());
  };
  for (int i = 0; i < 10; ++i) {
    publish("before");
    const auto begin = RunOn(environment_, topic, topic->BeginAt(StartLatest{}));
    ASSERT_TRUE(begin.ok());
    const auto waiting =
        StartOn<absl::StatusOr<TopicEngine::Step>>(topic, topic->ReadAfter(begin->position, seconds(9)));
    const Instant began = environment_.Now();
    publish(Cat("m", i));
    ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(20)));
    EXPECT_LT(environment_.Now() - began, milliseconds(20)) << i;
    ASSERT_TRUE(waiting->result->ok() && (*waiting->result)->batch);
    EXPECT_EQ((*waiting->result)->batch->message(0), Cat("m", i));
  }
}

}  // namespace
}  // namespace postkeeper
