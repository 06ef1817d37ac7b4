#include "service/grpc_status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using testing::Pair;
using testing::UnorderedElementsAre;

// What a client reads out of a status.
struct Read {
  explicit Read(const grpc::Status& status) {
    is_readable = rpc.ParseFromString(status.error_details());
    for (const google::protobuf::Any& any : rpc.details()) {
      if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&info.emplace());
      if (any.Is<google::rpc::RetryInfo>()) any.UnpackTo(&retry.emplace());
      if (any.Is<google::rpc::BadRequest>()) any.UnpackTo(&bad_request.emplace());
    }
  }
  bool is_readable = false;
  google::rpc::Status rpc;
  std::optional<google::rpc::ErrorInfo> info;
  std::optional<google::rpc::RetryInfo> retry;
  std::optional<google::rpc::BadRequest> bad_request;
};

// Every reason arrives with its code, its name, our domain and its text; a delay exactly where it has one.
TEST(GrpcStatusTest, EveryReasonArrives) {
  for (const Reason reason : AllReasons()) {
    const grpc::Status status = ToGrpcStatus(MakeError(reason, "what to do"), {.replica = "r1"});
    EXPECT_EQ(static_cast<int>(status.error_code()), static_cast<int>(CodeOf(reason))) << ReasonName(reason);
    EXPECT_EQ(status.error_message(), "what to do");
    const Read read(status);
    ASSERT_TRUE(read.is_readable && read.info) << ReasonName(reason);
    EXPECT_EQ(read.rpc.code(), static_cast<int>(status.error_code()));
    EXPECT_EQ(read.rpc.message(), "what to do");
    EXPECT_EQ(read.info->reason(), ReasonName(reason));
    EXPECT_EQ(read.info->domain(), "postkeeper");
    EXPECT_THAT(read.info->metadata(), UnorderedElementsAre(Pair("replica", "r1")));
    EXPECT_EQ(read.retry.has_value(), DefaultRetryDelayOf(reason).has_value()) << ReasonName(reason);
  }
}

// OUTCOME_UNKNOWN invites a repeat only if the call is safe to repeat.
TEST(GrpcStatusTest, OutcomeUnknownDependsOnTheCall) {
  const absl::Status error = MakeError(Reason::kOutcomeUnknown, "?");
  grpc::Status status;
  EXPECT_EQ(ToGrpcStatus(error, {.is_safe_to_repeat = true}, &status), "500");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Read(status).retry.has_value());
  EXPECT_EQ(ToGrpcStatus(error, {.is_safe_to_repeat = false}, &status), "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_FALSE(Read(status).retry.has_value());
}

// The trailer comes with UNAVAILABLE and with nothing else, in whole milliseconds, rounded up.
TEST(GrpcStatusTest, PushbackTrailer) {
  grpc::Status status;
  EXPECT_EQ(ToGrpcStatus(MakeError(Reason::kNoOwner, "", {.retry_after = Duration(1'500'001)}), {}, &status), "2");
  EXPECT_EQ(ToGrpcStatus(MakeError(Reason::kZookeeperUnavailable, ""), {}, &status), "1000");
  EXPECT_EQ(ToGrpcStatus(MakeError(Reason::kQueueFull, ""), {}, &status), "");
  EXPECT_TRUE(Read(status).retry.has_value());
  EXPECT_EQ(ToGrpcStatus(absl::OkStatus(), {}, &status), "");
  EXPECT_TRUE(status.ok());
}

// Details become metadata; a field that is to blame becomes a BadRequest.
TEST(GrpcStatusTest, DetailsBecomeMetadata) {
  const Read read(ToGrpcStatus(MakeError(
      Reason::kMessageTooLarge, "too large",
      {.resource = "namespaces/default/queues/q", .field = "messages[3]", .limit = 524288, .actual = 600000})));
  EXPECT_THAT(read.info->metadata(),
              UnorderedElementsAre(Pair("resource", "namespaces/default/queues/q"), Pair("field", "messages[3]"),
                                   Pair("limit", "524288"), Pair("actual", "600000")));
  ASSERT_TRUE(read.bad_request);
  ASSERT_EQ(read.bad_request->field_violations_size(), 1);
  EXPECT_EQ(read.bad_request->field_violations(0).field(), "messages[3]");
  EXPECT_EQ(read.bad_request->field_violations(0).description(), "too large");
  const Read trimmed(ToGrpcStatus(MakeError(Reason::kPositionTrimmed, "", {.oldest_position = "0123"})));
  EXPECT_THAT(trimmed.info->metadata(), UnorderedElementsAre(Pair("oldest_position", "0123")));
  EXPECT_FALSE(trimmed.bad_request);
}

// A status that the service did not make is a bug, and its text survives for the report; a cancelled call stays one.
TEST(GrpcStatusTest, ForeignStatuses) {
  const grpc::Status bug = ToGrpcStatus(absl::NotFoundError("no such thing"));
  EXPECT_EQ(bug.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(Read(bug).info->reason(), "BUG");
  EXPECT_THAT(bug.error_message(), testing::HasSubstr("NOT_FOUND: no such thing"));
  EXPECT_EQ(ToGrpcStatus(absl::CancelledError()).error_code(), grpc::StatusCode::CANCELLED);
}

// With everything at its largest and worst, the details stay under 4 KiB and are valid UTF-8.
TEST(GrpcStatusTest, DetailsAreBounded) {
  for (const std::string& piece : {std::string("x"), std::string("\xff"), std::string("任"), std::string("\n")}) {
    std::string huge;
    while (huge.size() < 100'000) huge += piece;
    const grpc::Status status = ToGrpcStatus(MakeError(Reason::kInvalidField, huge,
                                                       {.resource = huge,
                                                        .field = huge,
                                                        .limit = std::numeric_limits<std::int64_t>::min(),
                                                        .actual = std::numeric_limits<std::int64_t>::min(),
                                                        .oldest_position = huge,
                                                        .path = huge,
                                                        .log_id = huge,
                                                        .replica = huge,
                                                        .retry_after = std::chrono::hours(1000)}));
    EXPECT_LT(status.error_details().size(), kErrorDetailsBytesMax);
    // In base64, beside the percent-encoded text and some other trailers.
    EXPECT_LT(status.error_details().size() * 4 / 3 + status.error_message().size() * 3, 7u * 1024);
    ASSERT_TRUE(Read(status).is_readable);
    EXPECT_TRUE(Read(status).bad_request.has_value());
  }
}

}  // namespace
}  // namespace postkeeper
