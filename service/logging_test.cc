#include "service/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A logger whose clock stands still unless moved, and whose lines are kept.
class LoggingTest : public ::testing::Test {
 protected:
  Logger Make(LogFormat format, LogLevel level = LogLevel::kDebug) {
    Logger::Options options;
    options.level = level;
    options.format = format;
    options.sink = [this](std::string_view line) { lines_.emplace_back(line); };
    options.now = [this] { return now_; };
    options.wall_now = [] { return WallTime(std::chrono::milliseconds(1'769'860'800'123)); };
    return Logger(std::move(options));
  }

  void PassTime(Duration duration) { now_ += duration; }

  std::vector<std::string> lines_;
  Instant now_{};
};

// A line of text gives time, level, event and fields in the order given.
TEST_F(LoggingTest, WritesText) {
  Logger logger = Make(LogFormat::kText);
  logger.Log(
      LogLevel::kInfo, "queue created",
      {{"queue", "orders"}, {"bytes", 12}, {"durable", true}, {"took", Duration(std::chrono::milliseconds(125))}});
  EXPECT_THAT(lines_, ElementsAre("2026-01-31T12:00:00.123Z info queue created queue=orders bytes=12 durable=true "
                                  "took=0.125s"));
}

// The same event as JSON is one object of one line, with numbers as numbers.
TEST_F(LoggingTest, WritesJson) {
  Logger logger = Make(LogFormat::kJson);
  logger.Log(LogLevel::kError, "lost \"it\"",
             {{"queue", "a b"},
              {"bytes", -1},
              {"took", Duration(std::chrono::seconds(2))},
              {"rate", std::numeric_limits<double>::infinity()}});
  EXPECT_THAT(lines_, ElementsAre("{\"time\":\"2026-01-31T12:00:00.123Z\",\"level\":\"error\",\"event\":\"lost "
                                  "\\\"it\\\"\",\"queue\":\"a b\",\"bytes\":-1,\"took\":2,\"rate\":\"inf\"}"));
}

// Values that hold line ends, terminal codes, separators, reordering marks or broken UTF-8 stay inside their line and
// their quotes.
TEST_F(LoggingTest, HostileValuesCannotForgeLines) {
  const std::string hostile =
      "a\n2026 error x=1\x1b[2J \"=\\ \xe2\x80\xa8 \xe2\x80\xae \xc2\x85 \xff \xc0\xaf \xe2\x82";
  Logger text = Make(LogFormat::kText);
  text.Log(LogLevel::kInfo, "e", {{"v", hostile}});
  Logger json = Make(LogFormat::kJson);
  json.Log(LogLevel::kInfo, "e", {{"v", hostile}});
  ASSERT_THAT(lines_, SizeIs(2));
  EXPECT_THAT(lines_[0], EndsWith("e v=\"a\\n2026 error x=1\\u001b[2J \\\"=\\\\ \\u2028 \\u202e \\u0085 \\xff "
                                  "\\xc0\\xaf \\xe2\\x82\""));
  EXPECT_THAT(lines_[1], EndsWith("\"v\":\"a\\n2026 error x=1\\u001b[2J \\\"=\\\\ \\u2028 \\u202e \\u0085 \\ufffd "
                                  "\\ufffd\\ufffd \\ufffd\\ufffd\"}"));
}

// Text in any script is written as it is.
TEST_F(LoggingTest, KeepsOrdinaryText) {
  Logger logger = Make(LogFormat::kJson);
  logger.Log(LogLevel::kInfo, "e", {{"v", "任务 é 🙂"}});
  EXPECT_THAT(lines_.at(0), EndsWith("\"v\":\"任务 é 🙂\"}"));
}

// A value is cut at its maximum, so a line stays bounded.
TEST_F(LoggingTest, CutsLongValues) {
  Logger logger = Make(LogFormat::kText);
  logger.Log(LogLevel::kInfo, "e", {{"v", std::string(100'000, 'x')}});
  EXPECT_THAT(lines_.at(0), EndsWith(Cat("v=\"", std::string(Logger::kValueBytesMax, 'x'), "...\"")));
}

// Below the level nothing is written.
TEST_F(LoggingTest, HonoursTheLevel) {
  Logger logger = Make(LogFormat::kText, LogLevel::kWarning);
  logger.Log(LogLevel::kInfo, "quiet", {});
  EXPECT_THAT(lines_, IsEmpty());
  EXPECT_FALSE(logger.IsOn(LogLevel::kInfo));
  logger.Log(LogLevel::kWarning, "heard", {});
  EXPECT_THAT(lines_, ElementsAre(EndsWith("warning heard")));
}

// A repeated error is written once per interval, and the next line says how many were left out.
TEST_F(LoggingTest, RepeatedErrorIsWrittenOncePerIntervalWithItsCount) {
  Logger logger = Make(LogFormat::kText);
  for (int i = 0; i < 5; ++i) logger.Log(LogLevel::kError, "no connection", {{"try", i}});
  logger.Log(LogLevel::kError, "another", {});
  PassTime(Logger::kRepeatInterval);
  logger.Log(LogLevel::kError, "no connection", {{"try", 5}});
  EXPECT_THAT(lines_, ElementsAre(EndsWith("no connection try=0"), EndsWith("error another"),
                                  EndsWith("no connection try=5 repeats=4")));
}

// Events of level info are never left out.
TEST_F(LoggingTest, InfoIsNotLimited) {
  Logger logger = Make(LogFormat::kText);
  for (int i = 0; i < 3; ++i) logger.Log(LogLevel::kInfo, "same", {});
  EXPECT_THAT(lines_, SizeIs(3));
}

// The count of an error that does not come again is still told: by the next line of any kind, or by Flush.
TEST_F(LoggingTest, CountIsToldEvenIfTheErrorStops) {
  Logger logger = Make(LogFormat::kText);
  for (int i = 0; i < 3; ++i) logger.Log(LogLevel::kError, "first", {});
  PassTime(Logger::kRepeatInterval);
  logger.Log(LogLevel::kInfo, "later", {});
  EXPECT_THAT(lines_, ElementsAre(EndsWith("error first"), EndsWith("error first repeats=2"), EndsWith("info later")));

  lines_.clear();
  for (int i = 0; i < 3; ++i) logger.Log(LogLevel::kWarning, "second", {});
  logger.Flush();
  logger.Flush();
  EXPECT_THAT(lines_, ElementsAre(EndsWith("warning second"), EndsWith("warning second repeats=2")));
}

// However many different errors there are, only so many are remembered, and no count is lost.
TEST_F(LoggingTest, MemoryOfRepeatsIsBounded) {
  Logger logger = Make(LogFormat::kText);
  logger.Log(LogLevel::kError, "the first", {});
  logger.Log(LogLevel::kError, "the first", {});
  for (std::size_t i = 0; i < Logger::kRepeatEntriesMax; ++i) {
    PassTime(std::chrono::milliseconds(1));
    logger.Log(LogLevel::kError, Cat("error ", i), {});
  }
  EXPECT_THAT(lines_, SizeIs(Logger::kRepeatEntriesMax + 2));
  EXPECT_THAT(lines_, ::testing::Contains(EndsWith("error the first repeats=1")));
  // It was forgotten, so it is written again although its interval is not over.
  logger.Log(LogLevel::kError, "the first", {});
  EXPECT_THAT(lines_.back(), EndsWith("error the first"));
}

}  // namespace
}  // namespace postkeeper
