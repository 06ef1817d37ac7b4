#include "zkstore/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

Writer SomeWriter() {
  Writer writer{.process = {}, .generation = 2, .version = 7};
  writer.process.bytes[0] = 0xab;
  return writer;
}

constexpr WallTime kNow{std::chrono::milliseconds(1'700'000'000'000)};

BatchBuilder::Built BuildTwo() {
  BatchBuilder builder;
  std::vector<NewMessage> one(1);
  one[0].bytes = "first";
  std::vector<NewMessage> two(1);
  two[0].bytes = std::string("\0\xff", 2);
  two[0].due = kNow + std::chrono::hours(1);
  EXPECT_EQ(builder.Add(std::move(one), ""), 0u);
  EXPECT_EQ(builder.Add(std::move(two), "call-2"), 1u);
  return std::move(builder).Build(SomeWriter(), kNow);
}

// What is built and what is read back are the same.
TEST(BatchTest, DecodesWhatWasEncoded) {
  BatchBuilder::Built built = BuildTwo();
  absl::StatusOr<std::shared_ptr<const Batch>> read = Batch::Decode(built.encoded);
  ASSERT_TRUE(read.ok()) << read.status();
  for (const Batch* batch : {built.batch.get(), read->get()}) {
    ASSERT_EQ(batch->size(), 2);
    EXPECT_EQ(batch->message(0), "first");
    EXPECT_EQ(batch->message(1), std::string_view("\0\xff", 2));
    EXPECT_EQ(batch->due(0), NewMessage::kNotDelayed);
    EXPECT_EQ(batch->due(1), kNow + std::chrono::hours(1));
    EXPECT_EQ(batch->writer(), SomeWriter());
    EXPECT_EQ(batch->append_time(), kNow);
    EXPECT_EQ(batch->message_bytes(), 7);
    EXPECT_FALSE(batch->ends_segment());
    ASSERT_EQ(batch->request_ids().size(), 1u);
    EXPECT_EQ(batch->request_ids()[0].request_id, "call-2");
    EXPECT_EQ(batch->request_ids()[0].first_index, 1u);
    EXPECT_EQ(batch->request_ids()[0].count, 1u);
  }
}

// A batch says which of its messages have dedup_ids, and which messages of a call were duplicates, of its own messages
// and of others.
TEST(BatchTest, KeepsDedupIdsAndDuplicates) {
  EXPECT_TRUE(BuildTwo().batch->has_ids());
  EXPECT_TRUE(BuildTwo().batch->dedup_ids().empty());
  BatchBuilder builder;
  builder.Add({{.bytes = "without"}}, "");
  std::vector<NewMessage> messages(3);
  messages[0].dedup_id = HashOfDedupId("a");
  messages[2].dedup_id = HashOfDedupId("b");
  const Writer other{.process = {{9}}, .generation = 4, .version = 0};
  const auto duplicates = std::make_shared<const std::vector<Duplicate>>(
      std::vector<Duplicate>{{1, Writer{}, 0}, {3, other, 17}, {5, SomeWriter(), 8}, {6, Writer{}, 2}});
  EXPECT_EQ(builder.Add(std::move(messages), "call", duplicates), 1u);
  BatchBuilder::Built built = std::move(builder).Build(SomeWriter(), kNow);
  absl::StatusOr<std::shared_ptr<const Batch>> read = Batch::Decode(built.encoded);
  ASSERT_TRUE(read.ok()) << read.status();
  for (const Batch* batch : {built.batch.get(), read->get()}) {
    EXPECT_TRUE(batch->has_ids());
    ASSERT_EQ(batch->dedup_ids().size(), 2u);
    EXPECT_EQ(batch->dedup_ids()[0].hash, HashOfDedupId("a"));
    EXPECT_EQ(batch->dedup_ids()[0].index, 1u);
    EXPECT_EQ(batch->dedup_ids()[1].hash, HashOfDedupId("b"));
    EXPECT_EQ(batch->dedup_ids()[1].index, 3u);
    ASSERT_NE(batch->request_ids()[0].duplicates, nullptr);
    const std::vector<Duplicate> placed = {
        {1, SomeWriter(), 1}, {3, other, 17}, {5, SomeWriter(), 8}, {6, SomeWriter(), 3}};
    EXPECT_EQ(*batch->request_ids()[0].duplicates, placed);
    EXPECT_EQ(*PlacedAt(duplicates, SomeWriter(), 1), placed);
  }
}

