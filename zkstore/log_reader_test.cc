// Reading a log in a simulated ZooKeeper: what the absence of a batch means, and who is woken when one comes.
#include "zkstore/log_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/catalog.h"
#include "zkstore/errors.h"
#include "zkstore/log_appender.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using Kind = LogReader::Step::Kind;

class LogReaderTest : public testing::Test {
 protected:
  LogReaderTest() : environment_(1), ensemble_(environment_), client_(ensemble_), writer_client_(ensemble_), cache_(0) {
    environment_.AdvanceBy(seconds(1));
    Catalog catalog(environment_, writer_client_, layout_);
    EXPECT_TRUE(environment_.RunTask(catalog.Open()).ok());
    LogName name{LogKind::kQueue, "default", "q"};
    absl::StatusOr<Catalog::Created> created = environment_.RunTask(catalog.Create(name, QueueSettings()));
    EXPECT_TRUE(created.ok());
    log_ = created->entry.uid;
    reader_ = std::make_shared<LogReader>(environment_, client_, layout_, log_, cache_, environment_.MakeStrand());
  }

  ~LogReaderTest() override {
    reader_.reset();
    if (appender_) environment_.RunTask(appender_->Stop(seconds(5)));
    appender_.reset();
    environment_.AdvanceBy(minutes(1));
  }

  static Position At(std::uint64_t segment, std::uint32_t batch) { return Position(segment, batch, 0); }

  // Each of them becomes a batch of its own.
  void Write(const std::vector<std::string>& texts,
             AppendOptions options = {.in_flight_max = 1, .batch_messages_max = 1}) {
    if (!appender_) {
      LogAppender::Listener listener;
      listener.on_appended = [this](Position at, const std::shared_ptr<const Batch>&) { written_.push_back(at); };
      appender_ = std::make_shared<LogAppender>(
          environment_, writer_client_, layout_, log_, ProcessId::Make(environment_),
          [this] { return ++last_generation_; }, environment_.MakeStrand(), options, std::move(listener));
    }
    int open = static_cast<int>(texts.size());
    for (const std::string& text : texts) {
      std::vector<NewMessage> messages(1);
      messages[0].bytes = text;
      appender_->Append(std::move(messages), "", std::nullopt, [&open](const absl::StatusOr<Appended>& outcome) {
        EXPECT_TRUE(outcome.ok()) << outcome.status();
        --open;
      });
    }
    EXPECT_TRUE(environment_.RunUntil([&open] { return open == 0; }, minutes(1)));
  }

  absl::StatusOr<LogReader::Step> Read(Position at) { return environment_.RunTask(reader_->Read(at)); }
  Kind KindAt(Position at) {
    const absl::StatusOr<LogReader::Step> step = Read(at);
    EXPECT_TRUE(step.ok()) << step.status();
    return step->kind;
  }
  void Delete(const std::string& path) {
    EXPECT_EQ(environment_.RunTask(writer_client_.Delete(path, zk::kAnyVersion)).code, zk::Code::kOk) << path;
  }

  // A reader that falls asleep at this position; true in the result when it is awake again.
  std::shared_ptr<bool> Sleep(Position at) {
    auto is_awake = std::make_shared<bool>(false);
    auto wait = [](std::shared_ptr<LogReader> reader, Position place, std::shared_ptr<bool> awake) -> Task<void> {
      co_await reader->WaitAtTail(place);
      *awake = true;
    };
    Spawn(environment_.executor(), wait(reader_, at, is_awake));
    return is_awake;
  }

  std::vector<std::string> ReadAll(std::vector<Kind>* others = nullptr) {
    std::vector<std::string> texts;
    Position at = At(Layout::kFirstSegment, 0);
    for (int step = 0; step < 100'000; ++step) {
      const absl::StatusOr<LogReader::Step> read = Read(at);
      EXPECT_TRUE(read.ok()) << read.status();
      if (!read.ok() || read->kind == Kind::kAtTail) break;
      if (read->kind != Kind::kBatch && others != nullptr) others->push_back(read->kind);
      for (int i = 0; read->batch && i < read->batch->size(); ++i) texts.emplace_back(read->batch->message(i));
      at = read->next;
    }
    return texts;
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient client_;
  zk::SimulatedClient writer_client_;
  const Layout layout_{"/postkeeper"};
  BatchCache cache_;  // holds nothing: all is read from the store
  Uid log_;
  std::shared_ptr<LogReader> reader_;
  std::shared_ptr<LogAppender> appender_;
  std::vector<Position> written_;
  std::uint32_t last_generation_ = 0;
};

// A batch that is there is read, and the next position follows it; behind the last one is the tail.
TEST_F(LogReaderTest, ReadsBatchesUpToTheTail) {
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kAtTail);
  Write({"a", "b"});
  const absl::StatusOr<LogReader::Step> step = Read(At(1, 0));
  ASSERT_EQ(step->kind, Kind::kBatch);
  EXPECT_EQ(step->batch->message(0), "a");
  EXPECT_EQ(step->next, At(1, 1));
  EXPECT_EQ(KindAt(At(1, 2)), Kind::kAtTail);
  EXPECT_EQ(KindAt(At(1, 7)), Kind::kAtTail);
  EXPECT_EQ(*environment_.RunTask(reader_->FindTail()), At(1, 2));
}

