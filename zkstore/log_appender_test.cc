// The log in a simulated ZooKeeper: what is appended is read, once and in order, whatever happens to replies, sessions
// and segments.
#include "zkstore/log_appender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "zkstore/catalog.h"
#include "zkstore/errors.h"
#include "zkstore/log_reader.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

// One log, one appender in a session of its own, and a reader in another.
class LogTest : public testing::Test {
 protected:
  explicit LogTest(std::uint64_t seed = 1) : environment_(seed), ensemble_(environment_) {
    client_ = std::make_unique<zk::SimulatedClient>(ensemble_);
    other_client_ = std::make_unique<zk::SimulatedClient>(ensemble_);
    environment_.RunUntil([this] { return IsConnected(*client_) && IsConnected(*other_client_); }, seconds(10));
    Catalog catalog(environment_, *other_client_, layout_);
    EXPECT_TRUE(environment_.RunTask(catalog.Open()).ok());
    LogName name{LogKind::kQueue, "default", "q"};
    absl::StatusOr<Catalog::Created> created = environment_.RunTask(catalog.Create(name, QueueSettings()));
    EXPECT_TRUE(created.ok());
    entry_ = created->entry;
    process_ = ProcessId::Make(environment_);
  }

  ~LogTest() override {
    client_->ReleaseHeld();
    if (appender_) environment_.RunTask(appender_->Stop(seconds(5)));
    appender_.reset();
    environment_.AdvanceBy(seconds(60));
  }

  static bool IsConnected(const zk::Client& client) { return client.session().state == zk::SessionState::kConnected; }

  void MakeAppender(AppendOptions options = {}) {
    LogAppender::Listener listener;
    listener.on_appended = [this](Position at, std::shared_ptr<const Batch> batch) {
      appended_.emplace_back(at, std::move(batch));
    };
    appender_ = std::make_shared<LogAppender>(
        environment_, *client_, layout_, entry_.uid, process_, [this] { return ++last_generation_; },
        environment_.MakeStrand(), options, std::move(listener));
  }

  // The fate of one call; still open if it has no value.
  struct Call {
    std::string text;
    std::optional<absl::StatusOr<Appended>> outcome;
    int told = 0;
  };

  std::shared_ptr<Call> Append(std::string text, std::string request_id = "") {
    std::vector<NewMessage> messages(1);
    messages[0].bytes = text;
    auto call = std::make_shared<Call>();
    call->text = std::move(text);
    appender_->Append(std::move(messages), std::move(request_id), std::nullopt,
                      [call](absl::StatusOr<Appended> outcome) {
                        ++call->told;
                        call->outcome = std::move(outcome);
                      });
    calls_.push_back(call);
    return call;
  }

  std::int64_t OpenCalls() const {
    return std::count_if(calls_.begin(), calls_.end(), [](const auto& call) { return !call->outcome; });
  }

