// A topic's engine in a simulated ZooKeeper: each subscriber gets every message behind its position in order, or is
// told which is the oldest that is still there.
#include "service/topic_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/simulated_replica.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using OnTheWay = zk::SimulatedClient::OnTheWay;
using StepOutcome = absl::StatusOr<TopicEngine::Step>;

class TopicEngineTest : public testing::Test {
 protected:
  TopicEngineTest() : environment_(1), ensemble_(environment_), observer_(ensemble_) {
    options_.append.segment_batches_max = 4;
    Boot();
  }
  ~TopicEngineTest() override {
    topic_.reset();
    dead_.clear();
    replica_.reset();
  }

  void Boot() {
    replica_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, options_);
    ASSERT_TRUE(replica_->Start().ok());
    topic_ = replica_->Topic("t", settings_);
  }
  void Restart() {
    topic_.reset();
    replica_->Stop();
    replica_.reset();
    Boot();
  }
  void CrashAndBoot() {
    options_.dead_predecessor = replica_->process();
    topic_.reset();
    replica_->Crash();
    dead_.push_back(std::move(replica_));
    Boot();
  }
  // The same topic under other settings.
  void Set(TopicSettings settings) {
    settings_ = settings;
    LogEntry entry = topic_->entry();
    entry.settings = settings;
    const absl::StatusOr<LogEntry> updated = environment_.RunTask(replica_->catalog().Update(entry));
    ASSERT_TRUE(updated.ok());
    PostTo(environment_, topic_, [this, updated] { topic_->SetEntry(*updated); });
  }

  absl::Status Publish(const std::vector<std::string>& texts, std::string request_id = "") {
    const auto pending = StartPublish(topic_, MakeAppend(texts, std::move(request_id)));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, minutes(1)));
    const absl::Status status = pending->result->status();
    environment_.AdvanceBy(milliseconds(5));
    return status;
  }

  StepOutcome Begin(CheckedStart start) { return RunOn(environment_, topic_, topic_->BeginAt(std::move(start))); }
  StepOutcome Read(Position position, Duration wait = Duration::zero()) {
    return RunOn(environment_, topic_, topic_->ReadAfter(position, wait));
  }
  CheckedStart After(Position position) { return *DecodePosition(EncodePosition(topic_->uid(), position)); }

  // The messages behind a position, to the end; moves the position. An error ends the list with its reason.
  std::vector<std::string> ReadAll(Position& position) {
    std::vector<std::string> texts;
    while (true) {
      const StepOutcome step = Read(position);
      if (!step.ok()) {
        texts.emplace_back(ReasonName(ReasonOf(step.status()).value_or(Reason::kBug)));
        return texts;
      }
      position = step->position;
      if (!step->batch) return texts;
      for (int i = static_cast<int>(step->first_index); i < step->batch->size(); ++i) {
        texts.emplace_back(step->batch->message(i));
      }
    }
  }
  std::vector<std::string> ReadFrom(CheckedStart start) {
    const StepOutcome begin = Begin(std::move(start));
    if (!begin.ok()) return {std::string(ReasonName(ReasonOf(begin.status()).value_or(Reason::kBug)))};
    Position position = begin->position;
    return ReadAll(position);
  }

  std::size_t SegmentCount() {
    return environment_.RunTask(observer_.Children(layout_.Segments(topic_->uid()))).children.size();
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  TopicSettings settings_;
  SimulatedReplicaOptions options_;
  std::vector<std::unique_ptr<SimulatedReplica>> dead_;
  std::unique_ptr<SimulatedReplica> replica_;
  std::shared_ptr<TopicEngine> topic_;
};