// Ids of messages that are not there are damage, and so are duplicates that do not fit together.
TEST(BatchTest, IdsMustFit) {
  const auto decode = [](storage::v1::DuplicatesRecord record) { return DecodeDuplicates(record, SomeWriter()); };
  storage::v1::DuplicatesRecord record;
  const auto duplicates = std::make_shared<const std::vector<Duplicate>>(
      std::vector<Duplicate>{{1, SomeWriter(), 1}, {3, Writer{.process = {{9}}}, 17}});
  EncodeDuplicates(duplicates, SomeWriter(), record);
  ASSERT_NE(decode(record), nullptr);
  EXPECT_EQ(*decode(record), *duplicates);
  storage::v1::DuplicatesRecord bad = record;
  bad.set_indexes(1, 1);
  EXPECT_EQ(decode(bad), nullptr) << "not rising";
  bad = record;
  bad.set_chain_numbers(0, 2);
  EXPECT_EQ(decode(bad), nullptr) << "no such chain";
  bad = record;
  bad.set_message_indexes(0, 4096);
  EXPECT_EQ(decode(bad), nullptr) << "no such message";
  bad = record;
  bad.add_versions(1);
  EXPECT_EQ(decode(bad), nullptr) << "one too many";
  bad = record;
  bad.mutable_chains(0)->set_process_id("short");
  EXPECT_EQ(decode(bad), nullptr) << "no process";
}

// The id of a message is given by its writer and its index, as the appender tells it before the write.
TEST(BatchTest, MessageIdNamesWriterAndIndex) {
  const std::string text = BuildTwo().batch->MessageId(1);
  const std::optional<MessageId> id = DecodeMessageId(text);
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(id->process, SomeWriter().process);
  EXPECT_EQ(id->generation, 2u);
  EXPECT_EQ(id->version, 7u);
  EXPECT_EQ(id->index, 1u);
}

// Any one damaged byte, and any cut, is noticed.
TEST(BatchTest, NoticesEveryDamage) {
  const std::string good = BuildTwo().encoded;
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_EQ(Batch::Decode(bad).status().code(), absl::StatusCode::kDataLoss) << "byte " << i;
    EXPECT_EQ(Batch::Decode(good.substr(0, i)).status().code(), absl::StatusCode::kDataLoss) << "cut at " << i;
  }
  EXPECT_EQ(Batch::Decode(good + "x").status().code(), absl::StatusCode::kDataLoss);
}

// The record that ends a segment is a batch without messages.
TEST(BatchTest, EndOfSegmentHasNoMessages) {
  absl::StatusOr<std::shared_ptr<const Batch>> end = Batch::Decode(Batch::EncodeEndOfSegment(kNow));
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_TRUE((*end)->ends_segment());
  EXPECT_EQ((*end)->size(), 0);
}

// The builder's bound holds: what it says is at least what is written, so a batch never outgrows its limit unnoticed.
TEST(BatchTest, BuilderNeverUnderstatesTheSize) {
  for (const std::size_t size : {0, 1, 127, 128, 1000, 20'000}) {
    BatchBuilder builder;
    for (int i = 0; i < 50; ++i) {
      std::vector<NewMessage> messages(3);
      for (NewMessage& message : messages) {
        message.bytes = std::string(size, 'x');
        message.due = kNow;
      }
      if (i % 3 == 0) messages[1].dedup_id = HashOfDedupId(Cat(i));
      std::vector<Duplicate> duplicates;
      for (std::uint32_t j = 0; j < 5; ++j) {
        const Writer far{.process = {{9}}, .generation = j << 28, .version = 1u << 31};
        duplicates.push_back({4000 + j, far, 4095});
      }
      builder.Add(std::move(messages), i % 2 == 0 ? std::string(64, 'r') : "",
                  i % 4 == 0 ? std::make_shared<const std::vector<Duplicate>>(duplicates) : nullptr);
    }
    const std::size_t bound = builder.bytes();
    EXPECT_GE(bound, std::move(builder).Build(SomeWriter(), kNow).encoded.size());
  }
}

}  // namespace
}  // namespace postkeeper
