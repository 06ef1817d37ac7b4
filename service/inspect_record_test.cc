#include "service/inspect_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "postkeeper/v1/message.pb.h"
#include "zkstore/batch.h"

namespace postkeeper {
namespace {

using testing::HasSubstr;
using testing::Not;

const Layout& TestLayout() {
  static const Layout* const kLayout = new Layout("/postkeeper");
  return *kLayout;
}

Uid SomeUid() {
  Uid uid;
  uid.bytes.fill(0xAB);
  return uid;
}

std::string Json(std::string_view path, std::string_view data, bool shows_bodies = false) {
  return DescribeZnode(TestLayout(), path, data, shows_bodies).ToJson();
}

std::string EncodedBatch(const std::string& body) {
  v1::Message message;
  message.set_body(body);
  message.set_content_type("text/plain");
  (*message.mutable_attributes())["colour"] = "blue";
  BatchBuilder builder;
  std::vector<NewMessage> messages;
  messages.push_back({.bytes = message.SerializeAsString(), .due = WallTime(std::chrono::seconds(86'400))});
  builder.Add(std::move(messages), "request-1");
  return std::move(builder)
      .Build({.process = {}, .generation = 2, .version = 3}, WallTime(std::chrono::seconds(0)))
      .encoded;
}

// Every place of the tree is known for what it holds.
TEST(InspectRecordTest, KnowsEveryPlace) {
  const Layout& layout = TestLayout();
  const Uid uid = SomeUid();
  const std::pair<std::string, std::string> places[] = {
      {layout.Format(), "Format"},
      {layout.Replica({}), "ReplicaRecord"},
      {layout.Queue("default", "orders"), "QueueRecord"},
      {layout.Topic("default", "prices"), "TopicRecord"},
      {layout.Owner(uid), "OwnerRecord"},
      {layout.Head(uid), "HeadRecord"},
      {layout.Producer(uid, {}, 1), "ProducerRecord"},
      {layout.Cursor(uid, uid, 1), "CursorRecord"},
      {layout.Part(uid, uid, 1), "PartRecord"},
      {layout.Dedup(uid, 3, 1), "DedupRecord"},
      {layout.Batch(uid, Position(1, 2, 0)), "Batch"},
      {layout.Segment(uid, 1), "segment"},
      {layout.Trash(uid), "mark of a deleted log"},
      {layout.LogData(uid), "directory of a log"},
      {layout.Cursors(uid), "directory"},
      {layout.Namespaces(), "directory"},
      {"/zookeeper/quota", "unknown"},
      {"/postkeeperx/format", "unknown"},
  };
  for (const auto& [path, kind] : places) {
    EXPECT_THAT(Json(path, ""), HasSubstr("\"kind\":\"" + kind + "\"")) << path;
  }
}

// Ids are shown as they stand in paths, times and durations as people write them, zeros are not left out.
TEST(InspectRecordTest, RecordsInWords) {
  storage::v1::QueueRecord queue;
  queue.set_uid(SomeUid().ToBytes());
  queue.set_lease_duration_ms(30'000);
  queue.set_create_time_ms(1'700'000'000'123);
  EXPECT_EQ(Json(TestLayout().Queue("default", "orders"), queue.SerializeAsString()),
            R"({"kind":"QueueRecord","record":{"uid":"abababababababababababababababab","lease_duration_ms":"30s",)"
            R"("retry_backoff_ms":"0s","retry_backoff_max_ms":"0s","max_messages":0,"max_bytes":0,)"
            R"("create_time_ms":"2023-11-14T22:13:20.123Z"}})");

  storage::v1::HeadRecord head;
  head.set_oldest_position(Position(3, 17, 5).value());
  EXPECT_THAT(Json(TestLayout().Head(SomeUid()), head.SerializeAsString()), HasSubstr(R"("oldest_position":"3/17/5")"));

  storage::v1::OwnerRecord owner;
  owner.set_state(storage::v1::OwnerRecord::STATE_NOBODY);
  const std::string text =
      DescribeZnode(TestLayout(), TestLayout().Owner(SomeUid()), owner.SerializeAsString(), false).ToText();
  EXPECT_THAT(text, HasSubstr("kind  OwnerRecord\nrecord\n  state               STATE_NOBODY\n"));
}

// Ids of deleted batches are listed one by one, each with the message id that its repeat is answered with; what does
// not fit together is said to be damaged.
TEST(InspectRecordTest, IdsOfDeletedBatches) {
  const std::string path = TestLayout().Dedup(SomeUid(), 3, 1);
  storage::v1::DedupRecord record;
  storage::v1::WriterRecord* chain = record.add_chains();
  chain->set_process_id(std::string(16, '\1'));
  chain->set_generation(2);
  storage::v1::DedupBatch* batch = record.add_batches();
  batch->set_version(7);
  batch->set_written_time_ms(1'700'000'000'123);
  batch->set_hashes(std::string(16, '\x11') + std::string(16, '\x22'));
  for (std::uint32_t first : {0u, 3u}) batch->add_first_indexes(first);
  for (std::uint32_t count : {3u, 1u}) batch->add_counts(count);
  const ProcessId process = *ProcessId::FromBytes(chain->process_id());
  const std::string json = Json(path, record.SerializeAsString());
  EXPECT_EQ(json,
            "{\"kind\":\"DedupRecord\",\"batches\":[{\"written_time\":\"2023-11-14T22:13:20.123Z\",\"ids\":["
            "{\"hash\":\"11111111111111111111111111111111\",\"first_message_id\":\"" +
                EncodeMessageId({process, 2, 7, 0}) +
                "\",\"count\":3},{\"hash\":\"22222222222222222222222222222222\",\"first_message_id\":\"" +
                EncodeMessageId({process, 2, 7, 3}) + "\",\"count\":1}]}]}");
  batch->set_chain(1);
  EXPECT_THAT(Json(path, record.SerializeAsString()), HasSubstr("\"damaged\""));
  EXPECT_THAT(Json(path, "\xff"), HasSubstr("\"damaged\""));
}

// A batch lists its messages; their bodies only when asked for.
TEST(InspectRecordTest, Batches) {
  const std::string path = TestLayout().Batch(SomeUid(), Position(1, 0, 0));
  const std::string data = EncodedBatch("line\nwith \"quotes\"");
  const std::string without = Json(path, data);
  EXPECT_THAT(without, HasSubstr(R"("message_count":1)"));
  EXPECT_THAT(without, HasSubstr(R"("due_time":"1970-01-02T00:00:00.000Z")"));
  EXPECT_THAT(without, HasSubstr(R"("content_type":"text/plain","attributes":{"colour":"blue"},"body_bytes":18})"));
  EXPECT_THAT(without, HasSubstr(R"("request_ids":[{"request_id":"request-1","first_index":0,"count":1}])"));
  EXPECT_THAT(without, Not(HasSubstr("quotes")));
  EXPECT_THAT(Json(path, data, /*shows_bodies=*/true), HasSubstr(R"("body":"line\u000awith \"quotes\"")"));
  EXPECT_THAT(Json(path, EncodedBatch("\xff\x01"), /*shows_bodies=*/true), HasSubstr(R"("body_base64":"/wE=")"));
}

// What is damaged is said to be, and nothing is made up.
TEST(InspectRecordTest, DamagedBytes) {
  std::string data = EncodedBatch("body");
  data.back() ^= 1;
  EXPECT_THAT(Json(TestLayout().Batch(SomeUid(), Position(1, 0, 0)), data), HasSubstr(R"("damaged":)"));
  EXPECT_THAT(Json(TestLayout().Format(), "\xff\xff"), HasSubstr(R"("damaged":"the record does not parse")"));
}

}  // namespace
}  // namespace postkeeper