  // Everything in the log, read by another session from the first segment on.
  std::vector<std::string> ReadAll(std::vector<std::string>* message_ids = nullptr) {
    BatchCache cache(1 << 20);
    auto reader = std::make_shared<LogReader>(environment_, *other_client_, layout_, entry_.uid, cache,
                                              environment_.MakeStrand());
    std::vector<std::string> texts;
    Position at(Layout::kFirstSegment, 0, 0);
    for (int step = 0; step < 100'000; ++step) {
      absl::StatusOr<LogReader::Step> read = environment_.RunTask(reader->Read(at));
      EXPECT_TRUE(read.ok()) << read.status();
      if (!read.ok() || read->kind == LogReader::Step::Kind::kAtTail) break;
      EXPECT_NE(read->kind, LogReader::Step::Kind::kHole) << at.DebugString();
      EXPECT_NE(read->kind, LogReader::Step::Kind::kSegmentGone) << at.DebugString();
      if (read->batch) {
        for (int i = 0; i < read->batch->size(); ++i) {
          texts.emplace_back(read->batch->message(i));
          if (message_ids != nullptr) message_ids->push_back(read->batch->MessageId(i));
        }
      }
      at = read->next;
    }
    return texts;
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  const Layout layout_{"/postkeeper"};
  std::unique_ptr<zk::SimulatedClient> client_;
  std::unique_ptr<zk::SimulatedClient> other_client_;
  LogEntry entry_;
  ProcessId process_;
  std::uint32_t last_generation_ = 0;
  std::shared_ptr<LogAppender> appender_;
  std::vector<std::pair<Position, std::shared_ptr<const Batch>>> appended_;
  std::vector<std::shared_ptr<Call>> calls_;
};

// What was appended is there, in the order of the calls, under the ids that the calls were told.
TEST_F(LogTest, AppendedMessagesAreReadInOrder) {
  MakeAppender();
  for (int i = 0; i < 10; ++i) Append(Cat("m", i));
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  std::vector<std::string> ids;
  const std::vector<std::string> texts = ReadAll(&ids);
  ASSERT_EQ(texts.size(), 10u);
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(texts[i], calls_[i]->text);
    ASSERT_TRUE(calls_[i]->outcome->ok());
    EXPECT_EQ(ids[i], (*calls_[i]->outcome)->MessageId(0));
  }
}

// Calls that come while all slots are busy share a batch.
TEST_F(LogTest, CallsThatComeTogetherShareBatches) {
  MakeAppender();
  Append("first");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  for (int i = 0; i < 1000; ++i) Append("x");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  EXPECT_EQ(ReadAll().size(), 1001u);
  EXPECT_LE(appended_.size(), 10u);
}

// A batch never grows past its limits.
TEST_F(LogTest, BatchesStayWithinTheirLimits) {
  MakeAppender({.batch_bytes_max = 1000, .batch_messages_max = 7});
  for (int i = 0; i < 100; ++i) Append(std::string(static_cast<std::size_t>(i), 'x'));
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  for (const auto& [position, batch] : appended_) EXPECT_LE(batch->size(), 7);
  EXPECT_EQ(ReadAll().size(), 100u);
}

// A full segment is sealed and the log goes on in the next; a reader follows.
TEST_F(LogTest, FullSegmentsAreSealed) {
  MakeAppender({.in_flight_max = 2, .batch_messages_max = 1, .segment_batches_max = 5});
  std::vector<std::string> expected;
  for (int i = 0; i < 40; ++i) {
    expected.push_back(Cat("m", i));
    Append(expected.back());
  }
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(30)));
  EXPECT_EQ(ReadAll(), expected);
  EXPECT_GE(appended_.back().first.segment(), 5u);
}

// The connection breaks with batches on their way, whether they arrived or not: each is in the log exactly once, and in
// order.
TEST_F(LogTest, LostRepliesNeitherLoseNorRepeat) {
  MakeAppender({.batch_messages_max = 1});
  Append("m0");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 6; ++i) Append(Cat("r", round, ".", i));
    environment_.AdvanceBy(std::chrono::microseconds(50 + 97 * round));
    client_->Disconnect(static_cast<zk::SimulatedClient::OnTheWay>(round % 3));
    environment_.AdvanceBy(milliseconds(20));
    client_->ReleaseHeld();
    ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(20))) << round;
  }
  std::vector<std::string> expected;
  for (const auto& call : calls_) {
    EXPECT_TRUE(call->outcome->ok()) << call->outcome->status();
    expected.push_back(call->text);
  }
  EXPECT_EQ(ReadAll(), expected);
}

