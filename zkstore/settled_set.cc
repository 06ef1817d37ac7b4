#include "zkstore/settled_set.h"

#include <algorithm>
#include <bit>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using storage::v1::BatchState;
using storage::v1::CursorRecord;
using storage::v1::MessageNotes;
using storage::v1::PartRecord;

constexpr std::uint64_t kBatchesPerPart = std::uint64_t{1} << SettledSet::kPartBits;
constexpr std::uint32_t kMessagesMax = Position::kIndexMax + 1;
// Spilling goes on down to this, so that it does not happen at every write.
constexpr std::size_t kInlineBytesAfterSpill = SettledSet::kInlineBytesMax / 2;

absl::Status Contradiction(std::string_view what) {
  return absl::DataLossError(Cat("the cursor's records contradict themselves: ", what));
}

}  // namespace

bool SettledSet::BatchState::is_settled(std::uint32_t index) const {
  return index / 64 < bits.size() && (bits[index / 64] >> (index % 64) & 1) != 0;
}

// ---- Asking

bool SettledSet::IsOrdinalSettled(std::uint64_t ordinal) const {
  auto after = settled_.upper_bound(ordinal);
  return after != settled_.begin() && std::prev(after)->second > ordinal;
}

bool SettledSet::IsPartSettled(std::uint64_t part) const {
  auto after = settled_.upper_bound(part << kPartBits);
  return after != settled_.begin() && std::prev(after)->second >= (part + 1) << kPartBits;
}

bool SettledSet::IsBatchSettled(Position batch) const { return IsOrdinalSettled(OrdinalOf(batch)); }

bool SettledSet::IsSettled(Position position) const {
  const std::uint64_t ordinal = OrdinalOf(position);
  if (IsOrdinalSettled(ordinal)) return true;
  auto state = states_.find(ordinal);
  return state != states_.end() && state->second.is_settled(position.index());
}

SettledSet::Notes SettledSet::NotesOf(Position position) const {
  auto state = states_.find(OrdinalOf(position));
  if (state == states_.end()) return {};
  auto notes = state->second.notes.find(position.index());
  return notes == state->second.notes.end() ? Notes{} : notes->second;
}

bool SettledSet::IsUntouched(Position batch) const {
  const std::uint64_t ordinal = OrdinalOf(batch);
  auto state = states_.find(ordinal);
  if (state != states_.end() && (state->second.settled > 0 || !state->second.notes.empty())) return false;
  return !IsOrdinalSettled(ordinal);
}

Position SettledSet::watermark() const {
  if (settled_.empty() || settled_.begin()->first != 0) return Position();
  return Position::FromValue(settled_.begin()->second << Position::kIndexBits);
}

// ---- Changing

void SettledSet::AddInterval(std::uint64_t begin, std::uint64_t end) {
  auto at = settled_.upper_bound(begin);
  if (at != settled_.begin() && std::prev(at)->second >= begin) {
    at = std::prev(at);
    if (at->second >= end) return;
    begin = at->first;
  }
  while (at != settled_.end() && at->first <= end) {
    end = std::max(end, at->second);
    at = settled_.erase(at);
  }
  settled_.emplace(begin, end);
}

void SettledSet::Touch(std::uint64_t part) {
  if (!changed_.insert(part).second) return;
  auto spilled = spilled_.find(part);
  if (spilled != spilled_.end()) changed_spilled_bytes_ += spilled->second;
}

void SettledSet::LearnBatch(Position batch, int messages) {
  const std::uint64_t ordinal = OrdinalOf(batch);
  if (IsOrdinalSettled(ordinal)) return;
  if (messages == 0) return SettleBatch(batch);
  BatchState& state = states_[ordinal];
  state.messages = messages;
  if (state.settled >= messages) SettleBatch(batch);
}

void SettledSet::LearnSegmentEnd(std::uint64_t segment, std::uint32_t batches) {
  const std::uint64_t begin = segment << Position::kBatchBits | batches;
  AddInterval(begin, (segment + 1) << Position::kBatchBits);
  Touch(PartOf(begin));
}

bool SettledSet::Settle(Position position) {
  const std::uint64_t ordinal = OrdinalOf(position);
  if (IsOrdinalSettled(ordinal)) return false;
  const auto known = states_.find(ordinal);
  if (known != states_.end()) {
    const BatchState& learned = known->second;
    if (learned.messages > 0 && position.index() >= static_cast<std::uint32_t>(learned.messages)) return false;
    if (learned.is_settled(position.index())) return false;
  }
  BatchState& state = states_[ordinal];
  const std::size_t word = position.index() / 64;
  if (state.bits.size() <= word) state.bits.resize(word + 1);
  state.bits[word] |= std::uint64_t{1} << (position.index() % 64);
  state.notes.erase(position.index());
  ++state.settled;
  Touch(PartOf(ordinal));
  const int last = IsMutated(Mutation::kDeleteBatchEarly) && state.messages > 1 ? state.messages - 1 : state.messages;
  if (state.messages == 0 || state.settled < last) return false;
  SettleBatch(position);
  return true;
}