// The four starts: latest sees what comes, earliest all, a time what was published from then on, a position what is
// behind it.
TEST_F(TopicEngineTest, TheFourStarts) {
  ASSERT_TRUE(Publish({"a", "b"}).ok());
  environment_.AdvanceBy(seconds(2));
  const WallTime noon = environment_.WallNow();
  environment_.AdvanceBy(seconds(2));
  ASSERT_TRUE(Publish({"c"}).ok());
  ASSERT_TRUE(Publish({"d", "e"}).ok());
  const StepOutcome latest = Begin(StartLatest{});
  ASSERT_TRUE(latest.ok());
  EXPECT_EQ(latest->position, latest->tail);
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(ReadFrom(noon), ElementsAre("c", "d", "e"));
  EXPECT_THAT(ReadFrom(noon - minutes(10)), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(ReadFrom(noon + minutes(10)), IsEmpty());
  ASSERT_TRUE(Publish({"f"}).ok());
  Position position = latest->position;
  EXPECT_THAT(ReadAll(position), ElementsAre("f"));
}

// Whoever resumes after any position gets exactly what is behind it, over batches and segments.
TEST_F(TopicEngineTest, ResumesAfterEveryPosition) {
  std::vector<std::string> all;
  for (int i = 0; i < 12; ++i) {
    std::vector<std::string> batch;
    for (int j = 0; j <= i % 3; ++j) batch.push_back(Cat("m", i, ".", j));
    all.insert(all.end(), batch.begin(), batch.end());
    ASSERT_TRUE(Publish(batch).ok());
  }
  std::vector<Position> positions;
  Position position = Begin(StartEarliest{})->position;
  positions.push_back(position);
  while (true) {
    const StepOutcome step = Read(position);
    ASSERT_TRUE(step.ok());
    if (!step->batch) break;
    for (std::uint32_t i = step->first_index; i < static_cast<std::uint32_t>(step->batch->size()); ++i) {
      positions.push_back(Position::FromValue(step->batch_position.value() + i));
    }
    position = step->position;
  }
  ASSERT_EQ(positions.size(), all.size() + 1);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    EXPECT_EQ(ReadFrom(After(positions[i])), std::vector<std::string>(all.begin() + static_cast<long>(i), all.end()));
  }
}

// A subscriber that waits is woken by the next message.
TEST_F(TopicEngineTest, WaitingSubscriberIsWoken) {
  const Position position = Begin(StartLatest{})->position;
  const auto waiting = StartOn<StepOutcome>(topic_, topic_->ReadAfter(position, seconds(20)));
  environment_.AdvanceBy(seconds(3));
  EXPECT_FALSE(waiting->is_done());
  ASSERT_TRUE(Publish({"a"}).ok());
  ASSERT_TRUE(waiting->is_done());
  EXPECT_EQ((*waiting->result)->batch->message(0), "a");
}

// Positions that are not of this topic, or not yet, are refused.
TEST_F(TopicEngineTest, ForeignPositionsAreRefused) {
  ASSERT_TRUE(Publish({"a"}).ok());
  const std::shared_ptr<TopicEngine> other = replica_->Topic("other");
  const CheckedStart foreign = *DecodePosition(EncodePosition(other->uid(), Position(1, 0, 0)));
  EXPECT_TRUE(HasReason(Begin(foreign).status(), Reason::kPositionOfDeletedTopic));
  EXPECT_TRUE(HasReason(Begin(After(Position(7, 0, 0))).status(), Reason::kMalformedPosition));
}

// Past max_messages the oldest whole batches go, and with them their segments; who stands before them is told so, who
// comes late begins at the oldest that is kept.
TEST_F(TopicEngineTest, TrimsByMessages) {
  Set({.max_messages = 6});
  const Position early = Begin(StartLatest{})->position;
  std::vector<std::string> all;
  for (int i = 0; i < 30; ++i) {
    all.push_back(Cat("m", i));
    ASSERT_TRUE(Publish({all.back()}).ok());
  }
  environment_.AdvanceBy(seconds(1));
  const std::vector<std::string> kept = ReadFrom(StartEarliest{});
  EXPECT_EQ(kept, std::vector<std::string>(all.end() - 6, all.end()));
  EXPECT_LE(SegmentCount(), 4u);
  const absl::Status trimmed = Begin(After(early)).status();
  ASSERT_TRUE(HasReason(trimmed, Reason::kPositionTrimmed)) << trimmed;
  EXPECT_TRUE(HasReason(Read(early).status(), Reason::kPositionTrimmed));
  // The position that the error names is a good start.
  EXPECT_EQ(ReadFrom(*DecodePosition(DetailsOf(trimmed).oldest_position)), kept);
}

// Past max_bytes likewise.
TEST_F(TopicEngineTest, TrimsByBytes) {
  Set({.max_bytes = 100});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Publish({std::string(30, static_cast<char>('a' + i))}).ok());
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(ReadFrom(StartEarliest{}).size(), 3u);
}

