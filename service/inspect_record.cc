#include "service/inspect_record.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "postkeeper/storage/v1/records.pb.h"
#include "postkeeper/v1/message.pb.h"
#include "zkstore/batch.h"
#include "zkstore/dedup_store.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string TimeText(std::int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

std::int64_t UnixMs(WallTime time) { return time.time_since_epoch().count(); }

bool IsText(std::string_view bytes) {
  std::string text(bytes);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  // Printable escapes what is no UTF-8, and control characters.
  return Printable(text, text.size()) == text;
}

// ---- Any record, by its descriptor

InspectTree NumberTree(const FieldDescriptor& field, std::int64_t number) {
  if (absl::EndsWith(field.name(), "_time_ms")) {
    if (number == 0) return "none";
    return TimeText(number);
  }
  if (absl::EndsWith(field.name(), "_ms")) return Readable(std::chrono::milliseconds(number));
  if (field.type() == FieldDescriptor::TYPE_FIXED64) {
    if (absl::EndsWith(field.name(), "_plus_one")) {
      if (number == 0) return "none";
      --number;
    }
    return Position::FromValue(static_cast<std::uint64_t>(number)).DebugString();
  }
  return number;
}

InspectTree RecordTree(const Message& record);

// One value of the field; `index` is -1 if it is not repeated.
InspectTree ValueTree(const Message& record, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *record.GetReflection();
  const bool is_repeated = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return RecordTree(is_repeated ? reflection.GetRepeatedMessage(record, &field, index)
                                    : reflection.GetMessage(record, &field));
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* value =
          is_repeated ? reflection.GetRepeatedEnum(record, &field, index) : reflection.GetEnum(record, &field);
      return InspectTree(value->name());
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text =
          is_repeated ? reflection.GetRepeatedString(record, &field, index) : reflection.GetString(record, &field);
      return InspectTree(field.type() == FieldDescriptor::TYPE_BYTES ? absl::BytesToHexString(text) : text);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return is_repeated ? reflection.GetRepeatedBool(record, &field, index) : reflection.GetBool(record, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return NumberTree(field, is_repeated ? reflection.GetRepeatedInt32(record, &field, index)
                                           : reflection.GetInt32(record, &field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return NumberTree(field, is_repeated ? reflection.GetRepeatedUInt32(record, &field, index)
                                           : reflection.GetUInt32(record, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return NumberTree(field, is_repeated ? reflection.GetRepeatedInt64(record, &field, index)
                                           : reflection.GetInt64(record, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return NumberTree(field,
                        static_cast<std::int64_t>(is_repeated ? reflection.GetRepeatedUInt64(record, &field, index)
                                                              : reflection.GetUInt64(record, &field)));
    default:
      return "not shown";
  }
}

InspectTree RecordTree(const Message& record) {
  InspectTree tree;
  const Reflection& reflection = *record.GetReflection();
  for (int i = 0; i < record.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *record.GetDescriptor()->field(i);
    if (field.is_repeated()) {
      InspectTree::Items items;
      for (int k = 0; k < reflection.FieldSize(record, &field); ++k) items.push_back(ValueTree(record, field, k));
      if (!items.empty()) tree.Add(field.name(), std::move(items));
    } else if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || reflection.HasField(record, &field)) {
      tree.Add(field.name(), ValueTree(record, field, -1));
    }
  }
  return tree;
}

// ---- Batches

InspectTree MessageTree(const Batch& batch, int index, bool shows_body) {
  InspectTree tree;
  tree.Add("message_id", batch.MessageId(index));
  if (batch.due(index) != NewMessage::kNotDelayed) tree.Add("due_time", TimeText(UnixMs(batch.due(index))));
  v1::Message message;
  const std::string_view bytes = batch.message(index);
  tree.Add("bytes", static_cast<std::int64_t>(bytes.size()));
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    tree.Add("damaged", "this is not a postkeeper.v1.Message");
    return tree;
  }
  if (!message.content_type().empty()) tree.Add("content_type", message.content_type());
  if (!message.attributes().empty()) {
    InspectTree attributes;
    for (const auto& [key, value] : message.attributes()) attributes.Add(key, value);
    tree.Add("attributes", std::move(attributes));
  }
  tree.Add("body_bytes", static_cast<std::int64_t>(message.body().size()));
  if (shows_body && IsText(message.body())) {
    tree.Add("body", message.body());
  } else if (shows_body) {
    tree.Add("body_base64", absl::Base64Escape(message.body()));
  }
  return tree;
}

InspectTree BatchTree(std::string_view data, bool shows_bodies) {
  InspectTree tree;
  tree.Add("kind", "Batch");
  const absl::StatusOr<std::shared_ptr<const Batch>> decoded = Batch::Decode(data);
  if (!decoded.ok()) {
    tree.Add("damaged", StdView(decoded.status().message()));
    return tree;
  }
  const Batch& batch = **decoded;
  tree.Add("format", static_cast<std::int64_t>(static_cast<unsigned char>(data[0])));
  tree.Add("checksum", "right");
  tree.Add("append_time", TimeText(UnixMs(batch.append_time())));
  tree.Add("end_of_segment", batch.ends_segment());
  if (!batch.ends_segment()) {
    const Writer from = batch.writer();
    InspectTree writer;
    writer.Add("process_id", from.process.ToHex());
    writer.Add("generation", std::int64_t{from.generation});
    writer.Add("version", std::int64_t{from.version});
    tree.Add("writer", std::move(writer));
  }
  InspectTree::Items ids;
  for (const BatchRequestId& id : batch.request_ids()) {
    InspectTree entry;
    entry.Add("request_id", id.request_id);
    entry.Add("first_index", std::int64_t{id.first_index});
    entry.Add("count", std::int64_t{id.count});
    ids.push_back(std::move(entry));
  }
  if (!ids.empty()) tree.Add("request_ids", std::move(ids));
  InspectTree::Items dedup_ids;
  for (const BatchDedupId& id : batch.dedup_ids()) {
    InspectTree entry;
    entry.Add("index", std::int64_t{id.index});
    entry.Add("hash", id.hash.ToHex());
    dedup_ids.push_back(std::move(entry));
  }
  if (!dedup_ids.empty()) tree.Add("dedup_ids", std::move(dedup_ids));
  tree.Add("message_count", static_cast<std::int64_t>(batch.size()));
  InspectTree::Items messages;
  for (int i = 0; i < batch.size(); ++i) messages.push_back(MessageTree(batch, i, shows_bodies));
  if (!messages.empty()) tree.Add("messages", std::move(messages));
  return tree;
}

// ---- Ids of deleted batches

InspectTree DedupTree(std::string_view data) {
  InspectTree tree;
  tree.Add("kind", "DedupRecord");
  storage::v1::DedupRecord record;
  if (!record.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    tree.Add("damaged", "the record does not parse");
    return tree;
  }
  InspectTree::Items batches;
  for (const storage::v1::DedupBatch& stored : record.batches()) {
    InspectTree batch;
    batch.Add("written_time", TimeText(stored.written_time_ms()));
    const auto& hashes = stored.hashes();
    const bool is_whole = stored.chain() < static_cast<std::uint32_t>(record.chains_size()) &&
                          stored.first_indexes_size() == stored.counts_size() &&
                          hashes.size() == static_cast<std::size_t>(stored.counts_size()) * sizeof(IdHash::bytes);
    if (!is_whole) {
      batch.Add("damaged", "its parts do not fit together");
      batches.push_back(std::move(batch));
      continue;
    }
    const storage::v1::WriterRecord& chain = record.chains(static_cast<int>(stored.chain()));
    const ProcessId process = ProcessId::FromBytes(chain.process_id()).value_or(ProcessId{});
    InspectTree::Items ids;
    for (int i = 0; i < stored.counts_size(); ++i) {
      InspectTree id;
      const auto at = static_cast<std::size_t>(i) * sizeof(IdHash::bytes);
      id.Add("hash", absl::BytesToHexString(hashes.substr(at, sizeof(IdHash::bytes))));
      id.Add("first_message_id", EncodeMessageId({process, chain.generation(), stored.version(),
                                                  static_cast<std::uint16_t>(stored.first_indexes(i))}));
      id.Add("count", std::int64_t{stored.counts(i)});
      ids.push_back(std::move(id));
    }
    batch.Add("ids", std::move(ids));
    batches.push_back(std::move(batch));
  }
  tree.Add("batches", std::move(batches));
  return tree;
}

// ---- What is where

std::string NameIn(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }

// The log whose data this path belongs to.
std::optional<Uid> LogOf(const Layout& layout, std::string_view path) {
  const std::string start = layout.Data() + "/";
  if (!path.starts_with(start)) return std::nullopt;
  const std::string_view rest = path.substr(start.size());
  return Uid::FromHex(rest.substr(0, rest.find('/')));
}

struct Content {
  std::string_view kind;  // for what is no record
  std::unique_ptr<Message> record;
  bool is_batch = false;
  bool is_dedup = false;
};

template <typename Record>
Content ARecord() {
  return {.kind = "", .record = std::make_unique<Record>()};
}

Content ContentOfLog(const Layout& layout, std::string_view path, const Uid& log) {
  const std::string parent = ParentPath(path);
  if (path == layout.LogData(log)) return {.kind = "directory of a log"};
  if (path == layout.Owner(log)) return ARecord<storage::v1::OwnerRecord>();
  if (path == layout.Head(log)) return ARecord<storage::v1::HeadRecord>();
  for (const std::string& directory : layout.LogDirectories(log)) {
    if (path == directory) return {.kind = "directory"};
  }
  if (parent == layout.Producers(log)) return ARecord<storage::v1::ProducerRecord>();
  if (parent == layout.Cursors(log)) return ARecord<storage::v1::CursorRecord>();
  if (parent == layout.Parts(log)) return ARecord<storage::v1::PartRecord>();
  if (parent == layout.Dedups(log)) return {.kind = "DedupRecord", .record = nullptr, .is_dedup = true};
  if (parent == layout.Segments(log)) return {.kind = "segment"};
  const bool is_in_segment = ParentPath(parent) == layout.Segments(log);
  if (is_in_segment && Layout::ParseBatch(path)) return {.kind = "Batch", .record = nullptr, .is_batch = true};
  return {.kind = "unknown"};
}

Content ContentOf(const Layout& layout, std::string_view path) {
  if (path == layout.Format()) return ARecord<storage::v1::Format>();
  const std::string parent = ParentPath(path);
  if (parent == layout.Replicas()) return ARecord<storage::v1::ReplicaRecord>();
  const std::string name_space = NameIn(ParentPath(parent));
  if (parent == layout.Queues(name_space)) return ARecord<storage::v1::QueueRecord>();
  if (parent == layout.Topics(name_space)) return ARecord<storage::v1::TopicRecord>();
  if (const std::optional<Uid> log = LogOf(layout, path)) return ContentOfLog(layout, path, *log);
  if (parent == layout.Trash()) return {.kind = "mark of a deleted log"};
  const bool is_ours = path == layout.root() || path.starts_with(layout.root() + "/");
  return {.kind = is_ours ? "directory" : "unknown"};
}

}  // namespace

InspectTree DescribeZnode(const Layout& layout, std::string_view path, std::string_view data, bool shows_bodies) {
  const Content content = ContentOf(layout, path);
  if (content.is_batch) return BatchTree(data, shows_bodies);
  if (content.is_dedup) return DedupTree(data);
  InspectTree tree;
  if (!content.record) {
    tree.Add("kind", content.kind);
    return tree;
  }
  tree.Add("kind", content.record->GetDescriptor()->name());
  if (content.record->ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    tree.Add("record", RecordTree(*content.record));
  } else {
    tree.Add("damaged", "the record does not parse");
  }
  return tree;
}

}  // namespace postkeeper
