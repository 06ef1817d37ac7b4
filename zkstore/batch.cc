#include "zkstore/batch.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::uint8_t kNoCompression = 0;
// What a batch takes besides its messages: header, writer, append time.
constexpr std::size_t kFixedBytes = 96;
constexpr std::size_t kPerRequestIdBytes = 32;
constexpr std::size_t kPerDedupIdBytes = sizeof(IdHash::bytes) + 4;

std::uint64_t Checksum(std::uint8_t compression, std::string_view body) {
  const std::uint64_t seed = std::uint64_t{Batch::kFormat} << 8 | compression;
  return XXH3_64bits_withSeed(body.data(), body.size(), seed);
}

std::string Encode(const storage::v1::BatchRecord& record) {
  std::string bytes(Batch::kHeaderBytes, '\0');
  record.AppendToString(&bytes);
  bytes[0] = static_cast<char>(Batch::kFormat);
  bytes[1] = static_cast<char>(kNoCompression);
  std::uint64_t checksum = Checksum(kNoCompression, std::string_view(bytes).substr(Batch::kHeaderBytes));
  for (int i = 0; i < 8; ++i) bytes[2 + i] = static_cast<char>(checksum >> (8 * i));
  return bytes;
}

bool IsSameChain(const Writer& a, const Writer& b) { return a.process == b.process && a.generation == b.generation; }

absl::Status Corrupt(std::string_view what) { return absl::DataLossError(Cat("not a whole batch: ", what)); }

}  // namespace

Duplicates PlacedAt(const Duplicates& duplicates, const Writer& own, std::uint32_t first_index) {
  if (!duplicates) return nullptr;
  std::vector<Duplicate> placed = *duplicates;
  for (Duplicate& duplicate : placed) {
    if (duplicate.writer != Writer{}) continue;
    duplicate.writer = own;
    duplicate.message_index += first_index;
  }
  return std::make_shared<const std::vector<Duplicate>>(std::move(placed));
}

void EncodeDuplicates(const Duplicates& duplicates, const Writer& own, storage::v1::DuplicatesRecord& record) {
  std::vector<Writer> chains;
  for (const Duplicate& duplicate : *duplicates) {
    std::size_t number = 0;
    if (duplicate.writer != own) {
      auto chain = std::find_if(chains.begin(), chains.end(),
                                [&](const Writer& known) { return IsSameChain(known, duplicate.writer); });
      if (chain == chains.end()) {
        chain = chains.insert(chain, duplicate.writer);
        storage::v1::WriterRecord* added = record.add_chains();
        added->set_process_id(duplicate.writer.process.ToBytes());
        added->set_generation(duplicate.writer.generation);
      }
      number = static_cast<std::size_t>(chain - chains.begin()) + 1;
    }
    record.add_indexes(duplicate.index);
    record.add_chain_numbers(static_cast<std::uint32_t>(number));
    record.add_versions(number == 0 ? 0 : duplicate.writer.version);
    record.add_message_indexes(duplicate.message_index);
  }
}

Duplicates DecodeDuplicates(const storage::v1::DuplicatesRecord& record, const Writer& own) {
  const int count = record.indexes_size();
  if (record.chain_numbers_size() != count || record.versions_size() != count ||
      record.message_indexes_size() != count) {
    return nullptr;
  }
  std::vector<Writer> chains;
  for (const storage::v1::WriterRecord& chain : record.chains()) {
    const std::optional<ProcessId> process = ProcessId::FromBytes(chain.process_id());
    if (!process) return nullptr;
    chains.push_back({.process = *process, .generation = chain.generation()});
  }
  std::vector<Duplicate> duplicates;
  duplicates.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const std::uint32_t number = record.chain_numbers(i);
    const bool is_rising = i == 0 || record.indexes(i) > record.indexes(i - 1);
    const bool is_in_bounds = record.indexes(i) < static_cast<std::uint32_t>(Batch::kMessagesMax) &&
                              record.message_indexes(i) < static_cast<std::uint32_t>(Batch::kMessagesMax);
    if (number > chains.size() || !is_rising || !is_in_bounds) return nullptr;
    Writer writer = own;
    if (number > 0) {
      writer = chains[number - 1];
      writer.version = record.versions(i);
    }
    duplicates.push_back({record.indexes(i), writer, record.message_indexes(i)});
  }
  return std::make_shared<const std::vector<Duplicate>>(std::move(duplicates));
}