// The absence of a batch below the tail is a hole; at and behind the tail it says nothing.
TEST_F(LogReaderTest, OnlyBelowTheTailIsAHole) {
  Write({"a", "b", "c"});
  Delete(layout_.Batch(log_, At(1, 0)));
  Delete(layout_.Batch(log_, At(1, 2)));
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kHole);
  EXPECT_EQ(Read(At(1, 0))->next, At(1, 1));
  EXPECT_EQ(KindAt(At(1, 1)), Kind::kBatch);
  EXPECT_EQ(KindAt(At(1, 2)), Kind::kHole);
  EXPECT_EQ(KindAt(At(1, 3)), Kind::kAtTail);
}

// A reader that knew the tail, waited, and then finds a batch beyond it missing does not take it for a hole: the tail
// is looked at anew first.
TEST_F(LogReaderTest, ATailKnownBeforeIsNotTrustedBeyondIt) {
  Write({"a"});
  EXPECT_EQ(KindAt(At(1, 1)), Kind::kAtTail);
  for (int i = 0; i < 20; ++i) {
    Write({Cat("m", i)});
    EXPECT_EQ(KindAt(At(1, static_cast<std::uint32_t>(i + 1))), Kind::kBatch);
    EXPECT_EQ(KindAt(At(1, static_cast<std::uint32_t>(i + 2))), Kind::kAtTail);
  }
}

// The end of a sealed segment leads to its successor, with and without its last batch.
TEST_F(LogReaderTest, SealedSegmentsLeadOn) {
  Write({"a", "b", "c", "d", "e"}, {.in_flight_max = 1, .batch_messages_max = 1, .segment_batches_max = 2});
  EXPECT_THAT(ReadAll(), ElementsAre("a", "b", "c", "d", "e"));
  const absl::StatusOr<LogReader::Step> end = Read(At(1, 2));
  ASSERT_EQ(end->kind, Kind::kBatch);
  EXPECT_TRUE(end->batch->ends_segment());
  EXPECT_EQ(end->next, At(2, 0));
  EXPECT_EQ(KindAt(At(1, 3)), Kind::kNextSegment);
  EXPECT_EQ(Read(At(1, 3))->next, At(2, 0));
  Delete(layout_.Batch(log_, At(1, 2)));
  EXPECT_EQ(KindAt(At(1, 2)), Kind::kHole);
}

// A segment that was deleted is told as such, also to a reader that had seen it, and the first that is left is found.
TEST_F(LogReaderTest, DeletedSegmentsAreToldApart) {
  Write({"a", "b", "c", "d", "e"}, {.in_flight_max = 1, .batch_messages_max = 1, .segment_batches_max = 2});
  for (std::uint32_t batch = 0; batch < 3; ++batch) Delete(layout_.Batch(log_, At(1, batch)));
  Delete(layout_.Segment(log_, 1));
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kSegmentGone);
  EXPECT_EQ(*environment_.RunTask(reader_->FindFirstSegment()), 2u);
  EXPECT_EQ(KindAt(At(99, 0)), Kind::kSegmentGone);
}

// A sleeper is woken by a batch of another process through its watch, without waiting for the poll.
TEST_F(LogReaderTest, AnothersBatchWakesByTheWatch) {
  Write({"a"});
  const std::shared_ptr<bool> is_awake = Sleep(At(1, 1));
  environment_.AdvanceBy(milliseconds(100));
  EXPECT_FALSE(*is_awake);
  Write({"b"});
  environment_.AdvanceBy(milliseconds(2));
  EXPECT_TRUE(*is_awake);
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
}