void SettledSet::SetNotes(Position position, const Notes& notes) {
  const std::uint64_t ordinal = OrdinalOf(position);
  if (IsSettled(position)) return;
  states_[ordinal].notes[position.index()] = notes;
  Touch(PartOf(ordinal));
}

void SettledSet::SettleBatch(Position batch) {
  const std::uint64_t ordinal = OrdinalOf(batch);
  AddInterval(ordinal, ordinal + 1);
  states_.erase(ordinal);
  Touch(PartOf(ordinal));
}

// ---- Writing

std::size_t SettledSet::Changes::bytes() const {
  std::size_t bytes = 0;
  for (const auto& [part, data] : created_parts) bytes += data.size();
  for (const auto& [part, data] : changed_parts) bytes += data.size();
  return bytes;
}

void SettledSet::EncodePart(std::uint64_t part, PartRecord& record) const {
  record.set_n(part);
  for (std::uint64_t i = 0; i < kBatchesPerPart; ++i) {
    const std::uint64_t ordinal = part << kPartBits | i;
    auto state = states_.find(ordinal);
    const bool is_settled = IsOrdinalSettled(ordinal);
    if (!is_settled && (state == states_.end() || (state->second.settled == 0 && state->second.notes.empty())))
      continue;
    storage::v1::BatchState& batch = *record.add_batches();
    batch.set_batch(static_cast<std::uint32_t>(i));
    batch.set_settled(is_settled);
    if (is_settled) continue;
    if (state->second.settled > 0) {
      std::string& bytes = *batch.mutable_settled_bits();
      for (std::uint64_t word : state->second.bits) {
        for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<char>(word >> shift));
      }
      while (!bytes.empty() && bytes.back() == '\0') bytes.pop_back();
    }
    MessageNotes* run = nullptr;
    Notes last;
    for (const auto& [index, notes] : state->second.notes) {
      if (run != nullptr && notes == last && run->first_index() + run->count() == index) {
        run->set_count(run->count() + 1);
        continue;
      }
      run = batch.add_notes();
      run->set_first_index(index);
      run->set_count(1);
      run->set_number(notes.number);
      run->set_attempts(notes.attempts);
      run->set_due_time_ms(notes.due.time_since_epoch().count());
      last = notes;
    }
  }
}

void SettledSet::EncodeRanges(CursorRecord& cursor) const {
  std::uint64_t from = PartOf(OrdinalOf(watermark()));
  for (const auto& [begin, end] : settled_) {
    const std::uint64_t first = PartOf(begin + kBatchesPerPart - 1);
    const std::uint64_t past = PartOf(end);
    if (begin == 0 || past <= first) continue;
    cursor.add_settled_parts(first - from);
    cursor.add_settled_parts(past - first);
    from = past;
  }
}

// Puts each changed part where it belongs now: covered by the watermark or by a range, or with a record of its own.
void SettledSet::SortOutChangedParts() {
  const std::uint64_t watermark_part = PartOf(OrdinalOf(watermark()));
  for (std::uint64_t part : changed_) {
    if (part < watermark_part || IsPartSettled(part)) {
      explicit_parts_.erase(part);
      if (spilled_.erase(part) > 0) obsolete_.insert(part);
    } else {
      explicit_parts_.insert(part);
    }
  }
  explicit_parts_.erase(explicit_parts_.begin(), explicit_parts_.lower_bound(watermark_part));
  const auto passed = spilled_.lower_bound(watermark_part);
  for (auto at = spilled_.begin(); at != passed; ++at) obsolete_.insert(at->first);
  spilled_.erase(spilled_.begin(), passed);
}

void SettledSet::SpillLargeParts(CursorRecord& cursor, Changes& changes) {
  std::size_t bytes = 0;
  for (const PartRecord& part : cursor.parts()) bytes += part.ByteSizeLong();
  if (bytes <= kInlineBytesMax) return;
  std::vector<PartRecord> parts(cursor.parts().begin(), cursor.parts().end());
  std::sort(parts.begin(), parts.end(),
            [](const PartRecord& a, const PartRecord& b) { return a.ByteSizeLong() > b.ByteSizeLong(); });
  for (const PartRecord& part : parts) {
    if (bytes <= kInlineBytesAfterSpill) break;
    bytes -= part.ByteSizeLong();
    // The znode of an earlier time may not be deleted yet.
    if (obsolete_.erase(part.n()) > 0) {
      changes.changed_parts.emplace_back(part.n(), part.SerializeAsString());
    } else {
      changes.created_parts.emplace_back(part.n(), part.SerializeAsString());
    }
    spilled_.emplace(part.n(), part.ByteSizeLong());
  }
  auto* inline_parts = cursor.mutable_parts();
  inline_parts->erase(std::remove_if(inline_parts->begin(), inline_parts->end(),
                                     [this](const PartRecord& part) { return spilled_.contains(part.n()); }),
                      inline_parts->end());
}

