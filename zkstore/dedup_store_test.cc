// The ids of deleted batches: what is saved is found again, packed, bounded and for as long as the window lasts.
#include "zkstore/dedup_store.h"

#include "tests/support/cursor_test.h"

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Duration kWindow = minutes(10);

class DedupStoreTest : public CursorTest {
 protected:
  DedupStoreTest() {
    environment_.AdvanceBy(hours(1));
    OpenStore();
  }

  // As an owner that takes the log now.
  void OpenStore() {
    held_ = Take(client_, process_);
    store_ = std::make_shared<DedupStore>(environment_, client_, layout_, log_, held_, environment_.Now(), kWindow);
  }
  DedupStore::Saved Load() {
    absl::StatusOr<DedupStore::Saved> saved = environment_.RunTask(store_->Load());
    EXPECT_TRUE(saved.ok()) << saved.status();
    return std::move(saved).value_or(DedupStore::Saved{});
  }
  // So many ids, each of one message, in one batch.
  BatchIds Ids(std::uint32_t version, int count) {
    BatchIds ids;
    ids.writer = {.process = process_, .generation = 3, .version = version};
    ids.written_at = environment_.Now();
    for (int i = 0; i < count; ++i) {
      ids.ids.push_back({HashOfRequestId(Cat(version, "/", i)), static_cast<std::uint32_t>(i), 1});
    }
    return ids;
  }
  // Saves the ids of these batches as a write that deletes them would.
  void Delete(const std::vector<Position>& batches) {
    std::optional<zk::Op> carry = store_->Carry(batches);
    if (carry) {
      std::vector<zk::Op> ops;
      ops.push_back(*std::move(carry));
      ASSERT_EQ(environment_.RunTask(client_.Multi(std::move(ops))).code, zk::Code::kOk);
    }
    store_->OnWritten();
  }
  std::vector<std::string> Nodes() { return ChildrenOf(layout_.Dedups(log_)); }
  std::size_t BytesOfNode(const std::string& name) {
    return environment_.RunTask(other_client_.Get(Cat(layout_.Dedups(log_), "/", name))).data.size();
  }

  std::shared_ptr<DedupStore> store_;
};

// Hashes are durable: this build finds what another one has saved.
TEST(IdHashTest, IsDurable) {
  EXPECT_EQ(HashOfRequestId("order-17").ToHex(), "6dc364fffcc5a7e7d818144ddb94da08");
  EXPECT_EQ(HashOfRequestId("").ToHex(), "d9265cc53bb2b9ae6131b78f753823cd");
  EXPECT_EQ(HashOfDedupId("order-17").ToHex(), "600ee8bd269a2e07c47986fdcccc1240");
}

// What one owner saves the next one finds: writers, places and times, of several batches and chains.
TEST_F(DedupStoreTest, SavedIdsAreFoundAgain) {
  std::vector<BatchIds> saved;
  for (std::uint32_t version : {7u, 8u, 9u}) {
    BatchIds ids = Ids(version, static_cast<int>(version));
    if (version == 9) ids.writer.generation = 4;
    ids.ids[0].count = 100;
    if (version > 7) {
      Writer other = ids.writer;
      other.generation = version;
      ids.ids[1].duplicates = std::make_shared<const std::vector<Duplicate>>(
          std::vector<Duplicate>{{0, other, 4095}, {7, ids.writer, 3}, {4095, saved[0].writer, 0}});
    }
    store_->Learn(At(static_cast<int>(version)), ids);
    saved.push_back(std::move(ids));
    environment_.AdvanceBy(seconds(30));
  }
  Delete({At(7), At(8)});
  Delete({At(9)});
  environment_.AdvanceBy(minutes(5));
  OpenStore();
  const DedupStore::Saved found = Load();
  EXPECT_FALSE(found.damaged_until);
  ASSERT_THAT(found.batches, SizeIs(3));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(found.batches[i].writer, saved[i].writer);
    EXPECT_EQ(found.batches[i].ids, saved[i].ids);
    const Duration off = found.batches[i].written_at - saved[i].written_at;
    EXPECT_LE(std::max(off, -off), std::chrono::milliseconds(5));
  }
}