// A batch of this process wakes at once, and is taken from memory.
TEST_F(LogReaderTest, OwnBatchWakesByTheBell) {
  BatchCache cache(1 << 20);
  reader_ = std::make_shared<LogReader>(environment_, client_, layout_, log_, cache, environment_.MakeStrand());
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kAtTail);
  const std::shared_ptr<bool> is_awake = Sleep(At(1, 0));
  environment_.RunUntilIdle();
  BatchBuilder builder;
  std::vector<NewMessage> messages(1);
  messages[0].bytes = "a";
  builder.Add(std::move(messages), "");
  reader_->OnAppended(At(1, 0), std::move(builder).Build({}, environment_.WallNow()).batch);
  environment_.RunUntilIdle();
  EXPECT_TRUE(*is_awake);
  const std::int64_t before = client_.requests_sent();
  EXPECT_EQ(Read(At(1, 0))->batch->message(0), "a");
  EXPECT_EQ(client_.requests_sent(), before);
  EXPECT_EQ(reader_->known_tail(), At(1, 1));
  reader_.reset();
  environment_.AdvanceBy(minutes(1));
}

// While this process appends, the reader that follows asks ZooKeeper nothing; the batch of another process in between
// is found all the same.
TEST_F(LogReaderTest, FollowingOwnBatchesCostsNoRequests) {
  BatchCache cache(1 << 20);
  reader_ = std::make_shared<LogReader>(environment_, client_, layout_, log_, cache, environment_.MakeStrand());
  Write({"another's"});
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kBatch);
  for (std::uint32_t batch = 1; batch < 10; ++batch) {
    const std::int64_t before = client_.requests_sent();
    BatchBuilder builder;
    std::vector<NewMessage> messages(1);
    messages[0].bytes = "own";
    builder.Add(std::move(messages), "");
    EXPECT_EQ(environment_.RunTask(writer_client_.Create(layout_.Batch(log_, At(1, batch)), "")).code, zk::Code::kOk);
    reader_->OnAppended(At(1, batch), std::move(builder).Build({}, environment_.WallNow()).batch);
    EXPECT_EQ(KindAt(At(1, batch)), Kind::kBatch);
    EXPECT_EQ(KindAt(At(1, batch + 1)), Kind::kAtTail);
    EXPECT_EQ(client_.requests_sent(), before);
  }
  const std::shared_ptr<bool> is_awake = Sleep(At(1, 10));
  EXPECT_EQ(environment_.RunTask(writer_client_.Create(layout_.Batch(log_, At(1, 10)), "?")).code, zk::Code::kOk);
  environment_.AdvanceBy(LogReader::kBellPatience + milliseconds(5));
  EXPECT_TRUE(*is_awake);
  EXPECT_TRUE(HasReason(Read(At(1, 10)).status(), Reason::kStoreCorrupt));
  reader_.reset();
  environment_.AdvanceBy(minutes(1));
}

// A reader asleep in a segment that is sealed, read by others and deleted wakes up and learns it.
TEST_F(LogReaderTest, SleeperInADeletedSegmentWakes) {
  Write({"a"}, {.in_flight_max = 1, .batch_messages_max = 1, .segment_batches_max = 2});
  const std::shared_ptr<bool> is_awake = Sleep(At(1, 5));  // its name will never come
  environment_.AdvanceBy(milliseconds(100));
  EXPECT_FALSE(*is_awake);
  Write({"b", "c"});
  for (std::uint32_t batch = 0; batch < 3; ++batch) Delete(layout_.Batch(log_, At(1, batch)));
  Delete(layout_.Segment(log_, 1));
  environment_.AdvanceBy(LogReader::kSlowPoll + milliseconds(100));
  EXPECT_TRUE(*is_awake);
  EXPECT_EQ(KindAt(At(1, 5)), Kind::kSegmentGone);
  // One that lies down after the deletion is not left to a watch that never fires.
  const std::shared_ptr<bool> is_awake_too = Sleep(At(1, 5));
  environment_.AdvanceBy(milliseconds(100));
  EXPECT_TRUE(*is_awake_too);
}

// An expired session takes the watches along; the sleeper wakes and looks again.
TEST_F(LogReaderTest, ExpiredSessionWakesSleepers) {
  Write({"a"});
  const std::shared_ptr<bool> is_awake = Sleep(At(1, 1));
  environment_.AdvanceBy(milliseconds(100));
  ensemble_.ExpireSession(client_.session().session_id);
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(*is_awake);
  Write({"b"});
  EXPECT_EQ(KindAt(At(1, 1)), Kind::kBatch);
}