Batch::Batch() : record_(std::make_unique<storage::v1::BatchRecord>()) {}
Batch::~Batch() = default;

absl::StatusOr<std::shared_ptr<const Batch>> Batch::Decode(std::string_view bytes, std::optional<WallTime> created) {
  if (bytes.size() < kHeaderBytes) return Corrupt(Cat("only ", bytes.size(), " bytes"));
  const auto format = static_cast<std::uint8_t>(bytes[0]);
  const auto compression = static_cast<std::uint8_t>(bytes[1]);
  if (format != kFormat) return Corrupt(Cat("unknown format ", format));
  if (compression != kNoCompression) return Corrupt(Cat("unknown compression ", compression));
  std::uint64_t stored = 0;
  for (int i = 0; i < 8; ++i) stored |= std::uint64_t{static_cast<std::uint8_t>(bytes[2 + i])} << (8 * i);
  const std::string_view body = bytes.substr(kHeaderBytes);
  if (stored != Checksum(compression, body)) return Corrupt("the checksum differs");
  std::shared_ptr<Batch> batch(new Batch);
  storage::v1::BatchRecord& record = *batch->record_;
  if (!record.ParseFromArray(body.data(), static_cast<int>(body.size()))) return Corrupt("the record does not parse");
  if (record.messages_size() > kMessagesMax) return Corrupt("too many messages");
  if (record.end_of_segment() != (record.messages_size() == 0)) return Corrupt("no messages");
  if (!record.end_of_segment() && record.writer().process_id().size() != ProcessId{}.bytes.size()) {
    return Corrupt("no writer");
  }
  if (!batch->AreIdsWhole()) return Corrupt("ids do not belong to messages");
  batch->created_ = created;
  batch->Measure();
  return batch;
}

std::string Batch::EncodeEndOfSegment(WallTime now) {
  storage::v1::BatchRecord record;
  record.set_append_time_ms(now.time_since_epoch().count());
  record.set_end_of_segment(true);
  return Encode(record);
}

void Batch::Measure() {
  message_bytes_ = 0;
  for (const auto& message : record_->messages()) message_bytes_ += static_cast<std::int64_t>(message.message().size());
  memory_bytes_ = record_->SpaceUsedLong();
}

int Batch::size() const { return record_->messages_size(); }
std::string_view Batch::message(int index) const { return record_->messages(index).message(); }
WallTime Batch::due(int index) const {
  return WallTime(std::chrono::milliseconds(record_->messages(index).due_time_ms()));
}
WallTime Batch::append_time() const { return WallTime(std::chrono::milliseconds(record_->append_time_ms())); }
bool Batch::ends_segment() const { return record_->end_of_segment(); }

Writer Batch::writer() const {
  const storage::v1::WriterRecord& from = record_->writer();
  Writer writer{.process = {}, .generation = from.generation(), .version = from.version()};
  std::memcpy(writer.process.bytes.data(), from.process_id().data(),
              std::min(writer.process.bytes.size(), from.process_id().size()));
  return writer;
}

bool Batch::has_ids() const { return record_->request_ids_size() > 0 || !record_->dedup_hashes().empty(); }

