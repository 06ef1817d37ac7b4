// The paths of the store, which never change once a store exists.
#include "zkstore/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

using testing::ElementsAre;

const Layout kLayout("/root");

Uid MakeUid(std::uint8_t first) {
  Uid uid;
  uid.bytes[0] = first;
  return uid;
}
const std::string kHex = Cat("ab", std::string(30, '0'));

// Every path stands where docs/STORAGE.md says.
TEST(LayoutTest, PathsAreFixed) {
  const Uid uid = MakeUid(0xab);
  const std::string data = Cat("/root/data/", kHex);
  EXPECT_EQ(kLayout.Format(), "/root/format");
  EXPECT_EQ(kLayout.Queue("n", "q"), "/root/names/n/queues/q");
  EXPECT_EQ(kLayout.Topic("n", "t"), "/root/names/n/topics/t");
  EXPECT_EQ(kLayout.Trash(uid), Cat("/root/trash/", kHex));
  EXPECT_EQ(kLayout.Owner(uid), Cat(data, "/owner"));
  EXPECT_EQ(kLayout.Head(uid), Cat(data, "/head"));
  EXPECT_EQ(kLayout.Segment(uid, 12), Cat(data, "/log/12"));
  EXPECT_EQ(kLayout.BatchPrefix(uid, 12), Cat(data, "/log/12/b-"));
  EXPECT_EQ(kLayout.Batch(uid, Position(12, 34, 56)), Cat(data, "/log/12/b-0000000034"));
  EXPECT_EQ(kLayout.Cursor(uid, uid, 3), Cat(data, "/cursors/", kHex, ".3"));
  EXPECT_EQ(kLayout.Part(uid, uid, 5), Cat(data, "/parts/", kHex, ".5"));
  EXPECT_EQ(kLayout.Dedup(uid, 3, 5), Cat(data, "/dedup/3.5"));
  EXPECT_EQ(kLayout.Replica(ProcessId{}), Cat("/root/replicas/", std::string(32, '0')));
  EXPECT_EQ(kLayout.Producer(uid, ProcessId{}, 7), Cat(data, "/producers/", std::string(32, '0'), ".7"));
  EXPECT_THAT(kLayout.LogDirectories(uid),
              ElementsAre(Cat(data, "/log"), Cat(data, "/producers"), Cat(data, "/cursors"), Cat(data, "/parts"),
                          Cat(data, "/dedup"), Cat(data, "/kept")));
}

// What is written is read back.
TEST(LayoutTest, NamesAreParsed) {
  const Uid uid = MakeUid(0xab);
  EXPECT_EQ(Layout::ParseSegment("12"), 12u);
  EXPECT_EQ(Layout::ParseBatch(kLayout.Batch(uid, Position(1, Position::kBatchMax, 0))), Position::kBatchMax);
  EXPECT_EQ(Layout::ParseBatch("b-0000000007"), 7u);
  EXPECT_EQ(Layout::ParseCursor(Cat(kHex, ".4294967295"))->generation, 4294967295u);
  EXPECT_EQ(Layout::ParseCursor(Cat(kHex, ".1"))->source, uid);
  EXPECT_EQ(Layout::ParsePart(Cat(kHex, ".9"))->part, 9u);
  EXPECT_EQ(Layout::ParseDedup("3.9")->epoch, 3);
  EXPECT_EQ(Layout::ParseDedup("3.9")->number, 9u);
}

// Names that are not ours are not taken for ours.
TEST(LayoutTest, ForeignNamesAreRefused) {
  for (const char* name : {"", "3", "3.", ".3", "3.x", "a.3"}) EXPECT_FALSE(Layout::ParseDedup(name)) << name;
  for (const char* name : {"", "x", "-1", "1x", "68719476736"}) EXPECT_FALSE(Layout::ParseSegment(name)) << name;
  for (const char* name : {"", "b-", "b-7", "b-00000000x7", "b-0000065536", "c-0000000007", "b-00000000071"}) {
    EXPECT_FALSE(Layout::ParseBatch(name)) << name;
  }
  for (const std::string& name : {std::string(), kHex, Cat(kHex, "."), Cat(kHex, ".x"), Cat("AB", kHex.substr(2), ".1"),
                                  Cat(kHex, "0.1"), Cat(kHex, ".4294967296")}) {
    EXPECT_FALSE(Layout::ParseCursor(name)) << name;
  }
  EXPECT_FALSE(Layout::ParsePart(Cat(kHex, ".-1")));
}

// The parent of a path.
TEST(LayoutTest, Parents) {
  EXPECT_EQ(ParentPath("/a/b"), "/a");
  EXPECT_EQ(ParentPath("/a"), "/");
}

}  // namespace
}  // namespace postkeeper