// Batches without ids, and ids past the window, add nothing to a write.
TEST_F(DedupStoreTest, NothingToSaveCostsNothing) {
  EXPECT_EQ(store_->BytesOf(At(1)), 0u);
  EXPECT_FALSE(store_->Carry({At(1), At(2)}));
  store_->Learn(At(3), Ids(3, 2));
  EXPECT_FALSE(store_->Carry({At(1), At(2)}));
  EXPECT_GT(store_->BytesOf(At(3)), 0u);
  environment_.AdvanceBy(kWindow);
  EXPECT_EQ(store_->BytesOf(At(3)), 0u);
  EXPECT_FALSE(store_->Carry({At(3)}));
  store_->OnWritten();
  EXPECT_TRUE(store_->is_empty());
  EXPECT_THAT(Nodes(), IsEmpty());
}

// Not a znode per id: batches that are deleted one by one share znodes of bounded size.
TEST_F(DedupStoreTest, NodesArePacked) {
  constexpr int kBatches = 1000;
  for (int i = 0; i < kBatches; ++i) {
    store_->Learn(At(i), Ids(static_cast<std::uint32_t>(i), 1));
    Delete({At(i)});
  }
  const std::vector<std::string> nodes = Nodes();
  EXPECT_LE(nodes.size(), kBatches / 150u);
  for (const std::string& node : nodes) EXPECT_LE(BytesOfNode(node), DedupStore::kNodeBytesMax);
  OpenStore();
  EXPECT_THAT(Load().batches, SizeIs(kBatches));
}

// BytesOf is a bound of what a batch adds, however many ids it has; a large one has a znode of its own.
TEST_F(DedupStoreTest, BytesAreBounded) {
  store_->Learn(At(1), Ids(1, 1));
  Delete({At(1)});
  BatchIds largest = Ids(1u << 30, Batch::kMessagesMax);
  for (HashedId& id : largest.ids) id.count = Batch::kMessagesMax - id.first_index;
  store_->Learn(At(2), largest);
  EXPECT_LE(store_->BytesOf(At(2)), 96u << 10);
  std::vector<Duplicate> duplicates;
  for (std::uint32_t i = 0; i < 4095; ++i) {
    const Writer far{.process = {{static_cast<std::uint8_t>(i)}}, .generation = (1u << 31) + i, .version = 1u << 31};
    duplicates.push_back({i, far, 4095});
  }
  largest.ids[0].duplicates = std::make_shared<const std::vector<Duplicate>>(std::move(duplicates));
  store_->Learn(At(2), largest);
  const std::size_t bound = store_->BytesOf(At(2));
  EXPECT_LE(bound, 256u << 10);
  Delete({At(2)});
  ASSERT_THAT(Nodes(), SizeIs(2));
  EXPECT_LE(BytesOfNode(Nodes()[1]), bound);
  OpenStore();
  EXPECT_THAT(Load().batches, SizeIs(2));
}

// A znode is dropped when its newest id is past the window, by whichever owner; ids that are younger stay.
TEST_F(DedupStoreTest, OldNodesAreDropped) {
  store_->Learn(At(1), Ids(1, 1));
  Delete({At(1)});
  environment_.AdvanceBy(minutes(6));
  store_->Learn(At(2), Ids(2, 1));
  Delete({At(2)});
  ASSERT_THAT(Nodes(), SizeIs(1));
  environment_.AdvanceBy(minutes(6));
  EXPECT_THAT(store_->TakeExpired(), IsEmpty());
  OpenStore();
  EXPECT_THAT(Load().batches, SizeIs(2));  // one of them is too old, and harmless
  environment_.AdvanceBy(minutes(4) - seconds(1));
  EXPECT_THAT(store_->TakeExpired(), IsEmpty());
  environment_.AdvanceBy(seconds(2));
  EXPECT_THAT(store_->TakeExpired(), SizeIs(1));
  EXPECT_TRUE(store_->is_empty());
  store_->DropLater(layout_.Dedup(log_, 1, 1));  // it did not work
  EXPECT_THAT(store_->TakeExpired(), SizeIs(1));
}

// After its latest znode was dropped, an owner begins another one and names none twice.
TEST_F(DedupStoreTest, GoesOnAfterADrop) {
  store_->Learn(At(1), Ids(1, 1));
  Delete({At(1)});
  environment_.AdvanceBy(kWindow);
  ASSERT_THAT(store_->TakeExpired(), SizeIs(1));
  store_->Learn(At(2), Ids(2, 1));
  const std::optional<zk::Op> carry = store_->Carry({At(2)});
  ASSERT_TRUE(carry);
  EXPECT_EQ(carry->kind, zk::Op::Kind::kCreate);
  EXPECT_EQ(carry->path, layout_.Dedup(log_, held_.epoch, 2));
}