bool Batch::AreIdsWhole() const {
  const auto dedup_ids = static_cast<std::size_t>(record_->dedup_indexes_size());
  if (record_->dedup_hashes().size() != dedup_ids * sizeof(IdHash::bytes)) return false;
  for (const std::uint32_t index : record_->dedup_indexes()) {
    if (index >= static_cast<std::uint32_t>(size())) return false;
  }
  for (const auto& id : record_->request_ids()) {
    const std::uint64_t end = static_cast<std::uint64_t>(id.first_index()) + id.count();
    if (end > static_cast<std::uint64_t>(size())) return false;
    if (id.has_duplicates() && !DecodeDuplicates(id.duplicates(), Writer{})) return false;
  }
  return true;
}

std::vector<BatchRequestId> Batch::request_ids() const {
  std::vector<BatchRequestId> ids;
  ids.reserve(record_->request_ids_size());
  for (const auto& id : record_->request_ids()) {
    Duplicates duplicates = id.has_duplicates() ? DecodeDuplicates(id.duplicates(), writer()) : nullptr;
    ids.push_back({id.request_id(), id.first_index(), id.count(), std::move(duplicates)});
  }
  return ids;
}

std::vector<BatchDedupId> Batch::dedup_ids() const {
  constexpr std::size_t kHashBytes = sizeof(IdHash::bytes);
  std::vector<BatchDedupId> ids;
  ids.reserve(record_->dedup_indexes_size());
  std::string_view hashes = record_->dedup_hashes();
  for (const std::uint32_t index : record_->dedup_indexes()) {
    ids.push_back({*IdHash::FromBytes(hashes.substr(0, kHashBytes)), index});
    hashes.remove_prefix(kHashBytes);
  }
  return ids;
}

std::string Batch::MessageId(int index) const {
  const Writer from = writer();
  return EncodeMessageId({from.process, from.generation, from.version, static_cast<std::uint16_t>(index)});
}

BatchBuilder::BatchBuilder() : batch_(new Batch), other_bytes_(kFixedBytes) {}
BatchBuilder::~BatchBuilder() = default;

std::uint32_t BatchBuilder::Add(std::vector<NewMessage> messages, std::string_view request_id,
                                const Duplicates& duplicates) {
  storage::v1::BatchRecord& record = *batch_->record_;
  const auto first = static_cast<std::uint32_t>(record.messages_size());
  record.mutable_messages()->Reserve(record.messages_size() + static_cast<int>(messages.size()));
  for (NewMessage& message : messages) {
    message_bytes_ += message.bytes.size() + Batch::kPerMessageBytes;
    if (message.dedup_id) {
      other_bytes_ += kPerDedupIdBytes;
      record.mutable_dedup_hashes()->append(message.dedup_id->view());
      record.add_dedup_indexes(static_cast<std::uint32_t>(record.messages_size()));
    }
    storage::v1::StoredMessage* stored = record.add_messages();
    stored->set_message(std::move(message.bytes));
    stored->set_due_time_ms(message.due.time_since_epoch().count());
  }
  if (!request_id.empty()) {
    other_bytes_ += request_id.size() + kPerRequestIdBytes;
    storage::v1::RequestIdRecord* id = record.add_request_ids();
    id->set_request_id(std::string(request_id));
    id->set_first_index(first);
    id->set_count(static_cast<std::uint32_t>(messages.size()));
    if (duplicates) {
      other_bytes_ += duplicates->size() * kBytesPerDuplicate;
      EncodeDuplicates(PlacedAt(duplicates, Writer{}, first), Writer{}, *id->mutable_duplicates());
    }
  }
  return first;
}

int BatchBuilder::size() const { return batch_->record_->messages_size(); }

BatchBuilder::Built BatchBuilder::Build(const Writer& writer, WallTime now) && {
  storage::v1::BatchRecord& record = *batch_->record_;
  record.mutable_writer()->set_process_id(writer.process.bytes.data(), writer.process.bytes.size());
  record.mutable_writer()->set_generation(writer.generation);
  record.mutable_writer()->set_version(writer.version);
  record.set_append_time_ms(now.time_since_epoch().count());
  batch_->Measure();
  return {std::move(batch_), Encode(record)};
}

}  // namespace postkeeper