// Without a connection reading fails with a reason, and works when it is back; nothing that was fetched in between is
// taken for a hole.
TEST_F(LogReaderTest, LostConnectionsAreNotHoles) {
  std::vector<std::string> texts;
  for (int i = 0; i < 30; ++i) texts.push_back(Cat("m", i));
  Write(texts);
  std::vector<std::string> read;
  Position at = At(1, 0);
  int failures = 0;
  for (int round = 0; read.size() < texts.size() && round < 1000; ++round) {
    if (round % 3 == 0) client_.LoseReplyToNext([](const zk::Request&) { return true; });
    if (round % 7 == 0) client_.Disconnect();
    const absl::StatusOr<LogReader::Step> step = Read(at);
    if (!step.ok()) {
      EXPECT_TRUE(HasReason(step.status(), Reason::kZookeeperUnavailable)) << step.status();
      ++failures;
      environment_.AdvanceBy(milliseconds(50));
      continue;
    }
    ASSERT_EQ(step->kind, Kind::kBatch);
    read.emplace_back(step->batch->message(0));
    at = step->next;
  }
  EXPECT_GT(failures, 5);
  EXPECT_EQ(read, texts);
}

// A damaged batch is reported with its path; those around it are read.
TEST_F(LogReaderTest, DamagedBatchIsReported) {
  Write({"a", "b", "c"});
  environment_.RunTask(writer_client_.Set(layout_.Batch(log_, At(1, 1)), "damage", zk::kAnyVersion));
  EXPECT_EQ(KindAt(At(1, 0)), Kind::kBatch);
  const absl::Status damaged = Read(At(1, 1)).status();
  EXPECT_TRUE(HasReason(damaged, Reason::kStoreCorrupt)) << damaged;
  EXPECT_EQ(DetailsOf(damaged).path, layout_.Batch(log_, At(1, 1)));
  EXPECT_EQ(KindAt(At(1, 2)), Kind::kBatch);
}

// Batches are fetched ahead: a long log is read in much less time than a round trip for each.
TEST_F(LogReaderTest, ReadsAhead) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(Cat("m", i));
  Write(texts);
  reader_.reset();
  BatchCache cache(1 << 20);
  reader_ = std::make_shared<LogReader>(environment_, client_, layout_, log_, cache, environment_.MakeStrand());
  const Instant before = environment_.Now();
  EXPECT_EQ(ReadAll(), texts);
  EXPECT_LT(environment_.Now() - before, milliseconds(100));
  reader_.reset();
  environment_.AdvanceBy(minutes(1));
}

// A log of more segments than the reader remembers is read whole, twice.
TEST_F(LogReaderTest, ManySegmentsAreReadWhole) {
  std::vector<std::string> texts;
  for (int i = 0; i < 160; ++i) texts.push_back(Cat("m", i));
  Write(texts, {.in_flight_max = 1, .batch_messages_max = 1, .segment_batches_max = 2});
  ASSERT_GT(written_.back().segment(), 70u);
  EXPECT_EQ(ReadAll(), texts);
  EXPECT_EQ(ReadAll(), texts);
}

// A producer's chain moves on to the next generation before its versions could wrap: nothing is lost or repeated, and
// message ids differ.
TEST_F(LogReaderTest, ChainsMoveOnToTheNextGeneration) {
  std::vector<std::string> texts;
  for (int i = 0; i < 50; ++i) texts.push_back(Cat("m", i));
  Write(texts, {.in_flight_max = 3, .batch_messages_max = 1, .chain_versions_max = 7});
  EXPECT_EQ(ReadAll(), texts);
  EXPECT_GE(last_generation_, 7u);
}

// When the leader says that a batch was created.
TEST_F(LogReaderTest, TellsCreateTimes) {
  Write({"a"});
  const absl::StatusOr<WallTime> time = environment_.RunTask(reader_->CreateTimeOf(At(1, 0)));
  ASSERT_TRUE(time.ok());
  EXPECT_LE(environment_.WallNow() - *time, seconds(1));
  EXPECT_TRUE(absl::IsNotFound(environment_.RunTask(reader_->CreateTimeOf(At(1, 1))).status()));
}

}  // namespace
}  // namespace postkeeper
