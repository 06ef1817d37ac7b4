// Where a message stands in its log.
#ifndef POSTKEEPER_ZKSTORE_POSITION_H_
#define POSTKEEPER_ZKSTORE_POSITION_H_

#include <compare>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace postkeeper {

// (segment, batch, index) in 64 bits, ordered as the log is. Stored in cursors and given to clients: the widths never
// change.
class Position {
 public:
  static constexpr int kSegmentBits = 36;
  static constexpr int kBatchBits = 16;
  static constexpr int kIndexBits = 12;
  static_assert(kSegmentBits + kBatchBits + kIndexBits == 64);

  static constexpr std::uint64_t kSegmentMax = (std::uint64_t{1} << kSegmentBits) - 1;
  static constexpr std::uint32_t kBatchMax = (1u << kBatchBits) - 1;
  static constexpr std::uint32_t kIndexMax = (1u << kIndexBits) - 1;

  constexpr Position() = default;
  // Each part must be within its maximum.
  constexpr Position(std::uint64_t segment, std::uint32_t batch, std::uint32_t index)
      : value_(segment << (kBatchBits + kIndexBits) | std::uint64_t{batch} << kIndexBits | index) {}
  static constexpr Position FromValue(std::uint64_t value) {
    Position position;
    position.value_ = value;
    return position;
  }

  constexpr std::uint64_t value() const { return value_; }
  constexpr std::uint64_t segment() const { return value_ >> (kBatchBits + kIndexBits); }
  constexpr std::uint32_t batch() const { return static_cast<std::uint32_t>(value_ >> kIndexBits) & kBatchMax; }
  constexpr std::uint32_t index() const { return static_cast<std::uint32_t>(value_) & kIndexMax; }

  // The first position of this batch, of the next one in this segment, of the next segment.
  constexpr Position BatchStart() const { return FromValue(value_ & ~std::uint64_t{kIndexMax}); }
  constexpr Position NextBatch() const { return FromValue(BatchStart().value_ + (std::uint64_t{1} << kIndexBits)); }
  constexpr Position NextSegment() const { return Position(segment() + 1, 0, 0); }

  friend constexpr auto operator<=>(Position, Position) = default;
  template <typename H>
  friend H AbslHashValue(H h, Position position) {
    return H::combine(std::move(h), position.value_);
  }

  // For logs and errors: "3/17/5".
  std::string DebugString() const { return absl::StrCat(segment(), "/", batch(), "/", index()); }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_POSITION_H_
