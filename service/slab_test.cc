#include "service/slab.h"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>
#include <vector>

namespace postkeeper {
namespace {

struct Thing {
  std::uint64_t value = 7;
};

// Objects keep their values while others come and go around them, and a reference in use is never given out again.
TEST(SlabTest, ObjectsKeepTheirValuesWhileOthersComeAndGo) {
  Slab<Thing> slab;
  std::unordered_map<Slab<Thing>::Reference, std::uint64_t> expected;
  std::vector<Slab<Thing>::Reference> live;
  std::mt19937_64 random(1);
  for (std::uint64_t step = 0; step < 50'000; ++step) {
    if (live.empty() || random() % 100 < (step / 5'000 % 2 == 0 ? 70u : 30u)) {
      const auto reference = slab.New();
      ASSERT_EQ(slab[reference].value, 7u);
      slab[reference].value = step;
      ASSERT_TRUE(expected.emplace(reference, step).second) << reference << " was in use";
      live.push_back(reference);
    } else {
      const std::size_t chosen = random() % live.size();
      ASSERT_EQ(slab[live[chosen]].value, expected[live[chosen]]);
      expected.erase(live[chosen]);
      slab.Free(live[chosen]);
      live[chosen] = live.back();
      live.pop_back();
    }
  }
  for (const auto& [reference, value] : expected) EXPECT_EQ(slab[reference].value, value);
}

// Memory follows what is in use: chunks are given back, vacant ones are used again, and one chunk stays.
TEST(SlabTest, EmptyChunksAreGivenBack) {
  Slab<Thing> slab;
  for (int round = 0; round < 3; ++round) {
    std::vector<Slab<Thing>::Reference> live;
    for (std::uint32_t i = 0; i < 10 * Slab<Thing>::kChunkSize; ++i) live.push_back(slab.New());
    EXPECT_EQ(slab.chunk_count(), 10u);
    for (const auto reference : live) slab.Free(reference);
    EXPECT_EQ(slab.chunk_count(), 1u);
  }
}

// A partly used chunk is filled before another is made.
TEST(SlabTest, RoomIsUsedBeforeMoreIsMade) {
  Slab<Thing> slab;
  std::vector<Slab<Thing>::Reference> live;
  for (std::uint32_t i = 0; i < 2 * Slab<Thing>::kChunkSize; ++i) live.push_back(slab.New());
  for (std::uint32_t i = 0; i < live.size(); i += 2) slab.Free(live[i]);
  for (std::uint32_t i = 0; i < live.size(); i += 2) slab.New();
  EXPECT_EQ(slab.chunk_count(), 2u);
}

}  // namespace
}  // namespace postkeeper