// A batch of more messages than the topic keeps reaches its subscribers; it goes when the next one is there.
TEST_F(TopicEngineTest, NewestBatchStays) {
  Set({.max_messages = 2});
  ASSERT_TRUE(Publish({"a", "b", "c"}).ok());
  environment_.AdvanceBy(seconds(20));
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("a", "b", "c"));
  ASSERT_TRUE(Publish({"d"}).ok());
  environment_.AdvanceBy(seconds(20));
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("d"));
}

// Past its retention a message goes. A subscriber that had read everything is not told that it missed something, nor is
// one that begins at the latest, nor one that resumes after a restart.
TEST_F(TopicEngineTest, CaughtUpSubscribersDoNotNoticeTheTrim) {
  Set({.retention = minutes(1)});
  Position caught_up = Begin(StartLatest{})->position;
  const Position behind = caught_up;
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Publish({Cat("m", i), "x"}).ok());
  EXPECT_EQ(ReadAll(caught_up).size(), 12u);
  environment_.AdvanceBy(minutes(2));
  EXPECT_THAT(ReadFrom(StartEarliest{}), IsEmpty());
  EXPECT_TRUE(HasReason(Read(behind).status(), Reason::kPositionTrimmed));
  EXPECT_THAT(ReadAll(caught_up), IsEmpty());
  EXPECT_THAT(ReadFrom(StartLatest{}), IsEmpty());
  Restart();
  EXPECT_THAT(ReadFrom(After(caught_up)), IsEmpty());
  EXPECT_TRUE(HasReason(Begin(After(behind)).status(), Reason::kPositionTrimmed));
  const Position one_before = Position::FromValue(caught_up.value() - 1);
  EXPECT_TRUE(HasReason(Begin(After(one_before)).status(), Reason::kPositionTrimmed));
  CrashAndBoot();
  EXPECT_THAT(ReadFrom(StartLatest{}), IsEmpty());
  ASSERT_TRUE(Publish({"new"}).ok());
  EXPECT_THAT(ReadAll(caught_up), ElementsAre("new"));
  EXPECT_EQ(replica_->context().corruptions, 0);
}

// The clock of the owner is two days ahead, or behind: messages go after their retention by the leader's clock, not
// before, and not much later.
TEST_F(TopicEngineTest, RetentionGoesByTheLeadersClock) {
  Set({.retention = minutes(10)});
  for (const auto offset : {std::chrono::hours(48), std::chrono::hours(-48)}) {
    replica_->environment().SetWallOffset(offset);
    ASSERT_TRUE(Publish({"a"}).ok());
    environment_.AdvanceBy(minutes(9));
    EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("a")) << offset.count();
    environment_.AdvanceBy(minutes(2));
    EXPECT_THAT(ReadFrom(StartEarliest{}), IsEmpty()) << offset.count();
  }
}

// Another replica takes the topic: a subscriber that waits at the former owner is told so, and does not wait for what
// it would never hear of.
TEST_F(TopicEngineTest, SubscriberAtAFormerOwnerIsToldToGo) {
  const Position at_end = Begin(StartLatest{})->position;
  SimulatedReplica other(environment_, ensemble_, {.address = "127.0.0.1:7412"});
  ASSERT_TRUE(other.Start().ok());
  const std::shared_ptr<TopicEngine> others = other.Topic("t", settings_);
  const auto waiting = StartOn<StepOutcome>(topic_, topic_->ReadAfter(at_end, minutes(5)));
  replica_->client().SetReachable(false);
  ASSERT_TRUE(environment_.RunUntil([&] { return others->is_serving(); }, minutes(1)));
  EXPECT_FALSE(waiting->is_done());
  replica_->client().SetReachable(true);
  ASSERT_TRUE(environment_.RunUntil([&] { return waiting->is_done(); }, seconds(10)));
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kNoOwner)) << waiting->result->status();
}

