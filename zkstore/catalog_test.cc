// The catalog of queues and topics: what is created is there once, what is deleted is gone with its data, whatever
// happens to replies and whoever writes at the same time.
#include "zkstore/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/log_appender.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using OnTheWay = zk::SimulatedClient::OnTheWay;

bool IsMulti(const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; }

class CatalogTest : public testing::Test {
 protected:
  CatalogTest()
      : environment_(1),
        ensemble_(environment_),
        client_(ensemble_),
        other_client_(ensemble_),
        catalog_(environment_, client_, layout_) {
    environment_.AdvanceBy(seconds(1));
    process_ = ProcessId::Make(environment_);
  }

  ~CatalogTest() override {
    for (const auto& appender : appenders_) environment_.RunTask(appender->Stop(seconds(5)));
    appenders_.clear();
    environment_.AdvanceBy(seconds(60));
  }

  absl::Status Open() { return environment_.RunTask(catalog_.Open()); }
  static LogName QueueName(std::string id) { return {LogKind::kQueue, "default", std::move(id)}; }
  static LogName TopicName(std::string id) { return {LogKind::kTopic, "default", std::move(id)}; }
  absl::StatusOr<Catalog::Created> Create(LogName name, LogSettings settings = QueueSettings()) {
    return environment_.RunTask(catalog_.Create(std::move(name), std::move(settings)));
  }
  absl::StatusOr<LogEntry> Get(LogName name) { return environment_.RunTask(catalog_.Get(std::move(name))); }
  OwnerView Take(const Uid& log) {
    std::string address = "here";
    return environment_.RunTask(TakeOwnership(client_, layout_, log, process_, address)).value();
  }
  absl::Status Delete(const LogEntry& entry, const OwnerView& held) {
    return environment_.RunTask(catalog_.Delete(entry, held));
  }
  std::vector<std::string> ChildrenOf(const std::string& path) {
    return environment_.RunTask(other_client_.Children(path)).children;
  }
  bool Exists(const std::string& path) {
    return environment_.RunTask(other_client_.Exists(path)).code == zk::Code::kOk;
  }

  std::shared_ptr<LogAppender> MakeAppender(zk::Client& client, const Uid& log, AppendOptions options = {}) {
    appenders_.push_back(std::make_shared<LogAppender>(
        environment_, client, layout_, log, process_, [this] { return ++last_generation_; }, environment_.MakeStrand(),
        options, LogAppender::Listener{}));
    return appenders_.back();
  }
  using Outcome = std::shared_ptr<std::optional<absl::StatusOr<Appended>>>;
  static Outcome Append(LogAppender& appender, std::string text) {
    auto outcome = std::make_shared<std::optional<absl::StatusOr<Appended>>>();
    std::vector<NewMessage> messages(1);
    messages[0].bytes = std::move(text);
    appender.Append(std::move(messages), "", std::nullopt,
                    [outcome](absl::StatusOr<Appended> result) { *outcome = std::move(result); });
    return outcome;
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient client_;
  zk::SimulatedClient other_client_;
  const Layout layout_{"/some/where/postkeeper"};
  Catalog catalog_;
  ProcessId process_;
  std::uint32_t last_generation_ = 0;
  std::vector<std::shared_ptr<LogAppender>> appenders_;
};

// A store is made, with its parents, and found again.
TEST_F(CatalogTest, OpensTwice) {
  EXPECT_TRUE(Open().ok());
  EXPECT_TRUE(Open().ok());
  EXPECT_THAT(ChildrenOf(layout_.root()), ElementsAre("data", "format", "names", "replicas", "trash"));
}

// A store that a newer postkeeper wrote is refused, and so is something that is no store; both are left as they are.
TEST_F(CatalogTest, RefusesWhatItDoesNotKnow) {
  ASSERT_TRUE(Open().ok());
  storage::v1::Format format;
  format.set_version(Layout::kFormatVersion + 1);
  environment_.RunTask(client_.Set(layout_.Format(), format.SerializeAsString(), zk::kAnyVersion));
  EXPECT_TRUE(HasReason(Open(), Reason::kStoreFormatNewer));
  environment_.RunTask(client_.Set(layout_.Format(), "something else", zk::kAnyVersion));
  const absl::Status corrupt = Open();
  EXPECT_TRUE(HasReason(corrupt, Reason::kStoreCorrupt));
  EXPECT_EQ(DetailsOf(corrupt).path, layout_.Format());
}

// What is created is read back; a second creation finds the first with its settings.
TEST_F(CatalogTest, CreatingTwiceFindsTheFirst) {
  ASSERT_TRUE(Open().ok());
  QueueSettings settings;
  settings.max_messages = 7;
  const absl::StatusOr<Catalog::Created> first = Create(QueueName("q"), settings);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->is_new);
  const absl::StatusOr<Catalog::Created> second = Create(QueueName("q"));
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(second->is_new);
  EXPECT_EQ(second->entry.uid, first->entry.uid);
  EXPECT_EQ(std::get<QueueSettings>(second->entry.settings), settings);
  const TopicSettings topic{.retention = seconds(77), .max_messages = 5, .max_bytes = 6};
  ASSERT_TRUE(Create(TopicName("q"), topic)->is_new) << "a topic may have the name of a queue";
  EXPECT_EQ(std::get<TopicSettings>(Get(TopicName("q"))->settings), topic);
}

