#include "zkstore/settled_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "postkeeper/storage/v1/records.pb.h"

namespace postkeeper {
namespace {

using storage::v1::CursorRecord;
using storage::v1::PartRecord;

constexpr std::size_t kNoLimit = 1'000'000;

// What a cursor's znode and its parts' znodes hold, as a store would keep them.
struct Store {
  CursorRecord cursor;
  std::map<std::uint64_t, std::string> parts;

  // Applies one write and checks that it creates only what is not there and changes only what is.
  void Write(SettledSet& set, std::size_t deleted_parts_max = kNoLimit) {
    SettledSet::Changes changes = set.Encode(cursor, deleted_parts_max);
    for (const auto& [part, data] : changes.created_parts) {
      EXPECT_TRUE(parts.emplace(part, data).second) << "part " << part << " was created twice";
    }
    for (const auto& [part, data] : changes.changed_parts) {
      ASSERT_TRUE(parts.contains(part)) << "part " << part << " was changed before it was created";
      parts[part] = data;
    }
    for (std::uint64_t part : changes.deleted_parts) {
      EXPECT_EQ(parts.erase(part), 1u) << "part " << part << " was deleted and is not there";
    }
  }

  SettledSet Read() const {
    std::vector<PartRecord> records;
    for (const auto& [part, data] : parts) EXPECT_TRUE(records.emplace_back().ParseFromString(data));
    SettledSet set;
    EXPECT_TRUE(set.Load(cursor, records).ok());
    return set;
  }
};

// The watermark follows messages settled in order, over batches and over the end of a segment.
TEST(SettledSetTest, WatermarkFollowsMessagesSettledInOrder) {
  SettledSet set;
  set.LearnSegmentEnd(0, 0);
  set.LearnBatch(Position(1, 0, 0), 2);
  set.LearnBatch(Position(1, 1, 0), 1);
  EXPECT_EQ(set.watermark(), Position(1, 0, 0));
  EXPECT_FALSE(set.Settle(Position(1, 0, 0)));
  EXPECT_EQ(set.watermark(), Position(1, 0, 0));
  EXPECT_TRUE(set.Settle(Position(1, 0, 1)));
  EXPECT_EQ(set.watermark(), Position(1, 1, 0));
  EXPECT_TRUE(set.Settle(Position(1, 1, 0)));
  set.LearnSegmentEnd(1, 2);
  EXPECT_EQ(set.watermark(), Position(2, 0, 0));
}

// A batch settled out of order leaves the watermark where it is and is still known as settled.
TEST(SettledSetTest, BatchSettledOutOfOrderIsKnown) {
  SettledSet set;
  set.LearnSegmentEnd(0, 0);
  for (std::uint32_t batch = 0; batch < 3; ++batch) set.LearnBatch(Position(1, batch, 0), 1);
  EXPECT_TRUE(set.Settle(Position(1, 2, 0)));
  EXPECT_EQ(set.watermark(), Position(1, 0, 0));
  EXPECT_TRUE(set.IsBatchSettled(Position(1, 2, 0)));
  EXPECT_FALSE(set.IsBatchSettled(Position(1, 1, 0)));
}

// Settling a message again says that nothing changed, so its batch is deleted once.
TEST(SettledSetTest, SettlingAgainChangesNothing) {
  SettledSet set;
  set.LearnBatch(Position(0, 0, 0), 1);
  EXPECT_TRUE(set.Settle(Position(0, 0, 0)));
  EXPECT_FALSE(set.Settle(Position(0, 0, 0)));
}

// Notes are kept until the message is settled.
TEST(SettledSetTest, NotesLastUntilTheMessageIsSettled) {
  SettledSet set;
  set.LearnBatch(Position(0, 0, 0), 2);
  const SettledSet::Notes notes{3, 2, WallTime(std::chrono::milliseconds(77))};
  set.SetNotes(Position(0, 0, 1), notes);
  EXPECT_EQ(set.NotesOf(Position(0, 0, 1)), notes);
  EXPECT_FALSE(set.IsUntouched(Position(0, 0, 0)));
  set.Settle(Position(0, 0, 1));
  EXPECT_EQ(set.NotesOf(Position(0, 0, 1)), SettledSet::Notes());
}

// 300,000 alternating messages, settled and not, keep every record within its bound.
TEST(SettledSetTest, RecordsStayBoundedHoweverMessagesAlternate) {
  SettledSet set;
  Store store;
  set.LearnSegmentEnd(0, 0);
  constexpr std::uint32_t kBatches = 300;
  for (std::uint32_t batch = 0; batch < kBatches; ++batch) {
    set.LearnBatch(Position(1, batch, 0), 1000);
    for (std::uint32_t i = 0; i < 1000; i += 2) set.Settle(Position(1, batch, i));
    store.Write(set);
    ASSERT_LE(store.cursor.ByteSizeLong(), SettledSet::kInlineBytesMax + 4096);
  }
  std::size_t largest = 0;
  for (const auto& [part, data] : store.parts) largest = std::max(largest, data.size());
  EXPECT_GT(store.parts.size(), 20u);
  EXPECT_LE(largest, 8 * 512 + 200u);
  SettledSet read = store.Read();
  EXPECT_TRUE(read.IsSettled(Position(1, 200, 10)));
  EXPECT_FALSE(read.IsSettled(Position(1, 200, 11)));
}

// Wholly settled parts behind an unsettled message cost a few bytes in the cursor, and no znode.
TEST(SettledSetTest, LongSettledStretchesAreRanges) {
  SettledSet set;
  Store store;
  set.LearnSegmentEnd(0, 0);
  for (std::uint32_t batch = 0; batch < 4000; ++batch) {
    set.LearnBatch(Position(1, batch, 0), 1);
    if (batch != 0) set.Settle(Position(1, batch, 0));
    if (batch % 100 == 0) store.Write(set);
  }
  store.Write(set);
  EXPECT_LE(store.cursor.ByteSizeLong(), 100u);
  EXPECT_THAT(store.parts, testing::IsEmpty());
  EXPECT_TRUE(store.Read().IsBatchSettled(Position(1, 3999, 0)));
}

// Records that contradict themselves are refused instead of being believed.
TEST(SettledSetTest, RefusesContradictions) {
  CursorRecord half_a_range;
  half_a_range.add_settled_parts(1);
  CursorRecord far_range;
  far_range.add_settled_parts(UINT64_MAX);
  far_range.add_settled_parts(2);
  CursorRecord foreign_batch;
  foreign_batch.add_parts()->add_batches()->set_batch(8);
  CursorRecord far_notes;
  auto* notes = far_notes.add_parts()->add_batches()->add_notes();
  notes->set_first_index(4000);
  notes->set_count(UINT32_MAX);
  CursorRecord many_bits;
  many_bits.add_parts()->add_batches()->set_settled_bits(std::string(513, '\1'));
  for (const CursorRecord& record : {half_a_range, far_range, foreign_batch, far_notes, many_bits}) {
    SettledSet set;
    EXPECT_EQ(set.Load(record, {}).code(), absl::StatusCode::kDataLoss) << record.ShortDebugString();
  }
  PartRecord part;
  part.set_n(3);
  CursorRecord cursor;
  *cursor.add_parts() = part;
  SettledSet set;
  EXPECT_EQ(set.Load(cursor, {part}).code(), absl::StatusCode::kDataLoss);
}

// The obvious way to keep the same facts.
struct Model {
  std::map<std::uint64_t, int> sizes;  // by batch position
  std::set<std::uint64_t> settled;
  std::map<std::uint64_t, SettledSet::Notes> notes;

