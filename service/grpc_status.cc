#include "service/grpc_status.h"

#include <grpcpp/support/status.h>

#include <optional>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

// The texts that can stand in the details, each cut. Full names, paths and positions are shorter than their maximum.
// What comes of it stays below kErrorDetailsBytesMax; and with the text once more beside it (three characters for each
// byte that is not ASCII) and the details in base64, below the 8 KiB that gRPC allows for all trailers of a call. A
// test with the largest of everything shows it.
constexpr std::size_t kTextBytesMax = 768;
constexpr std::size_t kViolationBytesMax = 256;
constexpr std::size_t kNameBytesMax = 256;
constexpr std::size_t kFieldBytesMax = 128;
constexpr std::size_t kIdBytesMax = 64;

// OUTCOME_UNKNOWN of a call that is safe to repeat. It may take a moment until the store answers again.
constexpr Duration kOutcomeUnknownRetryDelay = std::chrono::milliseconds(500);

constexpr grpc::StatusCode GrpcCode(absl::StatusCode code) { return static_cast<grpc::StatusCode>(code); }
static_assert(GrpcCode(absl::StatusCode::kCancelled) == grpc::StatusCode::CANCELLED);
static_assert(GrpcCode(absl::StatusCode::kInvalidArgument) == grpc::StatusCode::INVALID_ARGUMENT);
static_assert(GrpcCode(absl::StatusCode::kNotFound) == grpc::StatusCode::NOT_FOUND);
static_assert(GrpcCode(absl::StatusCode::kAlreadyExists) == grpc::StatusCode::ALREADY_EXISTS);
static_assert(GrpcCode(absl::StatusCode::kResourceExhausted) == grpc::StatusCode::RESOURCE_EXHAUSTED);
static_assert(GrpcCode(absl::StatusCode::kFailedPrecondition) == grpc::StatusCode::FAILED_PRECONDITION);
static_assert(GrpcCode(absl::StatusCode::kAborted) == grpc::StatusCode::ABORTED);
static_assert(GrpcCode(absl::StatusCode::kOutOfRange) == grpc::StatusCode::OUT_OF_RANGE);
static_assert(GrpcCode(absl::StatusCode::kUnimplemented) == grpc::StatusCode::UNIMPLEMENTED);
static_assert(GrpcCode(absl::StatusCode::kInternal) == grpc::StatusCode::INTERNAL);
static_assert(GrpcCode(absl::StatusCode::kUnavailable) == grpc::StatusCode::UNAVAILABLE);
static_assert(GrpcCode(absl::StatusCode::kDataLoss) == grpc::StatusCode::DATA_LOSS);

struct Answer {
  Reason reason = Reason::kBug;
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string text;
  ErrorDetails details;
  std::optional<Duration> retry_after;
};

Answer AnswerTo(const absl::Status& error, const CallFacts& facts) {
  Answer answer;
  const std::optional<Reason> reason = ReasonOf(error);
  if (!reason && absl::IsCancelled(error)) {
    answer.reason = Reason::kCallCancelled;
    answer.text = "the call was cancelled";
  } else if (!reason) {
    answer.text = Cat("a bug in postkeeper; please report it with this text: ", error.ToString());
  } else {
    answer.reason = *reason;
    answer.text = std::string(StdView(error.message()));
    answer.details = DetailsOf(error);
  }
  answer.text = Printable(answer.text, kTextBytesMax);
  answer.code = CodeOf(answer.reason);
  answer.retry_after = answer.details.retry_after;
  if (answer.reason == Reason::kOutcomeUnknown) {
    if (facts.is_safe_to_repeat) {
      answer.code = absl::StatusCode::kUnavailable;
      if (!answer.retry_after) answer.retry_after = kOutcomeUnknownRetryDelay;
    } else {
      answer.retry_after.reset();
    }
  }
  if (answer.details.replica.empty()) answer.details.replica = std::string(facts.replica);
  return answer;
}

google::rpc::ErrorInfo InfoOf(const Answer& answer) {
  google::rpc::ErrorInfo info;
  info.set_domain(std::string(kErrorDomain));
  info.set_reason(std::string(ReasonName(answer.reason)));
  auto& metadata = *info.mutable_metadata();
  const auto add = [&](const char* key, std::string_view value, std::size_t bytes_max) {
    if (!value.empty()) metadata[key] = Printable(value, bytes_max);
  };
  const ErrorDetails& details = answer.details;
  add("resource", details.resource, kNameBytesMax);
  add("field", details.field, kFieldBytesMax);
  if (details.limit) add("limit", Cat(*details.limit), kIdBytesMax);
  if (details.actual) add("actual", Cat(*details.actual), kIdBytesMax);
  add("oldest_position", details.oldest_position, kIdBytesMax);
  add("path", details.path, kNameBytesMax);
  add("log_id", details.log_id, kIdBytesMax);
  add("replica", details.replica, kIdBytesMax);
  return info;
}

google::rpc::RetryInfo RetryInfoOf(Duration delay) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(delay.count() / kNanosPerSecond);
  info.mutable_retry_delay()->set_nanos(static_cast<std::int32_t>(delay.count() % kNanosPerSecond));
  return info;
}

google::rpc::BadRequest BadRequestOf(const Answer& answer) {
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field(Printable(answer.details.field, kFieldBytesMax));
  violation->set_description(Printable(answer.text, kViolationBytesMax));
  return bad_request;
}

std::string Details(const Answer& answer) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(answer.code));
  status.set_message(answer.text);
  status.add_details()->PackFrom(InfoOf(answer));
  if (answer.retry_after) status.add_details()->PackFrom(RetryInfoOf(*answer.retry_after));
  const bool is_field_to_blame = answer.code == absl::StatusCode::kInvalidArgument && !answer.details.field.empty();
  if (is_field_to_blame) status.add_details()->PackFrom(BadRequestOf(answer));
  return status.SerializeAsString();
}

}  // namespace

std::string ToGrpcStatus(const absl::Status& error, const CallFacts& facts, grpc::Status* status) {
  if (error.ok()) {
    *status = grpc::Status::OK;
    return "";
  }
  const Answer answer = AnswerTo(error, facts);
  *status = grpc::Status(GrpcCode(answer.code), answer.text, Details(answer));
  if (answer.code != absl::StatusCode::kUnavailable || !answer.retry_after) return "";
  return Cat(std::chrono::ceil<std::chrono::milliseconds>(*answer.retry_after).count());
}

grpc::Status ToGrpcStatus(const absl::Status& error, const CallFacts& facts) {
  grpc::Status status;
  ToGrpcStatus(error, facts, &status);
  return status;
}

}  // namespace postkeeper
