#include "zkstore/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace postkeeper {
namespace {

// Every reason has a public name of its own, and the name leads back to it.
TEST(ErrorsTest, NamesAndReasonsAreOneToOne) {
  std::set<std::string_view> names;
  for (const Reason reason : AllReasons()) {
    EXPECT_THAT(std::string(ReasonName(reason)), testing::MatchesRegex("[A-Z_]+"));
    EXPECT_TRUE(names.insert(ReasonName(reason)).second) << ReasonName(reason);
    EXPECT_EQ(ReasonFromName(ReasonName(reason)), reason);
  }
  EXPECT_EQ(names.size(), 29u);
  EXPECT_EQ(ReasonFromName("NO_SUCH_REASON"), std::nullopt);
}

// What is put into an error comes out of it, whatever else happens to the status on its way.
TEST(ErrorsTest, DetailsTravelWithTheStatus) {
  const ErrorDetails details{.resource = "namespaces/default/queues/orders",
                             .field = "messages[3].body",
                             .limit = 10,
                             .actual = -3,
                             .oldest_position = "0000",
                             .path = "/postkeeper/data/x",
                             .log_id = "17",
                             .replica = "r1",
                             .retry_after = std::chrono::milliseconds(1500)};
  const absl::Status error = MakeError(Reason::kQueueFull, "it is full", details);
  EXPECT_EQ(error.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.message(), "it is full");
  const absl::Status copy = error;
  EXPECT_EQ(ReasonOf(copy), Reason::kQueueFull);
  EXPECT_EQ(DetailsOf(copy), details);
}

// A limit of 0 is a limit; a limit not given is none.
TEST(ErrorsTest, ZeroIsNotUnset) {
  EXPECT_EQ(DetailsOf(MakeError(Reason::kInvalidField, "", {.limit = 0})).limit, 0);
  EXPECT_EQ(DetailsOf(MakeError(Reason::kInvalidField, "")).limit, std::nullopt);
}

// Statuses of other making have no reason and no details, and WithDetails leaves them alone.
TEST(ErrorsTest, ForeignStatusesHaveNoReason) {
  EXPECT_EQ(ReasonOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(ReasonOf(absl::NotFoundError("x")), std::nullopt);
  EXPECT_EQ(DetailsOf(absl::NotFoundError("x")), ErrorDetails{});
  EXPECT_EQ(WithDetails(absl::NotFoundError("x"), {.resource = "y"}), absl::NotFoundError("x"));
}

// WithDetails keeps reason and text, and replaces the details.
TEST(ErrorsTest, WithDetailsKeepsTheReason) {
  const absl::Status error =
      WithDetails(MakeError(Reason::kQueueNotFound, "gone", {.field = "queue"}), {.resource = "q"});
  EXPECT_TRUE(HasReason(error, Reason::kQueueNotFound));
  EXPECT_EQ(error.message(), "gone");
  EXPECT_EQ(DetailsOf(error), ErrorDetails{.resource = "q"});
}

// Exactly those errors that a caller may usefully repeat carry a delay: all of RESOURCE_EXHAUSTED and UNAVAILABLE.
TEST(ErrorsTest, DelayGoesWithTheCodesThatAskForARepeat) {
  for (const Reason reason : AllReasons()) {
    const bool asks_for_a_repeat =
        CodeOf(reason) == absl::StatusCode::kResourceExhausted || CodeOf(reason) == absl::StatusCode::kUnavailable;
    EXPECT_EQ(DefaultRetryDelayOf(reason).has_value(), asks_for_a_repeat) << ReasonName(reason);
    EXPECT_EQ(DetailsOf(MakeError(reason, "")).retry_after, DefaultRetryDelayOf(reason)) << ReasonName(reason);
  }
}

// Details made of a stranger's bytes stay readable: what is not UTF-8 is escaped, not lost and not fatal.
TEST(ErrorsTest, DetailsSurviveBytesThatAreNotUtf8) {
  EXPECT_EQ(DetailsOf(MakeError(Reason::kInvalidName, "x", {.resource = "a\xff\nb"})).resource, "a\\xff\\x0ab");
}

// Of several errors the one of the highest precedence is answered, and among equals the first.
TEST(ErrorsTest, FirstErrorFollowsThePrecedence) {
  FirstError first;
  EXPECT_TRUE(first.ok());
  first.Add(absl::OkStatus());
  EXPECT_TRUE(first.ok());
  first.Add(MakeError(Reason::kFieldNotServed, "3"));
  first.Add(MakeError(Reason::kInvalidField, "1"));
  first.Add(MakeError(Reason::kInvalidField, "2"));
  first.Add(MakeError(Reason::kQueueFull, "4"));
  EXPECT_EQ(first.status().message(), "1");
  first.Add(MakeError(Reason::kMalformedRequest, "0"));
  EXPECT_EQ(first.status().message(), "0");
}

}  // namespace
}  // namespace postkeeper
