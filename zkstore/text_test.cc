#include "zkstore/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// Control characters and broken UTF-8 (cut, overlong, surrogate, above U+10FFFF) are escaped; good text stays.
TEST(TextTest, PrintableEscapesWhatDoesNotPrint) {
  EXPECT_EQ(Printable("Käse 任务 🙂", 100), "Käse 任务 🙂");
  EXPECT_EQ(Printable(std::string_view("a\0b\x1b\x7f", 5), 100), "a\\x00b\\x1b\\x7f");
  EXPECT_EQ(Printable("\xc3", 100), "\\xc3");
  EXPECT_EQ(Printable("\xc0\xaf", 100), "\\xc0\\xaf");
  EXPECT_EQ(Printable("\xed\xa0\x80", 100), "\\xed\\xa0\\x80");
  EXPECT_EQ(Printable("\xf4\x90\x80\x80", 100), "\\xf4\\x90\\x80\\x80");
}

// A text is cut between characters and never longer than asked.
TEST(TextTest, PrintableCutsBetweenCharacters) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abc...");
  EXPECT_EQ(Printable("任务任务", 8), "任...");
  EXPECT_EQ(Printable("abcdef", 2), "");
  for (std::size_t max = 0; max < 20; ++max) EXPECT_LE(Printable("aä任🙂\xff bcdefgh", max).size(), max);
}

// Quotes go around the text and do not count.
TEST(TextTest, QuotedPutsQuotesAround) {
  EXPECT_EQ(Quoted("orders"), "\"orders\"");
  EXPECT_EQ(Quoted("orders", 5), "\"or...\"");
}

// A duration is said in the largest unit that needs no fraction.
TEST(TextTest, ReadableDurations) {
  EXPECT_EQ(Readable(Duration::zero()), "0s");
  EXPECT_EQ(Readable(seconds(30)), "30s");
  EXPECT_EQ(Readable(milliseconds(1500)), "1.5s");
  EXPECT_EQ(Readable(milliseconds(100)), "100ms");
  EXPECT_EQ(Readable(Duration(1)), "1ns");
  EXPECT_EQ(Readable(minutes(10)), "10min");
  EXPECT_EQ(Readable(hours(12)), "12h");
  EXPECT_EQ(Readable(hours(24)), "24h");
  EXPECT_EQ(Readable(hours(720)), "30 days");
  EXPECT_EQ(Readable(-seconds(5)), "-5s");
  EXPECT_EQ(Readable(-milliseconds(1500)), "-1.5s");
}

// Cat takes what absl::StrCat takes, and std::string_view.
TEST(TextTest, CatTakesStdStringView) {
  EXPECT_EQ(Cat("a", std::string_view("b"), std::string("c"), 4, absl::string_view("d")), "abc4d");
}

}  // namespace
}  // namespace postkeeper