  Position Watermark(std::uint32_t batches) const {
    for (std::uint32_t batch = 0; batch < batches; ++batch) {
      for (int i = 0; i < sizes.at(Position(1, batch, 0).value()); ++i) {
        if (!settled.contains(Position(1, batch, static_cast<std::uint32_t>(i)).value())) return Position(1, batch, 0);
      }
    }
    return Position(1, batches, 0);
  }
};

// Whatever is settled and noted, in whatever order, with writes and restarts in between: the set and what is read back
// from the store say the same as the model.
TEST(SettledSetTest, AgreesWithAModelOverWritesAndRestarts) {
  const char* given = std::getenv("POSTKEEPER_SEED");
  const unsigned first_seed = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 1;
  for (unsigned seed = first_seed; seed < first_seed + (given != nullptr ? 1 : 60); ++seed) {
    SCOPED_TRACE("POSTKEEPER_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    auto below = [&random](std::uint32_t bound) { return static_cast<std::uint32_t>(random() % bound); };
    const std::uint32_t batches = 1 + below(60);
    const int messages_max = below(2) == 0 ? 3 : 200;
    Model model;
    SettledSet set;
    Store store;
    auto learn = [&](SettledSet& into) {
      into.LearnSegmentEnd(0, 0);
      for (const auto& [position, size] : model.sizes) into.LearnBatch(Position::FromValue(position), size);
    };
    for (std::uint32_t batch = 0; batch < batches; ++batch) {
      model.sizes[Position(1, batch, 0).value()] =
          1 + static_cast<int>(below(static_cast<std::uint32_t>(messages_max)));
    }
    learn(set);
    for (int step = 0; step < 300; ++step) {
      const std::uint32_t batch = below(batches);
      const Position start(1, batch, 0);
      const auto size = static_cast<std::uint32_t>(model.sizes[start.value()]);
      const Position position(1, batch, below(size));
      switch (below(8)) {
        case 0:
          if (!model.settled.contains(position.value())) {
            const SettledSet::Notes notes{1 + below(5), below(5), WallTime(std::chrono::milliseconds(below(3) * 1000))};
            model.notes[position.value()] = notes;
            set.SetNotes(position, notes);
          }
          break;
        case 1:
          store.Write(set, below(3));
          break;
        case 2:
          store.Write(set, below(3));
          set = store.Read();
          learn(set);
          break;
        case 3:  // a whole batch
          for (std::uint32_t i = 0; i < size; ++i) {
            model.settled.insert(Position(1, batch, i).value());
            model.notes.erase(Position(1, batch, i).value());
            set.Settle(Position(1, batch, i));
          }
          break;
        default:
          model.settled.insert(position.value());
          model.notes.erase(position.value());
          set.Settle(position);
      }
    }
    for (const auto& [start, size] : model.sizes) {
      for (int i = 0; i < size; ++i) {
        const Position position = Position::FromValue(start + static_cast<std::uint64_t>(i));
        ASSERT_EQ(set.IsSettled(position), model.settled.contains(position.value())) << position.DebugString();
        const auto notes = model.notes.find(position.value());
        ASSERT_EQ(set.NotesOf(position), notes == model.notes.end() ? SettledSet::Notes() : notes->second)
            << position.DebugString();
      }
    }
    ASSERT_EQ(set.watermark(), model.Watermark(batches));
  }
}

}  // namespace
}  // namespace postkeeper