// The reply of a creation is lost, or the creation itself: the caller learns what happened.
TEST_F(CatalogTest, CreationSurvivesLostReplies) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Create(QueueName("first")).ok());
  client_.LoseReplyToNext(IsMulti);
  const absl::StatusOr<Catalog::Created> lost = Create(QueueName("q"));
  EXPECT_TRUE(HasReason(lost.status(), Reason::kOutcomeUnknown)) << lost.status();  // and it could not look, either
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(Create(QueueName("q")).ok());
  client_.LoseNext(IsMulti);
  EXPECT_FALSE(Create(QueueName("r")).ok());
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(Create(QueueName("r"))->is_new);
}

// Names come in their order, in pages; deleted ones are left out.
TEST_F(CatalogTest, ListsInPages) {
  ASSERT_TRUE(Open().ok());
  for (const char* id : {"b", "d", "a", "c", "e"}) ASSERT_TRUE(Create(QueueName(id)).ok());
  ASSERT_TRUE(Create(TopicName("t"), TopicSettings()).ok());
  auto page = [this](std::string after, int limit) {
    std::vector<std::string> ids;
    std::string name_space = "default";
    const auto entries = environment_.RunTask(catalog_.List(LogKind::kQueue, name_space, std::move(after), limit));
    for (const LogEntry& entry : *entries) ids.push_back(entry.name.id);
    return ids;
  };
  EXPECT_THAT(page("", 2), ElementsAre("a", "b"));
  EXPECT_THAT(page("b", 2), ElementsAre("c", "d"));
  EXPECT_THAT(page("d", 100), ElementsAre("e"));
  EXPECT_THAT(page("e", 100), IsEmpty());
  EXPECT_THAT(page("bb", 1), ElementsAre("c"));
  EXPECT_EQ(environment_.RunTask(catalog_.ListAll())->size(), 6u);
  std::string nowhere = "nowhere";
  std::string from;
  EXPECT_THAT(*environment_.RunTask(catalog_.List(LogKind::kQueue, nowhere, from, 10)), IsEmpty());
}

// An update of what has changed since is refused; one whose reply was lost is answered by what is there.
TEST_F(CatalogTest, UpdatesAreChecked) {
  ASSERT_TRUE(Open().ok());
  LogEntry entry = Create(QueueName("q"))->entry;
  LogEntry changed = entry;
  std::get<QueueSettings>(changed.settings).max_messages = 5;
  const absl::StatusOr<LogEntry> updated = environment_.RunTask(catalog_.Update(changed));
  ASSERT_TRUE(updated.ok());
  EXPECT_EQ(updated->version, entry.version + 1);
  EXPECT_EQ(std::get<QueueSettings>(Get(QueueName("q"))->settings).max_messages, 5);
  EXPECT_TRUE(HasReason(environment_.RunTask(catalog_.Update(entry)).status(), Reason::kEtagMismatch));
  client_.LoseReplyToNext([](const zk::Request& request) { return request.kind == zk::Request::Kind::kSet; });
  EXPECT_TRUE(HasReason(environment_.RunTask(catalog_.Update(*updated)).status(), Reason::kOutcomeUnknown));
  entry.name.id = "absent";
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(absl::IsNotFound(environment_.RunTask(catalog_.Update(entry)).status()));
}

// Deleting frees the name at once and tells appenders; the sweeper takes the data, the owner record last.
TEST_F(CatalogTest, DeletesAndSweeps) {
  ASSERT_TRUE(Open().ok());
  const LogEntry entry = Create(QueueName("q"))->entry;
  const std::shared_ptr<LogAppender> appender = MakeAppender(other_client_, entry.uid, {.batch_messages_max = 1});
  for (int i = 0; i < 40; ++i) Append(*appender, "x");
  environment_.AdvanceBy(seconds(1));
  ASSERT_TRUE(Delete(entry, Take(entry.uid)).ok());
  EXPECT_TRUE(absl::IsNotFound(Get(QueueName("q")).status()));
  EXPECT_TRUE(Create(QueueName("q"))->is_new);
  bool is_clean = false;
  int sweeps = 0;
  while (!is_clean && sweeps < 100) {
    const std::int64_t before = client_.requests_sent();
    const absl::StatusOr<bool> swept = environment_.RunTask(catalog_.Sweep(10));
    ASSERT_TRUE(swept.ok()) << swept.status();
    EXPECT_LE(client_.requests_sent() - before, 40) << "a sweep is bounded";
    is_clean = *swept;
    ++sweeps;
    EXPECT_TRUE(is_clean || Exists(layout_.Owner(entry.uid)));
  }
  EXPECT_GT(sweeps, 3);
  EXPECT_FALSE(Exists(layout_.LogData(entry.uid)));
  EXPECT_THAT(ChildrenOf(layout_.Trash()), IsEmpty());
  const Outcome late = Append(*appender, "late");
  environment_.AdvanceBy(seconds(1));
  ASSERT_TRUE(late->has_value());
  EXPECT_EQ((*late)->status().code(), absl::StatusCode::kNotFound);
}