// A write that is formed anew, with more batches, saves the ids of all of them under the same name.
TEST_F(DedupStoreTest, CarryIsRepeatable) {
  store_->Learn(At(1), Ids(1, 1));
  store_->Learn(At(2), Ids(2, 1));
  const std::optional<zk::Op> first = store_->Carry({At(1)});
  const std::optional<zk::Op> second = store_->Carry({At(1), At(2)});
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->path, second->path);
  Delete({At(1), At(2)});
  OpenStore();
  EXPECT_THAT(Load().batches, SizeIs(2));
}

// A znode that cannot be read is reported, for as long as an id in it may be in the window; the others are read.
TEST_F(DedupStoreTest, DamageIsReported) {
  store_->Learn(At(1), Ids(1, 1));
  Delete({At(1)});
  storage::v1::DedupRecord record;
  record.add_batches()->set_hashes("short");
  for (const std::string& data : {std::string("\xff"), record.SerializeAsString()}) {
    const std::string path = layout_.Dedup(log_, 900, 1);
    std::string bytes = data;
    ASSERT_EQ(environment_.RunTask(other_client_.Create(path, std::move(bytes))).code, zk::Code::kOk);
    environment_.AdvanceBy(minutes(1));
    OpenStore();
    const DedupStore::Saved found = Load();
    EXPECT_THAT(found.batches, SizeIs(1));
    EXPECT_EQ(found.damaged_path, path);
    ASSERT_TRUE(found.damaged_until);
    EXPECT_NEAR(std::chrono::duration<double>(*found.damaged_until - environment_.Now()).count(), 9 * 60, 1);
    ASSERT_EQ(environment_.RunTask(other_client_.Delete(path, zk::kAnyVersion)).code, zk::Code::kOk);
  }
}

// Times that no clock has told are taken for the farthest or for now.
TEST_F(DedupStoreTest, TimesAreBounded) {
  EXPECT_EQ(store_->InstantOf(WallTime::max()), environment_.Now());
  EXPECT_LT(store_->InstantOf(WallTime::min()), environment_.Now() - hours(24 * 365));
}

// A settle that deletes batches saves their ids in the same write, and is no larger than it may be: what is too much
// waits for the next.
TEST_F(DedupStoreTest, SettlesCarryIds) {
  constexpr int kBatches = 12;
  cursor_->Abandon();
  cursor_ = Open();
  cursor_->CarryIdsTo(store_);
  MakeBatches(kBatches, 1);
  std::vector<Position> all;
  std::size_t ids = 0;
  for (int i = 0; i < kBatches; ++i) {
    store_->Learn(At(i), Ids(static_cast<std::uint32_t>(i), 3000));
    all.push_back(At(i));
    ids += 3000;
  }
  std::size_t largest = 0;
  ensemble_.SetTreeObserver([&](const zk::TreeEvent& event) {
    const std::string* data = ensemble_.tree().FindData(event.path);
    if (data != nullptr && event.path.starts_with(layout_.Dedups(log_))) largest = std::max(largest, data->size());
  });
  EXPECT_EQ(Fate(Settle(all)), "ok");
  ensemble_.SetTreeObserver(nullptr);
  EXPECT_THAT(BatchesStored(), IsEmpty());
  EXPECT_GT(largest, 64u << 10);
  EXPECT_LE(largest, Cursor::kWriteBytesMax);
  OpenStore();
  std::size_t found = 0;
  for (const BatchIds& batch : Load().batches) found += batch.ids.size();
  EXPECT_EQ(found, ids);
}

// The reply to such a settle is lost: it is sent again, and the ids are there once.
TEST_F(DedupStoreTest, LostRepliesSaveOnce) {
  cursor_->Abandon();
  cursor_ = Open();
  cursor_->CarryIdsTo(store_);
  MakeBatches(2, 1);
  for (int i = 0; i < 2; ++i) {
    store_->Learn(At(i), Ids(static_cast<std::uint32_t>(i), 1));
    client_.LoseReplyToNext(IsMulti);
    EXPECT_EQ(Fate(Settle({At(i)})), "ok");
  }
  EXPECT_THAT(Nodes(), SizeIs(1));
  OpenStore();
  EXPECT_THAT(Load().batches, SizeIs(2));
}

}  // namespace
}  // namespace postkeeper
