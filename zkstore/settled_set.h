// What a source has settled of its log, and what must be remembered about the rest.
#ifndef POSTKEEPER_ZKSTORE_SETTLED_SET_H_
#define POSTKEEPER_ZKSTORE_SETTLED_SET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "zkstore/environment.h"
#include "zkstore/position.h"

namespace postkeeper {

namespace storage::v1 {
class CursorRecord;
class PartRecord;
}  // namespace storage::v1

// The cursor's content, in memory and as records. A pure data structure: no I/O, no clock.
//
// A batch is known by its ordinal, (segment << 16 | batch). Wholly settled batches are intervals of ordinals: the first
// interval, from 0, ends at the watermark. Batches that are partly settled, or of which a delivery number or a due time
// must be kept, have a state of their own.
//
// In the records eight ordinals are a part. Parts wholly settled behind the watermark are ranges in the cursor, three
// or four bytes each; a log of 100,000 live batches has at most 6,250 of them. Every other part of which there is
// something to say is inside the cursor record while those take no more than kInlineBytesMax together, and else in a
// znode of its own ("spilled"), which it keeps until it is wholly settled. So every record is bounded, however settled
// and unsettled messages alternate.
//
// Not thread-safe.
class SettledSet {
 public:
  static constexpr std::size_t kInlineBytesMax = 16 << 10;
  static constexpr int kPartBits = 3;  // 8 batches are a part

  // What is kept of an unsettled message.
  struct Notes {
    std::uint32_t number = 0;    // the highest delivery number given out or about to be
    std::uint32_t attempts = 0;  // deliveries that count
    WallTime due{};              // of a Nack with delay; WallTime{} = none

    friend bool operator==(const Notes&, const Notes&) = default;
  };

  SettledSet() = default;

  // Takes over what was stored. DATA_LOSS if the records contradict themselves.
  absl::Status Load(const storage::v1::CursorRecord& cursor, const std::vector<storage::v1::PartRecord>& parts);

  bool IsSettled(Position position) const;
  bool IsBatchSettled(Position batch) const;
  Notes NotesOf(Position position) const;
  // True if nothing is said about any message of the batch.
  bool IsUntouched(Position batch) const;
  // Every position before it is settled.
  Position watermark() const;

  // What the log holds, as it is read; to be called before a message of the batch is settled. A batch whose messages
  // are all settled already, or that has none (the end of a segment), becomes wholly settled.
  void LearnBatch(Position batch, int messages);
  // The segment has `batches` batches and gets no more.
  void LearnSegmentEnd(std::uint64_t segment, std::uint32_t batches);

  // Returns true if this settled the last message of its batch: its znode is to be deleted in the write that says so.
  // Settling again changes nothing, nor does settling a message that the batch does not have.
  bool Settle(Position position);
  // Sets the notes of an unsettled message.
  void SetNotes(Position position, const Notes& notes);
  // Treats a batch that is no longer there as settled.
  void SettleBatch(Position batch);

  // What to write so that the store says the same as this object.
  struct Changes {
    std::vector<std::pair<std::uint64_t, std::string>> created_parts;  // number, data
    std::vector<std::pair<std::uint64_t, std::string>> changed_parts;
    std::vector<std::uint64_t> deleted_parts;
    std::size_t bytes() const;
  };
  // Fills watermark, ranges and parts of `cursor`. Parts that are not needed any more and could not be deleted in
  // earlier writes come in this or a later call, at most `deleted_parts_max` at a time. What is returned counts as
  // stored.
  Changes Encode(storage::v1::CursorRecord& cursor, std::size_t deleted_parts_max);

  // What the spilled parts that have changed since the last Encode add to the next write, about.
  std::size_t changed_spilled_bytes() const { return changed_spilled_bytes_; }
  // How many batches have a state or are yet to be settled, as far as they were learned.
  std::size_t open_batches() const { return states_.size(); }

 private:
  struct BatchState {
    int messages = 0;  // 0 = not read yet
    int settled = 0;
    std::vector<std::uint64_t> bits;  // of settled messages
    absl::btree_map<std::uint32_t, Notes> notes;

    bool is_settled(std::uint32_t index) const;
  };

  static std::uint64_t OrdinalOf(Position position) { return position.value() >> Position::kIndexBits; }
  static std::uint64_t PartOf(std::uint64_t ordinal) { return ordinal >> kPartBits; }

  bool IsOrdinalSettled(std::uint64_t ordinal) const;
  bool IsPartSettled(std::uint64_t part) const;
  void AddInterval(std::uint64_t begin, std::uint64_t end);
  void Touch(std::uint64_t part);
  absl::Status LoadPart(const storage::v1::PartRecord& part);
  void EncodePart(std::uint64_t part, storage::v1::PartRecord& record) const;
  void EncodeRanges(storage::v1::CursorRecord& cursor) const;
  void SortOutChangedParts();
  void SpillLargeParts(storage::v1::CursorRecord& cursor, Changes& changes);

  absl::btree_map<std::uint64_t, std::uint64_t> settled_;  // begin -> end of disjoint, not touching intervals
  absl::btree_map<std::uint64_t, BatchState> states_;      // by ordinal; none that is wholly settled
  absl::btree_set<std::uint64_t> explicit_parts_;          // with something to say that no range says
  absl::btree_map<std::uint64_t, std::size_t> spilled_;    // have a znode; the bytes in it
  absl::btree_set<std::uint64_t> changed_;                 // since the last Encode
  std::size_t changed_spilled_bytes_ = 0;
  absl::btree_set<std::uint64_t> obsolete_;  // have a znode that is not needed any more
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_SETTLED_SET_H_
