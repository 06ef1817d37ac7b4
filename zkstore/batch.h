// One batch of messages: what one znode of a log holds.
#ifndef POSTKEEPER_ZKSTORE_BATCH_H_
#define POSTKEEPER_ZKSTORE_BATCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "zkstore/environment.h"
#include "zkstore/id_hash.h"
#include "zkstore/position.h"
#include "zkstore/text_id.h"

namespace postkeeper {

namespace storage::v1 {
class BatchRecord;
class DuplicatesRecord;
}  // namespace storage::v1

// Who wrote a batch. With an index it makes a message id, which is therefore known before the write.
struct Writer {
  ProcessId process{};
  std::uint32_t generation = 0;
  std::uint32_t version = 0;  // of the producer znode before the write

  friend bool operator==(const Writer&, const Writer&) = default;
};

// What a producer gives: the bytes of a postkeeper.v1.Message, when it is due (kNotDelayed = at once), and the hash of
// its dedup_id.
struct NewMessage {
  static constexpr WallTime kNotDelayed{};

  std::string bytes;
  WallTime due = kNotDelayed;
  std::optional<IdHash> dedup_id = std::nullopt;
};

// A message of a call that was not written, since there was one with its dedup_id: that one.
struct Duplicate {
  std::uint32_t index = 0;  // among the messages of the call
  Writer writer;
  std::uint32_t message_index = 0;  // in the batch of `writer`

  friend bool operator==(const Duplicate&, const Duplicate&) = default;
};
// Those of one call, by rising index; null = none.
//
// Before the call's own batch is built, a Duplicate of another message of the same call has the default Writer, and its
// message_index counts from the first message of the call that is written. PlacedAt says where they are then.
using Duplicates = std::shared_ptr<const std::vector<Duplicate>>;
// What each adds to a record at most.
inline constexpr std::size_t kBytesPerDuplicate = 40;
Duplicates PlacedAt(const Duplicates& duplicates, const Writer& own, std::uint32_t first_index);

// As records keep them; `own` is the writer of the batch that the record is of. Null if the record is damaged.
void EncodeDuplicates(const Duplicates& duplicates, const Writer& own, storage::v1::DuplicatesRecord& record);
Duplicates DecodeDuplicates(const storage::v1::DuplicatesRecord& record, const Writer& own);

// A request_id whose messages are in a batch.
struct BatchRequestId {
  std::string request_id;
  std::uint32_t first_index = 0;
  std::uint32_t count = 0;
  Duplicates duplicates;  // of the same call
};

// A dedup_id whose message is in a batch.
struct BatchDedupId {
  IdHash hash;
  std::uint32_t index = 0;
};

// Immutable once built; thread-safe then. On the wire a batch is
//
//   format (1 byte, 1)  compression (1 byte, 0 = none)  checksum (8 bytes, little-endian)  BatchRecord
//
// The checksum is XXH3-64 of the two bytes before it and of everything behind it. It guards against bit rot and against
// a znode that is not ours; it is not a signature.
class Batch {
 public:
  static constexpr std::uint8_t kFormat = 1;
  static constexpr std::size_t kHeaderBytes = 10;
  static constexpr int kMessagesMax = static_cast<int>(Position::kIndexMax) + 1;

  // What one message adds to the size, besides its bytes.
  static constexpr std::size_t kPerMessageBytes = 24;

  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // Reads what Encode wrote. DATA_LOSS with the reason when the bytes are not a whole batch. `created`: what ZooKeeper
  // says of the znode.
  static absl::StatusOr<std::shared_ptr<const Batch>> Decode(std::string_view bytes,
                                                             std::optional<WallTime> created = std::nullopt);
  // The last batch of a sealed segment.
  static std::string EncodeEndOfSegment(WallTime now);

  int size() const;
  std::string_view message(int index) const;
  WallTime due(int index) const;  // NewMessage::kNotDelayed = at once
  Writer writer() const;
  WallTime append_time() const;
  // When it was committed, by the clock of ZooKeeper's leader; none for one that was not read from there.
  std::optional<WallTime> created() const { return created_; }
  bool ends_segment() const;
  // Of either kind.
  bool has_ids() const;
  std::vector<BatchRequestId> request_ids() const;
  std::vector<BatchDedupId> dedup_ids() const;
  // What it costs in memory, about.
  std::size_t memory_bytes() const { return memory_bytes_; }
  // Bytes of all messages.
  std::int64_t message_bytes() const { return message_bytes_; }
  std::string MessageId(int index) const;

 private:
  friend class BatchBuilder;
  Batch();
  void Measure();
  bool AreIdsWhole() const;

  std::unique_ptr<storage::v1::BatchRecord> record_;
  std::optional<WallTime> created_;
  std::size_t memory_bytes_ = 0;
  std::int64_t message_bytes_ = 0;
};

// Collects messages for one batch. Not thread-safe.
class BatchBuilder {
 public:
  BatchBuilder();
  ~BatchBuilder();

  // Returns the index of the first of the messages. `duplicates` are kept with the request_id.
  std::uint32_t Add(std::vector<NewMessage> messages, std::string_view request_id, const Duplicates& duplicates = {});
  int size() const;
  // An upper bound of the encoded size.
  std::size_t bytes() const { return other_bytes_ + message_bytes_; }
  // What its messages count for in a queue of messages waiting: their bytes and kPerMessageBytes for each.
  std::size_t message_bytes() const { return message_bytes_; }

  struct Built {
    std::shared_ptr<const Batch> batch;
    std::string encoded;
  };
  // Ends the collecting.
  Built Build(const Writer& writer, WallTime now) &&;

 private:
  std::shared_ptr<Batch> batch_;
  std::size_t message_bytes_ = 0;
  std::size_t other_bytes_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_BATCH_H_