// The reply of a trimming write is lost, or the write: subscribers are told the truth meanwhile, and afterwards all
// is as if nothing had happened.
TEST_F(TopicEngineTest, TrimsUnderBrokenConnections) {
  Set({.max_messages = 4});
  options_.cache_bytes = 1;  // readers see the store as it is
  Restart();
  Position slow = Begin(StartLatest{})->position;
  auto is_trim = [this](const zk::Request& request) {
    return request.kind == zk::Request::Kind::kMulti && request.ops.size() > 1 &&
           request.ops[1].path == layout_.Head(topic_->uid());
  };
  for (int i = 0; i < 20; ++i) {
    if (i % 5 == 4) replica_->client().LoseReplyToNext(is_trim);
    if (i % 5 == 2) replica_->client().LoseNext(is_trim);
    ASSERT_TRUE(Publish({Cat("m", i)}).ok());
    environment_.AdvanceBy(milliseconds(200));
    const StepOutcome step = Read(slow);
    if (step.ok()) {
      slow = step->position;
    } else {
      EXPECT_TRUE(HasReason(step.status(), Reason::kPositionTrimmed) ||
                  HasReason(step.status(), Reason::kZookeeperUnavailable))
          << step.status();
    }
  }
  environment_.AdvanceBy(seconds(20));
  EXPECT_EQ(ReadFrom(StartEarliest{}).size(), 4u);
  CrashAndBoot();
  EXPECT_EQ(ReadFrom(StartEarliest{}).size(), 4u);
  EXPECT_EQ(replica_->context().corruptions, 0);
}

// A restart and a crash lose nothing, and positions stay good.
TEST_F(TopicEngineTest, SurvivesRestartAndCrash) {
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(Publish({Cat("m", i)}).ok());
  Position position = Begin(StartEarliest{})->position;
  EXPECT_EQ(ReadAll(position).size(), 9u);
  Restart();
  ASSERT_TRUE(Publish({"n"}).ok());
  EXPECT_THAT(ReadFrom(After(position)), ElementsAre("n"));
  CrashAndBoot();
  EXPECT_EQ(ReadFrom(StartEarliest{}).size(), 10u);
  EXPECT_THAT(ReadFrom(After(position)), ElementsAre("n"));
}

// The session expires: publishing and trimming go on under the new one.
TEST_F(TopicEngineTest, SurvivesAnExpiredSession) {
  Set({.max_messages = 3});
  ASSERT_TRUE(Publish({"a"}).ok());
  ensemble_.ExpireSession(replica_->client().session().session_id);
  environment_.AdvanceBy(seconds(5));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Publish({Cat("m", i)}).ok());
  environment_.AdvanceBy(seconds(10));
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("m2", "m3", "m4"));
}

// Another process has had the log: the engine finds out by its next write, takes the log again and goes on.
TEST_F(TopicEngineTest, FindsOutThatItWasDeposed) {
  Set({.max_messages = 3});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Publish({Cat("m", i)}).ok());
  const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, topic_->uid()));
  ASSERT_TRUE(owner.ok());
  std::vector<zk::Op> ops;
  ops.push_back(LetGoOp(layout_, topic_->uid(), *owner));
  ASSERT_EQ(environment_.RunTask(observer_.Multi(std::move(ops))).code, zk::Code::kOk);
  ASSERT_TRUE(Publish({"m3"}).ok());
  environment_.AdvanceBy(seconds(10));
  EXPECT_TRUE(topic_->is_serving());
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("m1", "m2", "m3"));
  EXPECT_GT(environment_.RunTask(ReadOwner(observer_, layout_, topic_->uid()))->epoch, owner->epoch);
}

// A repeated request_id is written once.
TEST_F(TopicEngineTest, RepeatedRequestIdIsWrittenOnce) {
  ASSERT_TRUE(Publish({"a"}, "id").ok());
  ASSERT_TRUE(Publish({"a"}, "id").ok());
  EXPECT_THAT(ReadFrom(StartEarliest{}), ElementsAre("a"));
}

// Deleting and draining end what waits, with their reasons.
TEST_F(TopicEngineTest, DeleteAndDrainEndWaiting) {
  const Position position = Begin(StartLatest{})->position;
  auto waiting = StartOn<StepOutcome>(topic_, topic_->ReadAfter(position, minutes(1)));
  environment_.AdvanceBy(seconds(1));
  ASSERT_TRUE(environment_.RunTask(replica_->broker().Delete({.name = SimulatedReplica::TopicName("t")})).ok());
  environment_.AdvanceBy(milliseconds(10));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kTopicNotFound)) << waiting->result->status();
  const absl::Status late = Publish({"late"});
  EXPECT_TRUE(HasReason(late, Reason::kTopicNotFound)) << late;

  topic_ = replica_->Topic("t");
  const Position again = Begin(StartLatest{})->position;
  waiting = StartOn<StepOutcome>(topic_, topic_->ReadAfter(again, minutes(1)));
  environment_.AdvanceBy(seconds(1));
  replica_->broker().Drain();
  environment_.AdvanceBy(milliseconds(10));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_TRUE(HasReason(waiting->result->status(), Reason::kReplicaDraining));
}

