// A cursor in a simulated ZooKeeper, with an owner that can be deposed, for the tests of the cursor.
#ifndef POSTKEEPER_TESTS_SUPPORT_CURSOR_TEST_H_
#define POSTKEEPER_TESTS_SUPPORT_CURSOR_TEST_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/catalog.h"
#include "zkstore/cursor.h"
#include "zkstore/errors.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {

inline bool IsMulti(const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; }

class CursorTest : public testing::Test {
 protected:
  CursorTest() : environment_(1), ensemble_(environment_), client_(ensemble_), other_client_(ensemble_) {
    environment_.AdvanceBy(std::chrono::seconds(1));
    Catalog catalog(environment_, other_client_, layout_);
    EXPECT_TRUE(environment_.RunTask(catalog.Open()).ok());
    LogName name{LogKind::kQueue, "default", "q"};
    absl::StatusOr<Catalog::Created> created = environment_.RunTask(catalog.Create(name, QueueSettings()));
    EXPECT_TRUE(created.ok());
    log_ = created->entry.uid;
    process_ = ProcessId::Make(environment_);
    held_ = Take(client_, process_);
    cursor_ = Open();
  }

  ~CursorTest() override {
    if (cursor_) cursor_->Abandon();
    cursor_.reset();
    environment_.AdvanceBy(std::chrono::minutes(1));
  }

  OwnerView Take(zk::Client& client, const ProcessId& process) {
    std::string address = "here";
    const absl::StatusOr<OwnerView> taken =
        environment_.RunTask(TakeOwnership(client, layout_, log_, process, address));
    EXPECT_TRUE(taken.ok()) << taken.status();
    return taken.value_or(OwnerView{});
  }

  // The cursor as its owner would open it now.
  std::shared_ptr<Cursor> Open(std::int32_t version_max = Cursor::kVersionMax) {
    Cursor::Listener listener;
    listener.head = [] { return Cursor::Head{.oldest = Position(1, 0, 0), .messages = 42}; };
    listener.on_lost = [this](const absl::Status& why) { lost_.push_back(why); };
    listener.on_written = [this](std::size_t changes, std::size_t) { written_.push_back(changes); };
    auto cursor = std::make_shared<Cursor>(environment_, client_, layout_, log_, log_, held_, environment_.MakeStrand(),
                                           std::move(listener), version_max);
    const absl::Status loaded = environment_.RunTask(cursor->Load());
    EXPECT_TRUE(loaded.ok()) << loaded;
    for (std::uint64_t none = 0; none < Layout::kFirstSegment; ++none) cursor->settled().LearnSegmentEnd(none, 0);
    return cursor;
  }
  void Reopen() {
    cursor_->Abandon();
    cursor_ = Open();
  }

  // Batches of so many messages each, from the start of the log; the cursor knows them.
  void MakeBatches(int count, int messages) {
    const std::string prefix = layout_.BatchPrefix(log_, 1);
    for (int i = 0; i < count; ++i) {
      auto done = [](const zk::Response& made) { EXPECT_EQ(made.code, zk::Code::kOk); };
      zk::Request request{.kind = zk::Request::Kind::kCreate, .path = prefix};
      request.mode = zk::CreateMode::kPersistentSequential;
      other_client_.Submit(std::move(request), done);
      cursor_->settled().LearnBatch(At(i), messages);
    }
    environment_.AdvanceBy(std::chrono::seconds(1));
  }
  static Position At(int batch, int index = 0) {
    return Position(1, static_cast<std::uint32_t>(batch), static_cast<std::uint32_t>(index));
  }

  using Outcome = std::shared_ptr<std::vector<absl::Status>>;
  Outcome Write(std::vector<Cursor::Change> changes) {
    auto outcome = std::make_shared<std::vector<absl::Status>>();
    cursor_->Write(std::move(changes), [outcome](absl::Status status) { outcome->push_back(std::move(status)); });
    return outcome;
  }
  Outcome Settle(std::vector<Position> positions) {
    std::vector<Cursor::Change> changes;
    for (Position position : positions) changes.push_back({position, std::nullopt});
    return Write(std::move(changes));
  }
  absl::Status Await(const Outcome& outcome) {
    EXPECT_TRUE(environment_.RunUntil([&] { return !outcome->empty(); }, std::chrono::minutes(1)));
    EXPECT_THAT(*outcome, testing::SizeIs(1)) << "a call is answered once";
    return outcome->empty() ? absl::UnknownError("not answered") : outcome->front();
  }
  std::vector<std::string> BatchesStored() {
    return environment_.RunTask(other_client_.Children(layout_.Segment(log_, 1))).children;
  }
  std::vector<std::string> ChildrenOf(const std::string& path) {
    return environment_.RunTask(other_client_.Children(path)).children;
  }
  storage::v1::CursorRecord Record(std::uint32_t generation = 1) {
    storage::v1::CursorRecord record;
    const zk::Response read = environment_.RunTask(other_client_.Get(layout_.Cursor(log_, log_, generation)));
    EXPECT_TRUE(record.ParseFromString(read.data));
    return record;
  }
  std::int32_t StoredVersion() {
    return environment_.RunTask(other_client_.Exists(layout_.Cursor(log_, log_, 1))).stat.version;
  }
  // As if another process had it.
  OwnerView Depose() {
    const ProcessId other = ProcessId::Make(environment_);
    return Take(other_client_, other);  // ours is not registered
  }

  // Another process takes the log, reads the cursor and writes it `writes` times.
  void Succeed(int writes, std::int32_t version_max = Cursor::kVersionMax) {
    const OwnerView held = Depose();
    Cursor::Listener listener;
    listener.head = [] { return Cursor::Head{.oldest = Position(1, 0, 0)}; };
    auto next = std::make_shared<Cursor>(environment_, other_client_, layout_, log_, log_, held,
                                         environment_.MakeStrand(), std::move(listener), version_max);
    ASSERT_TRUE(environment_.RunTask(next->Load()).ok());
    for (int i = 0; i < writes; ++i) {
      std::vector<Cursor::Change> changes;
      changes.push_back({Position(9, 0, static_cast<std::uint32_t>(i)), std::nullopt});
      ASSERT_TRUE(environment_.RunTask(next->WriteAndWait(std::move(changes))).ok());
    }
  }
  // A write whose reply is lost, or that is lost itself, and whose sender cannot reach ZooKeeper until Reconnect.
  Outcome LastWrite(Position position, bool is_in) {
    if (is_in) {
      client_.LoseReplyToNext(IsMulti);
    } else {
      client_.LoseNext(IsMulti);
    }
    Outcome outcome = Settle({position});
    client_.SetConnectable(false);
    environment_.AdvanceBy(std::chrono::milliseconds(5));
    return outcome;
  }
  void Reconnect() { client_.SetConnectable(true); }
  // "ok" or the reason.
  std::string Fate(const Outcome& outcome) {
    const absl::Status status = Await(outcome);
    return status.ok() ? "ok" : std::string(ReasonName(ReasonOf(status).value_or(Reason::kBug)));
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient client_;
  zk::SimulatedClient other_client_;
  const Layout layout_{"/postkeeper"};
  Uid log_;
  ProcessId process_;
  OwnerView held_;
  std::vector<absl::Status> lost_;
  std::vector<std::size_t> written_;
  std::shared_ptr<Cursor> cursor_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_CURSOR_TEST_H_
