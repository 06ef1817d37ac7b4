#include "cli/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/output.h"

namespace postkeeper::cli {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

// One thing is told as one.
TEST(CliText, CountsThings) {
  EXPECT_EQ(Counted(0, "message"), "0 messages");
  EXPECT_EQ(Counted(1, "message"), "1 message");
  EXPECT_EQ(Counted(2, "message"), "2 messages");
}

// What people write for a duration is what they get.
TEST(CliTextTest, ParsesDurations) {
  EXPECT_EQ(*ParseDuration("30s"), seconds(30));
  EXPECT_EQ(*ParseDuration("1h30m"), minutes(90));
  EXPECT_EQ(*ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5m"), seconds(90));
  EXPECT_EQ(*ParseDuration("2d"), hours(48));
  EXPECT_EQ(*ParseDuration("100us"), std::chrono::microseconds(100));
  EXPECT_EQ(*ParseDuration("0"), seconds(0));
  EXPECT_EQ(*ParseDuration("0.1s"), milliseconds(100));
}

// What is no duration is refused, with the reason and an example.
TEST(CliTextTest, RefusesWhatIsNoDuration) {
  const auto message = [](const char* text) { return std::string(ParseDuration(text).status().message()); };
  EXPECT_THAT(message("30"), HasSubstr("it has no unit. Right would be 250ms"));
  EXPECT_THAT(message("-5s"), HasSubstr("it is negative"));
  EXPECT_THAT(message(""), HasSubstr("it is empty"));
  EXPECT_THAT(message("5 s"), HasSubstr("it has no unit"));
  EXPECT_THAT(message("5y"), HasSubstr("the unit 'y' is unknown"));
  EXPECT_THAT(message("9999999999h"), HasSubstr("above ten years"));
  EXPECT_THAT(message("1.2.3s"), HasSubstr("needs a number"));
  EXPECT_THAT(message("nans"), HasSubstr("needs a number"));
  EXPECT_THAT(message("\x1b[2Js"), HasSubstr("'\\x1b[2Js'"));
}

// Durations are shown in the units that people think in, and parse back to what they were.
TEST(CliTextTest, FormatsDurations) {
  EXPECT_EQ(FormatDuration(seconds(30)), "30s");
  EXPECT_EQ(FormatDuration(minutes(90)), "1h30m");
  EXPECT_EQ(FormatDuration(hours(49)), "2d1h");
  EXPECT_EQ(FormatDuration(milliseconds(1500)), "1.5s");
  EXPECT_EQ(FormatDuration(milliseconds(250)), "250ms");
  EXPECT_EQ(FormatDuration(Duration(0)), "0s");
  for (const auto duration : {milliseconds(1), milliseconds(61'001), milliseconds(86'400'000 * 9 + 1)}) {
    EXPECT_EQ(*ParseDuration(FormatDuration(duration)), duration);
  }
}

// Sizes in powers of two and of ten; everything else is refused.
TEST(CliTextTest, ParsesAndFormatsBytes) {
  EXPECT_EQ(*ParseBytes("1000"), 1000);
  EXPECT_EQ(*ParseBytes("64KiB"), 65536);
  EXPECT_EQ(*ParseBytes("1.5MiB"), 1572864);
  EXPECT_EQ(*ParseBytes("2GB"), 2'000'000'000);
  for (const char* wrong : {"", "0", "-1", "5XB", "KiB", "99999999GiB", "1KiB2"})
    EXPECT_FALSE(ParseBytes(wrong).ok()) << wrong;
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(256 << 20), "256 MiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
}

// Times are RFC 3339 in any zone, and shown in UTC.
TEST(CliTextTest, ParsesAndFormatsTimes) {
  EXPECT_EQ(FormatTime(*ParseTime("2030-01-31T12:00:00.5+02:00")), "2030-01-31T10:00:00.500Z");
  for (const char* wrong :
       {"", "2030-01-31", "tomorrow", "infinite-future", "2030-13-01T00:00:00Z", "1969-01-01T00:00:00Z"}) {
    EXPECT_FALSE(ParseTime(wrong).ok()) << wrong;
  }
}

// Only well-formed UTF-8 passes: no overlong forms, surrogates, truncated or stray bytes.
TEST(CliTextTest, KnowsUtf8) {
  for (const char* right : {"", "abc", "\xC3\xA4", "\xE4\xBB\xBB", "\xF0\x9F\x93\xAE"}) EXPECT_TRUE(IsValidUtf8(right));
  for (const char* wrong : {"\x80", "\xC3", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                            "\xF8\x88\x80\x80\x80", "a\xFF"}) {
    EXPECT_FALSE(IsValidUtf8(wrong));
  }
}

// JSON stays valid whatever the bytes are: quotes, control characters, zero bytes, bytes that are no UTF-8.
TEST(CliTextTest, QuotesHostileBytesForJson) {
  EXPECT_EQ(JsonQuote("a\"b\\c\n\t\r"), R"("a\"b\\c\n\t\r")");
  EXPECT_EQ(JsonQuote(std::string("\0\x1b\x7f", 3)), R"("\u0000\u001b\u007f")");
  EXPECT_EQ(JsonQuote("\xFFx\xC3"), R"("\ufffdx\ufffd")");
  EXPECT_EQ(JsonQuote("\xE4\xBB\xBB"), "\"\xE4\xBB\xBB\"");
}

// A message cannot command the terminal of the person who looks at it.
TEST(CliTextTest, ShowsControlCharactersInsteadOfSendingThem) {
  EXPECT_EQ(ForTerminal("\x1b]0;owned\x07", false), "\\x1b]0;owned\\x07");
  EXPECT_EQ(ForTerminal("a\nb\tc\r", true), "a\nb\tc\\x0d");
  EXPECT_EQ(ForTerminal("a\nb", false), "a\\x0ab");
  EXPECT_EQ(ForTerminal("\xC2\x9B"
                        "31m \xC3\xA4 \xFF",
                        true),
            "\\xc2\\x9b31m \xC3\xA4 \\xff");
}

// Any attribute name becomes a variable that a shell can read.
TEST(CliTextTest, NamesAttributeVariables) {
  EXPECT_EQ(AttributeVariable("lang"), "POSTKEEPER_ATTRIBUTE_LANG");
  EXPECT_EQ(AttributeVariable("source-message-id"), "POSTKEEPER_ATTRIBUTE_SOURCE_MESSAGE_ID");
  EXPECT_EQ(AttributeVariable("a=b\n\xC3\xA4"), "POSTKEEPER_ATTRIBUTE_A_B___");
}

// The same output of the same message is published under the same id, of another message or source under another, and
// always within the service's 64 bytes.
TEST(CliTextTest, NamesOutputsBySourceAndMessage) {
  EXPECT_EQ(OutputRequestId("lines", "m1"), OutputRequestId("lines", "m1"));
  EXPECT_NE(OutputRequestId("lines", "m1"), OutputRequestId("lines", "m2"));
  EXPECT_NE(OutputRequestId("lines", "m1"), OutputRequestId("other", "m1"));
  const std::string long_id(128, 'x');
  EXPECT_LE(OutputRequestId("lines", long_id).size(), 64u);
  EXPECT_NE(OutputRequestId("lines", long_id), OutputRequestId("lines", long_id + "y"));
  EXPECT_NE(RandomId(), RandomId());
  EXPECT_EQ(RandomId().size(), 32u);
}

// An object has its members in the order given, bodies as text or as base64, never both.
TEST(CliOutputTest, BuildsJson) {
  JsonObject inner;
  inner.Add("k", "v");
  JsonObject object;
  object.Add("n", std::int64_t{-7}).Add("d", 0.5).Add("o", inner).AddBool("b", true).AddList("l", {"x", "y"});
  object.AddBody("text");
  EXPECT_EQ(object.Text(), R"({"n":-7,"d":0.5,"o":{"k":"v"},"b":true,"l":["x","y"],"body":"text"})");

  EXPECT_EQ(JsonObject().AddBody(std::string("\xFF\0z", 3)).Text(), R"({"body_base64":"/wB6"})");
  EXPECT_EQ(JsonObject().AddBody("").Text(), R"({"body":""})");
}

// Columns are aligned by characters, and nothing trails.
TEST(CliOutputTest, AlignsTables) {
  std::ostringstream stream;
  Output out(stream, OutputFormat::kHuman, false);
  out.Table({{"QUEUE", "LEASE"},
             {"b\xC3\xBC"
              "cher",
              "30s"},
             {"q", ""}});
  EXPECT_EQ(stream.str(),
            "QUEUE   LEASE\nb\xC3\xBC"
            "cher  30s\nq       \n");
}

// A body is printed byte for byte with one line end, but not sent raw to a terminal.
TEST(CliOutputTest, PrintsBodies) {
  std::ostringstream piped;
  Output to_pipe(piped, OutputFormat::kHuman, false);
  to_pipe.Body("a\x1b");
  to_pipe.Body("b\n");
  to_pipe.Body("");
  EXPECT_EQ(piped.str(), "a\x1b\nb\n\n");
  std::ostringstream shown;
  Output to_terminal(shown, OutputFormat::kHuman, true);
  to_terminal.Body("a\x1b\nb");
  EXPECT_EQ(shown.str(), "a\\x1b\nb\n");
}

// A stream that takes no more is noticed, so that nothing is acked that nobody read.
TEST(CliOutputTest, NoticesAFailedWrite) {
  std::ostringstream stream;
  Output out(stream, OutputFormat::kHuman, false);
  out.Line("x");
  EXPECT_TRUE(out.Flush());
  stream.setstate(std::ios::badbit);
  out.Line("y");
  EXPECT_FALSE(out.Flush());
}

}  // namespace
}  // namespace postkeeper::cli