// With ZooKeeper gone, calls are answered within the patience: unsent ones are refused and never written, sent ones are
// told that their outcome is unknown, and come to be written when it is back.
TEST_F(LogTest, CallsAreAnsweredWhileZookeeperIsGone) {
  MakeAppender({.in_flight_max = 1, .batch_messages_max = 1});
  Append("before");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  const std::shared_ptr<Call> sent = Append("sent", "id-1");
  const std::shared_ptr<Call> unsent = Append("unsent");
  environment_.AdvanceBy(std::chrono::microseconds(1));
  ensemble_.Stop();
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(2)));
  EXPECT_TRUE(HasReason(sent->outcome->status(), Reason::kOutcomeUnknown)) << sent->outcome->status();
  EXPECT_TRUE(HasReason(unsent->outcome->status(), Reason::kZookeeperUnavailable)) << unsent->outcome->status();
  ensemble_.Start();
  environment_.AdvanceBy(seconds(10));
  Append("after");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(20)));
  EXPECT_THAT(ReadAll(), ElementsAre("before", "sent", "after"));
  // The call with a request_id was told its fate afterwards.
  EXPECT_EQ(sent->told, 2);
  EXPECT_TRUE(sent->outcome->ok());
}

// A deleted log is NOT_FOUND for its appenders, at once and for ever, also under a name that exists again.
TEST_F(LogTest, DeletedLogRefuses) {
  MakeAppender();
  Append("m0");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  Catalog catalog(environment_, *other_client_, layout_);
  std::string address = "there";
  absl::StatusOr<OwnerView> held =
      environment_.RunTask(TakeOwnership(*other_client_, layout_, entry_.uid, process_, address));
  ASSERT_TRUE(held.ok());
  ASSERT_TRUE(environment_.RunTask(catalog.Delete(entry_, *held)).ok());
  ASSERT_TRUE(environment_.RunTask(catalog.Create(entry_.name, QueueSettings())).ok());
  Append("m1");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(10)));
  EXPECT_EQ(calls_.back()->outcome->status().code(), absl::StatusCode::kNotFound) << calls_.back()->outcome->status();
  absl::StatusOr<bool> swept = environment_.RunTask(catalog.Sweep(1000));
  ASSERT_TRUE(swept.ok());
  EXPECT_TRUE(*swept);
  EXPECT_EQ(environment_.RunTask(other_client_->Exists(layout_.LogData(entry_.uid))).code, zk::Code::kNoNode);
}

// Stopping waits for what was sent and leaves no producer znode behind.
TEST_F(LogTest, StopRemovesTheProducer) {
  MakeAppender();
  Append("m0");
  environment_.RunTask(appender_->Stop(seconds(5)));
  EXPECT_TRUE(calls_.back()->outcome->ok());
  const zk::Response producers = environment_.RunTask(other_client_->Children(layout_.Producers(entry_.uid)));
  EXPECT_THAT(producers.children, IsEmpty());
  Append("late");
  EXPECT_TRUE(HasReason(calls_.back()->outcome->status(), Reason::kReplicaDraining));
}

// After a time without calls the producer's znode is removed, and the next call begins another one: under a name of its
// own, so that no id is given twice. A log that is appended to now and then keeps its producer.
TEST_F(LogTest, AnIdleProducerIsRemoved) {
  MakeAppender({.idle_after = seconds(60)});
  const auto producers = [this] {
    return environment_.RunTask(other_client_->Children(layout_.Producers(entry_.uid))).children.size();
  };
  for (int i = 0; i < 10; ++i) {
    Append(Cat("m", i));
    environment_.AdvanceBy(seconds(40));
    EXPECT_EQ(producers(), 1u);
  }
  EXPECT_EQ(last_generation_, 1u);
  environment_.AdvanceBy(seconds(121));
  EXPECT_EQ(producers(), 0u);
  // Calls come at every moment of the removal.
  for (int round = 0; round < 20; ++round) {
    environment_.AdvanceBy(seconds(200));
    Append(Cat("a", round));
    environment_.AdvanceBy(seconds(60) + std::chrono::microseconds(400 * round));
    Append(Cat("b", round));
    ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  }
  EXPECT_GT(last_generation_, 21u);
  std::vector<std::string> expected;
  for (const auto& call : calls_) {
    EXPECT_TRUE(call->outcome->ok());
    expected.push_back(call->text);
  }
  std::vector<std::string> ids;
  EXPECT_EQ(ReadAll(&ids), expected);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), ids.size());
}

