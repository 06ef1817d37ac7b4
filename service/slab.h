// Many small things of one type, named by 32-bit references.
#ifndef POSTKEEPER_SERVICE_SLAB_H_
#define POSTKEEPER_SERVICE_SLAB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace postkeeper {

// Makes and frees objects of type T in chunks of 256. Against new and delete it saves the allocator's header on each
// object, halves the size of the links between them, and keeps neighbours in time neighbours in memory.
//
// An object stays where it is until it is freed; its reference may then name another one. A chunk goes back to the
// allocator when its last object is freed (one is always kept), so memory follows what is in use now and not what once
// was. All calls take constant time, amortised.
//
// Not thread-safe. A reference that is not in use must not be passed in: that is not checked.
template <typename T>
class Slab {
  static_assert(std::is_trivially_destructible_v<T>, "what is left when the slab ends is not destroyed");

 public:
  using Reference = std::uint32_t;
  static constexpr Reference kNone = ~Reference{0};

  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // A fresh T{}.
  Reference New() {
    const std::uint32_t number = ChunkWithRoom();
    Chunk& chunk = *slots_[number].chunk;
    const std::uint32_t index = chunk.free[--chunk.free_count];
    new (chunk.At(index)) T{};
    return number * kChunkSize + index;
  }

  void Free(Reference reference) {
    const std::uint32_t number = reference / kChunkSize;
    Slot& slot = slots_[number];
    slot.chunk->free[slot.chunk->free_count++] = static_cast<std::uint8_t>(reference % kChunkSize);
    if (slot.chunk->free_count == kChunkSize && chunk_count_ > 1) {
      slot.chunk.reset();
      --chunk_count_;
      vacant_.push_back(number);
    } else if (!slot.is_listed) {
      slot.is_listed = true;
      with_room_.push_back(number);
    }
  }

  T& operator[](Reference reference) {
    return *std::launder(reinterpret_cast<T*>(slots_[reference / kChunkSize].chunk->At(reference % kChunkSize)));
  }
  const T& operator[](Reference reference) const { return const_cast<Slab&>(*this)[reference]; }

  // Chunks held at present, each with room for kChunkSize objects.
  std::size_t chunk_count() const { return chunk_count_; }
  static constexpr std::uint32_t kChunkSize = 256;

 private:
  struct Chunk {
    std::byte* At(std::uint32_t index) { return objects + index * sizeof(T); }

    alignas(T) std::byte objects[kChunkSize * sizeof(T)];
    std::uint8_t free[kChunkSize];  // a stack of the indexes not in use
    std::uint32_t free_count;
  };
  static_assert(kChunkSize <= 256, "an index is one byte");

  struct Slot {
    std::unique_ptr<Chunk> chunk;
    bool is_listed = false;  // in with_room_
  };

  std::uint32_t ChunkWithRoom() {
    while (!with_room_.empty()) {
      const std::uint32_t number = with_room_.back();
      Slot& slot = slots_[number];
      if (slot.chunk != nullptr && slot.chunk->free_count > 0) return number;
      slot.is_listed = false;
      with_room_.pop_back();
    }
    return AddChunk();
  }

  std::uint32_t AddChunk() {
    std::uint32_t number = static_cast<std::uint32_t>(slots_.size());
    if (vacant_.empty()) {
      slots_.emplace_back();
    } else {
      number = vacant_.back();
      vacant_.pop_back();
    }
    Slot& slot = slots_[number];
    slot.chunk = std::make_unique_for_overwrite<Chunk>();
    for (std::uint32_t i = 0; i < kChunkSize; ++i) slot.chunk->free[i] = static_cast<std::uint8_t>(kChunkSize - 1 - i);
    slot.chunk->free_count = kChunkSize;
    slot.is_listed = true;
    with_room_.push_back(number);
    ++chunk_count_;
    return number;
  }

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> with_room_;  // chunks that may have room; the others are full or vacant
  std::vector<std::uint32_t> vacant_;     // slots without a chunk
  std::size_t chunk_count_ = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SLAB_H_