// Only who owns the log deletes it, and only what it has read.
TEST_F(CatalogTest, DeletionIsFenced) {
  ASSERT_TRUE(Open().ok());
  LogEntry entry = Create(QueueName("q"))->entry;
  const OwnerView old = Take(entry.uid);
  const OwnerView held = Take(entry.uid);
  EXPECT_TRUE(HasReason(Delete(entry, old), Reason::kNoOwner));
  const absl::StatusOr<LogEntry> updated = environment_.RunTask(catalog_.Update(entry));
  ASSERT_TRUE(updated.ok());
  EXPECT_TRUE(HasReason(Delete(entry, held), Reason::kEtagMismatch));
  EXPECT_TRUE(Get(QueueName("q")).ok());
  EXPECT_TRUE(Delete(*updated, held).ok());
}

// The reply of a deletion is lost: the repetition is told that it is gone, or the deletion is found done.
TEST_F(CatalogTest, DeletionSurvivesALostReply) {
  ASSERT_TRUE(Open().ok());
  const LogEntry entry = Create(QueueName("q"))->entry;
  const OwnerView held = Take(entry.uid);
  client_.LoseReplyToNext(IsMulti);
  const absl::Status deleted = Delete(entry, held);
  EXPECT_TRUE(HasReason(deleted, Reason::kOutcomeUnknown)) << deleted;
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE(absl::IsNotFound(Get(QueueName("q")).status()));
  EXPECT_TRUE(Exists(layout_.Trash(entry.uid)));
}

// A queue is deleted while it is written to and its segments are sealed: every append that was answered OK came before
// the deletion, and later ones are told NOT_FOUND.
TEST_F(CatalogTest, DeletionRacesAppenders) {
  ASSERT_TRUE(Open().ok());
  for (int round = 0; round < 20; ++round) {
    const LogEntry entry = Create(QueueName("q"))->entry;
    const OwnerView held = Take(entry.uid);
    const std::shared_ptr<LogAppender> appender =
        MakeAppender(other_client_, entry.uid, {.batch_messages_max = 1, .segment_batches_max = 2});
    std::vector<Outcome> outcomes;
    for (int i = 0; i < 60; ++i) outcomes.push_back(Append(*appender, "x"));
    environment_.AdvanceBy(microseconds(137 * round));
    const absl::Status deleted = Delete(entry, held);
    EXPECT_TRUE(deleted.ok()) << deleted;
    environment_.AdvanceBy(seconds(5));
    int accepted = 0;
    for (const Outcome& outcome : outcomes) {
      ASSERT_TRUE(outcome->has_value()) << round;
      if ((*outcome)->ok()) ++accepted;
      EXPECT_TRUE((*outcome)->ok() || absl::IsNotFound((*outcome)->status())) << (*outcome)->status();
    }
    int stored = 0;
    for (const std::string& segment : ChildrenOf(layout_.Segments(entry.uid))) {
      for (const std::string& batch : ChildrenOf(Cat(layout_.Segments(entry.uid), "/", segment))) {
        const zk::Response read =
            environment_.RunTask(other_client_.Get(Cat(layout_.Segments(entry.uid), "/", segment, "/", batch)));
        if (!(*Batch::Decode(read.data))->ends_segment()) ++stored;
      }
    }
    EXPECT_EQ(stored, accepted);
    ASSERT_TRUE(*environment_.RunTask(catalog_.Sweep(1000)));
  }
}

// A writer is paused with a batch on its way, the queue is deleted and one of the same name created: the late batch
// reaches neither.
TEST_F(CatalogTest, PausedWriterOfADeletedQueueWritesNowhere) {
  ASSERT_TRUE(Open().ok());
  const LogEntry first = Create(QueueName("q"))->entry;
  const std::shared_ptr<LogAppender> appender = MakeAppender(other_client_, first.uid);
  const Outcome before = Append(*appender, "before");
  environment_.AdvanceBy(seconds(1));
  ASSERT_TRUE((*before)->ok());
  other_client_.HoldNext(IsMulti);
  const Outcome paused = Append(*appender, "paused");
  environment_.AdvanceBy(milliseconds(10));
  other_client_.Disconnect(OnTheWay::kHeld);
  ASSERT_TRUE(Delete(first, Take(first.uid)).ok());
  ASSERT_TRUE(*environment_.RunTask(catalog_.Sweep(1000)));
  const LogEntry second = Create(QueueName("q"))->entry;
  EXPECT_GT(other_client_.ReleaseHeld(), 0u);
  environment_.AdvanceBy(seconds(5));
  ASSERT_TRUE(paused->has_value());
  EXPECT_FALSE((*paused)->ok());
  EXPECT_THAT(ChildrenOf(layout_.Segment(second.uid, Layout::kFirstSegment)), IsEmpty());
  EXPECT_FALSE(Exists(layout_.LogData(first.uid)));
}

}  // namespace
}  // namespace postkeeper