// A fence that does not hold any more refuses the calls that carry it; calls behind them are written, and the versions
// stay in step.
TEST_F(LogTest, WrongOwnerVersionRefusesOnlyItsOwnBatch) {
  MakeAppender();
  Append("m0");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  std::vector<NewMessage> messages(1);
  messages[0].bytes = "fenced";
  std::optional<absl::StatusOr<Appended>> fenced;
  appender_->Append(std::move(messages), "id", 17, [&](absl::StatusOr<Appended> outcome) { fenced = outcome; });
  environment_.AdvanceBy(std::chrono::microseconds(1));
  Append("m1");
  Append("m2");
  ASSERT_TRUE(environment_.RunUntil([&] { return OpenCalls() == 0 && fenced; }, seconds(5)));
  EXPECT_TRUE(HasReason(fenced->status(), Reason::kNoOwner)) << fenced->status();
  EXPECT_THAT(ReadAll(), ElementsAre("m0", "m1", "m2"));
}

// Calls with and without a fence that are given at once do not share a batch: the fence refuses none that has not asked
// for it.
TEST_F(LogTest, AFenceRefusesNoCallWithoutOne) {
  MakeAppender({.in_flight_max = 1});
  Append("m0");
  environment_.AdvanceBy(std::chrono::microseconds(1));
  Append("m1");
  std::vector<NewMessage> messages(1);
  messages[0].bytes = "fenced";
  std::optional<absl::StatusOr<Appended>> fenced;
  appender_->Append(std::move(messages), "id", 17, [&](absl::StatusOr<Appended> outcome) { fenced = outcome; });
  Append("m2");
  ASSERT_TRUE(environment_.RunUntil([&] { return OpenCalls() == 0 && fenced; }, seconds(5)));
  EXPECT_TRUE(HasReason(fenced->status(), Reason::kNoOwner)) << fenced->status();
  EXPECT_THAT(ReadAll(), ElementsAre("m0", "m1", "m2"));
}

// The producer's znode is removed while its process writes on (a sweeper took it for dead): it is not made again, where
// its versions would begin anew, but the next generation is, so that no id is given twice.
TEST_F(LogTest, AProducerThatIsGoneIsNotMadeAgain) {
  MakeAppender({.in_flight_max = 1, .batch_messages_max = 1});
  for (int round = 0; round < 3; ++round) {
    Append(Cat("a", round));
    Append(Cat("b", round));
    ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
    const std::string producer = layout_.Producer(entry_.uid, process_, last_generation_);
    ASSERT_EQ(environment_.RunTask(other_client_->Delete(producer, zk::kAnyVersion)).code, zk::Code::kOk);
  }
  Append("told that it is gone");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  Append("last");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  EXPECT_TRUE(calls_.back()->outcome->ok()) << calls_.back()->outcome->status();
  std::vector<std::string> ids;
  const std::vector<std::string> texts = ReadAll(&ids);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), ids.size());
  EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), texts.size());
}