SettledSet::Changes SettledSet::Encode(CursorRecord& cursor, std::size_t deleted_parts_max) {
  SortOutChangedParts();
  cursor.set_watermark(watermark().value());
  cursor.clear_settled_parts();
  cursor.clear_parts();
  EncodeRanges(cursor);
  Changes changes;
  for (std::uint64_t part : explicit_parts_) {
    if (spilled_.contains(part)) {
      if (!changed_.contains(part)) continue;
      PartRecord record;
      EncodePart(part, record);
      spilled_[part] = record.ByteSizeLong();
      changes.changed_parts.emplace_back(part, record.SerializeAsString());
    } else {
      EncodePart(part, *cursor.add_parts());
    }
  }
  changed_.clear();
  changed_spilled_bytes_ = 0;
  SpillLargeParts(cursor, changes);
  while (!obsolete_.empty() && changes.deleted_parts.size() < deleted_parts_max) {
    changes.deleted_parts.push_back(*obsolete_.begin());
    obsolete_.erase(obsolete_.begin());
  }
  return changes;
}

// ---- Reading

absl::Status SettledSet::LoadPart(const PartRecord& part) {
  explicit_parts_.insert(part.n());
  for (const storage::v1::BatchState& batch : part.batches()) {
    if (batch.batch() >= kBatchesPerPart) return Contradiction("a part has a batch that is not its own");
    const std::uint64_t ordinal = part.n() << kPartBits | batch.batch();
    if (batch.settled()) {
      AddInterval(ordinal, ordinal + 1);
      continue;
    }
    if (IsOrdinalSettled(ordinal)) continue;
    if (batch.settled_bits().size() > kMessagesMax / 8) return Contradiction("more bits than a batch has messages");
    BatchState& state = states_[ordinal];
    state.bits.assign((batch.settled_bits().size() + 7) / 8, 0);
    for (std::size_t i = 0; i < batch.settled_bits().size(); ++i) {
      state.bits[i / 8] |= std::uint64_t{static_cast<std::uint8_t>(batch.settled_bits()[i])} << (8 * (i % 8));
    }
    for (std::uint64_t word : state.bits) state.settled += std::popcount(word);
    for (const MessageNotes& run : batch.notes()) {
      if (run.first_index() >= kMessagesMax || run.count() > kMessagesMax - run.first_index()) {
        return Contradiction("notes about messages that cannot be");
      }
      const Notes notes{run.number(), run.attempts(), WallTime(std::chrono::milliseconds(run.due_time_ms()))};
      for (std::uint32_t i = 0; i < run.count(); ++i) state.notes[run.first_index() + i] = notes;
    }
  }
  return absl::OkStatus();
}

absl::Status SettledSet::Load(const CursorRecord& cursor, const std::vector<PartRecord>& parts) {
  const std::uint64_t watermark_ordinal = OrdinalOf(Position::FromValue(cursor.watermark()));
  if (watermark_ordinal > 0) AddInterval(0, watermark_ordinal);
  if (cursor.settled_parts_size() % 2 != 0) return Contradiction("half a range");
  constexpr std::uint64_t kPartMax = std::uint64_t{1} << (Position::kSegmentBits + Position::kBatchBits - kPartBits);
  std::uint64_t part = PartOf(watermark_ordinal);
  for (int i = 0; i < cursor.settled_parts_size(); i += 2) {
    const std::uint64_t gap = cursor.settled_parts(i);
    const std::uint64_t length = cursor.settled_parts(i + 1);
    if (gap > kPartMax || length > kPartMax || part + gap + length > kPartMax) return Contradiction("a range too far");
    part += gap;
    AddInterval(part << kPartBits, (part + length) << kPartBits);
    part += length;
  }
  for (const PartRecord& record : cursor.parts()) {
    if (record.n() >= kPartMax) return Contradiction("a part too far");
    if (absl::Status status = LoadPart(record); !status.ok()) return status;
  }
  for (const PartRecord& record : parts) {
    if (record.n() >= kPartMax) return Contradiction("a part too far");
    if (record.n() < PartOf(watermark_ordinal) || IsPartSettled(record.n())) {
      obsolete_.insert(record.n());
      continue;
    }
    if (explicit_parts_.contains(record.n())) return Contradiction("a part in two places");
    spilled_.emplace(record.n(), record.ByteSizeLong());
    if (absl::Status status = LoadPart(record); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace postkeeper