// Many segments, more than the reader remembers, are read whole by a late joiner.
TEST_F(TopicEngineTest, LateJoinerReadsManySegments) {
  options_.append.segment_batches_max = 2;
  options_.append.batch_messages_max = 1;
  options_.cache_bytes = 1;
  Restart();
  std::vector<std::string> all;
  std::vector<std::shared_ptr<Pending<AppendOutcome>>> calls;
  for (int i = 0; i < 400; ++i) {
    all.push_back(Cat("m", i));
    calls.push_back(StartPublish(topic_, MakeAppend({all.back()})));
  }
  ASSERT_TRUE(environment_.RunUntil([&] { return calls.back()->is_done(); }, minutes(1)));
  environment_.AdvanceBy(seconds(1));
  ASSERT_GT(SegmentCount(), 70u);
  EXPECT_EQ(ReadFrom(StartEarliest{}), all);
}

// A repeated request_id gets the first answer over changes of the owner, in the log and when its batch was trimmed;
// past the window it is free.
TEST_F(TopicEngineTest, RequestIdsOutliveOwnersAndTrims) {
  const auto publish = [this](const std::string& text, const std::string& id) {
    const auto pending = StartPublish(topic_, MakeAppend({text}, id));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, minutes(1)));
    EXPECT_TRUE(pending->result->ok()) << pending->result->status();
    return pending->result->ok() ? (*pending->result)->MessageId(0) : std::string();
  };
  const auto dedup = [this] {
    return environment_.RunTask(observer_.Children(layout_.Dedups(topic_->uid()))).children;
  };
  std::vector<std::string> first;
  for (int i = 0; i < 6; ++i) first.push_back(publish(Cat("m", i), Cat("id", i)));
  CrashAndBoot();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(publish(Cat("m", i), Cat("id", i)), first[static_cast<std::size_t>(i)]) << i;
  TopicSettings settings = settings_;
  settings.max_messages = 2;
  Set(settings);
  environment_.AdvanceBy(seconds(10));
  EXPECT_THAT(dedup(), testing::SizeIs(1));
  for (bool is_crash : {true, false}) {
    if (is_crash) {
      CrashAndBoot();
    } else {
      Restart();
    }
    for (int i = 0; i < 6; ++i) EXPECT_EQ(publish(Cat("m", i), Cat("id", i)), first[static_cast<std::size_t>(i)]) << i;
  }
  environment_.AdvanceBy(minutes(11));
  EXPECT_THAT(dedup(), IsEmpty());
  EXPECT_NE(publish("m0", "id0"), first[0]);
}

// A message with a known dedup_id is published once, over changes of the owner and when its batch was trimmed; the
// others of its call are published.
TEST_F(TopicEngineTest, DedupIdsOutliveOwnersAndTrims) {
  const auto publish = [this](const std::vector<std::string>& messages) {
    const auto pending = StartPublish(topic_, MakeAppendWithDedupIds(messages));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, minutes(1)));
    EXPECT_TRUE(pending->result->ok()) << pending->result->status();
    return pending->result->ok() ? AnswerOf(**pending->result) : std::vector<std::string>();
  };
  const std::vector<std::string> first = publish({"a:A", "b:B"});
  CrashAndBoot();
  const std::vector<std::string> mixed = publish({"b:B", "c:C", "c:C"});
  EXPECT_THAT(mixed, ElementsAre(first[1], mixed[1], mixed[1], "0", "2"));
  ASSERT_THAT(publish({"d"}), testing::SizeIs(1));
  TopicSettings settings = settings_;
  settings.max_messages = 1;
  Set(settings);
  environment_.AdvanceBy(seconds(10));
  for (int round = 0; round < 2; ++round) {
    CrashAndBoot();
    EXPECT_THAT(publish({"c:C", "a:A", "b:B"}), ElementsAre(mixed[1], first[0], first[1], "0", "1", "2"));
  }
}

}  // namespace
}  // namespace postkeeper