// A batch is refused and its version burnt, while replies are lost at any moment: the version that the burn has raised
// is never taken for the batch.
TEST_F(LogTest, ABurntVersionIsNotTakenForAWrittenBatch) {
  MakeAppender({.in_flight_max = 3, .batch_messages_max = 1});
  std::vector<std::string> expected;
  for (int round = 0; round < 30; ++round) {
    Append(Cat("before", round));
    std::vector<NewMessage> messages(1);
    messages[0].bytes = "fenced";
    std::optional<absl::StatusOr<Appended>> fenced;
    appender_->Append(std::move(messages), "", 17, [&](absl::StatusOr<Appended> outcome) { fenced = outcome; });
    Append(Cat("after", round));
    environment_.AdvanceBy(std::chrono::microseconds(83 * round));
    client_->Disconnect(static_cast<zk::SimulatedClient::OnTheWay>(round % 3));
    environment_.AdvanceBy(milliseconds(20));
    client_->ReleaseHeld();
    ASSERT_TRUE(environment_.RunUntil([&] { return OpenCalls() == 0 && fenced; }, seconds(20))) << round;
    EXPECT_FALSE(fenced->ok()) << round;
    expected.push_back(Cat("before", round));
    expected.push_back(Cat("after", round));
  }
  EXPECT_EQ(ReadAll(), expected);
}

// More is given than ZooKeeper takes: calls past the bound are refused, nothing grows without limit.
TEST_F(LogTest, RefusesMoreThanItsQueueHolds) {
  MakeAppender({.queued_bytes_max = 10'000});
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    const std::shared_ptr<Call> call = Append(std::string(1000, 'x'));
    if (call->outcome && HasReason(call->outcome->status(), Reason::kTooManyCalls)) ++refused;
  }
  EXPECT_GT(refused, 80);
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(5)));
  EXPECT_EQ(static_cast<int>(ReadAll().size()), 100 - refused);
}

// Random disconnections, expired sessions, restarts of the ensemble and seals, from a seed: every call that was told OK
// is in the log exactly once, no refused one is, unknown ones at most once, and the order of one caller holds.
class LogFaultTest : public LogTest, public testing::WithParamInterface<int> {
 protected:
  LogFaultTest() : LogTest(static_cast<std::uint64_t>(GetParam())) {}
};

TEST_P(LogFaultTest, ExactlyOnceUnderFaults) {
  zk::SimulatedClient& client = *client_;
  MakeAppender({.in_flight_max = 3, .batch_messages_max = 3, .segment_batches_max = 8});
  int sent = 0;
  for (int round = 0; round < 60; ++round) {
    const std::uint64_t dice = environment_.Random64();
    for (std::uint64_t i = 0; i < dice % 7; ++i) Append(Cat("m", sent++));
    environment_.AdvanceBy(std::chrono::microseconds(dice / 7 % 3000));
    switch (dice / 100'000 % 6) {
      case 0:
        client.Disconnect(static_cast<zk::SimulatedClient::OnTheWay>(dice / 1'000'000 % 3));
        break;
      case 1:
        ensemble_.ExpireSession(client.session().session_id);
        break;
      case 2:
        ensemble_.Stop();
        environment_.AdvanceBy(milliseconds(dice / 1'000'000 % 3000));
        ensemble_.Start();
        break;
      default:
        client.ReleaseHeld();
        break;
    }
  }
  client.ReleaseHeld();
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(60)));
  environment_.AdvanceBy(seconds(30));
  Append("last");
  ASSERT_TRUE(environment_.RunUntil([this] { return OpenCalls() == 0; }, seconds(60)));
  const std::vector<std::string> log = ReadAll();
  std::map<std::string, int> times;
  for (const std::string& text : log) ++times[text];
  int last_number = -1;
  for (const std::string& text : log) {
    if (text == "last") continue;
    const int number = std::stoi(text.substr(1));
    EXPECT_GT(number, last_number) << "the order of the calls is broken";
    last_number = number;
  }
  for (const auto& call : calls_) {
    if (call->outcome->ok()) {
      EXPECT_EQ(times[call->text], 1) << call->text << " was told OK";
    } else if (HasReason(call->outcome->status(), Reason::kOutcomeUnknown)) {
      EXPECT_LE(times[call->text], 1) << call->text;
    } else {
      EXPECT_EQ(times[call->text], 0) << call->text << " was told " << call->outcome->status();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LogFaultTest, testing::Range(1, 60));

}  // namespace
}  // namespace postkeeper
