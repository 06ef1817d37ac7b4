#include "cli/failure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postkeeper::cli {
namespace {

using grpc::Status;
using grpc::StatusCode;

// google.rpc.Status { details: [Any { ErrorInfo { reason, domain } }] }, as it is on the wire.
std::string Details(const std::string& reason, const std::string& domain) {
  const auto field = [](int number, const std::string& bytes) {
    return std::string() + static_cast<char>(number << 3 | 2) + static_cast<char>(bytes.size()) + bytes;
  };
  const std::string info = field(1, reason) + field(2, domain) + field(3, field(1, "limit") + field(2, "7"));
  return field(3, field(1, "type.googleapis.com/google.rpc.ErrorInfo") + field(2, info));
}

// Each gRPC code has its exit code: scripts rely on it.
TEST(CliFailureTest, MapsEveryCodeToAnExitCode) {
  EXPECT_EQ(ExitCodeOf(Status::OK), ExitCode::kDone);
  for (int code = 1; code <= 16; ++code) {
    const ExitCode expected = code == StatusCode::NOT_FOUND     ? ExitCode::kNotFound
                              : code == StatusCode::UNAVAILABLE ? ExitCode::kUnreachable
                                                                : ExitCode::kFailed;
    EXPECT_EQ(ExitCodeOf(Status(static_cast<StatusCode>(code), "")), expected) << code;
  }
}

// The reason is read from the details of our own service only; damaged details are none.
TEST(CliFailureTest, ReadsErrorInfo) {
  const Status ours(StatusCode::RESOURCE_EXHAUSTED, "", Details("QUEUE_FULL", "postkeeper"));
  EXPECT_EQ(GetErrorInfo(ours).reason, "QUEUE_FULL");
  EXPECT_EQ(GetErrorInfo(ours).metadata.at("limit"), "7");
  EXPECT_EQ(GetErrorInfo(Status(StatusCode::ABORTED, "", Details("X", "elsewhere"))).reason, "");
  const std::string whole = Details("QUEUE_FULL", "postkeeper");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(GetErrorInfo(Status(StatusCode::ABORTED, "", whole.substr(0, size))).reason, "") << size;
  }
}

// A broken connection is worth another try; the same code as the service's own word is not, except where it says so.
TEST(CliFailureTest, TellsWhatPasses) {
  for (const StatusCode code : {StatusCode::INTERNAL, StatusCode::UNKNOWN, StatusCode::CANCELLED}) {
    EXPECT_TRUE(IsTransient(Status(code, "")));
    EXPECT_FALSE(IsTransient(Status(code, "", Details("BUG", "postkeeper"))));
  }
  EXPECT_TRUE(IsTransient(Status(StatusCode::UNAVAILABLE, "", Details("REPLICA_DRAINING", "postkeeper"))));
  for (const StatusCode code : {StatusCode::NOT_FOUND, StatusCode::INVALID_ARGUMENT, StatusCode::ABORTED,
                                StatusCode::DATA_LOSS, StatusCode::FAILED_PRECONDITION, StatusCode::UNIMPLEMENTED}) {
    EXPECT_FALSE(IsTransient(Status(code, ""))) << code;
  }
}

}  // namespace
}  // namespace postkeeper::cli
