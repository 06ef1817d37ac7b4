#include "zkstore/errors.h"

#include <array>
#include <utility>

#include "absl/strings/cord.h"
#include "postkeeper/wire/v1/error.pb.h"

namespace postkeeper {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/postkeeper.wire.v1.ErrorDetails";

constexpr Duration kNever = Duration::min();

struct Row {
  Reason reason;
  std::string_view name;
  absl::StatusCode code;
  Duration retry_delay = kNever;
};

using std::chrono::milliseconds;
using std::chrono::seconds;

// The one table. Codes are chosen by what the caller should do next.
constexpr std::array kRows = {
    Row{Reason::kMalformedRequest, "MALFORMED_REQUEST", absl::StatusCode::kInvalidArgument},
    Row{Reason::kInvalidName, "INVALID_NAME", absl::StatusCode::kInvalidArgument},
    Row{Reason::kInvalidField, "INVALID_FIELD", absl::StatusCode::kInvalidArgument},
    Row{Reason::kMessageTooLarge, "MESSAGE_TOO_LARGE", absl::StatusCode::kInvalidArgument},
    Row{Reason::kRequestTooLarge, "REQUEST_TOO_LARGE", absl::StatusCode::kInvalidArgument},
    Row{Reason::kMalformedPosition, "MALFORMED_POSITION", absl::StatusCode::kInvalidArgument},
    Row{Reason::kInvalidFilter, "INVALID_FILTER", absl::StatusCode::kInvalidArgument},
    Row{Reason::kFieldNotServed, "FIELD_NOT_SERVED", absl::StatusCode::kUnimplemented},
    Row{Reason::kMethodNotServed, "METHOD_NOT_SERVED", absl::StatusCode::kUnimplemented},
    Row{Reason::kQueueNotFound, "QUEUE_NOT_FOUND", absl::StatusCode::kNotFound},
    Row{Reason::kTopicNotFound, "TOPIC_NOT_FOUND", absl::StatusCode::kNotFound},
    Row{Reason::kSubscriptionNotFound, "SUBSCRIPTION_NOT_FOUND", absl::StatusCode::kNotFound},
    Row{Reason::kOtherSettings, "OTHER_SETTINGS", absl::StatusCode::kAlreadyExists},
    Row{Reason::kPositionOfDeletedTopic, "POSITION_OF_DELETED_TOPIC", absl::StatusCode::kFailedPrecondition},
    Row{Reason::kStoreFormatNewer, "STORE_FORMAT_NEWER", absl::StatusCode::kFailedPrecondition},
    Row{Reason::kPaused, "PAUSED", absl::StatusCode::kFailedPrecondition},
    Row{Reason::kPositionTrimmed, "POSITION_TRIMMED", absl::StatusCode::kOutOfRange},
    Row{Reason::kQueueFull, "QUEUE_FULL", absl::StatusCode::kResourceExhausted, seconds(1)},
    Row{Reason::kStoreFull, "STORE_FULL", absl::StatusCode::kResourceExhausted, seconds(5)},
    Row{Reason::kTooManyCalls, "TOO_MANY_CALLS", absl::StatusCode::kResourceExhausted, milliseconds(200)},
    Row{Reason::kTooManyStreams, "TOO_MANY_STREAMS", absl::StatusCode::kResourceExhausted, seconds(1)},
    Row{Reason::kZookeeperUnavailable, "ZOOKEEPER_UNAVAILABLE", absl::StatusCode::kUnavailable, seconds(1)},
    Row{Reason::kNoOwner, "NO_OWNER", absl::StatusCode::kUnavailable, milliseconds(500)},
    // Short: the repeat goes to another replica.
    Row{Reason::kReplicaDraining, "REPLICA_DRAINING", absl::StatusCode::kUnavailable, milliseconds(100)},
    Row{Reason::kOutcomeUnknown, "OUTCOME_UNKNOWN", absl::StatusCode::kAborted},
    Row{Reason::kEtagMismatch, "ETAG_MISMATCH", absl::StatusCode::kAborted},
    Row{Reason::kStoreCorrupt, "STORE_CORRUPT", absl::StatusCode::kDataLoss},
    Row{Reason::kBug, "BUG", absl::StatusCode::kInternal},
    Row{Reason::kCallCancelled, "CALL_CANCELLED", absl::StatusCode::kCancelled},
};

constexpr bool RowsAreInOrder() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].reason) != i) return false;
  }
  return kRows.size() == static_cast<std::size_t>(Reason::kCallCancelled) + 1;
}
static_assert(RowsAreInOrder());

const Row& RowOf(Reason reason) { return kRows[static_cast<std::size_t>(reason)]; }

void SetPayload(Reason reason, const ErrorDetails& details, absl::Status& status) {
  wire::v1::ErrorDetails payload;
  payload.set_reason(std::string(ReasonName(reason)));
  // Bytes from outside may stand in here, and a text of protobuf must be UTF-8.
  constexpr std::size_t kTextBytesMax = 1024;
  payload.set_resource(Printable(details.resource, kTextBytesMax));
  payload.set_field(Printable(details.field, kTextBytesMax));
  if (details.limit) payload.set_limit(*details.limit);
  if (details.actual) payload.set_actual(*details.actual);
  payload.set_oldest_position(Printable(details.oldest_position, kTextBytesMax));
  payload.set_path(Printable(details.path, kTextBytesMax));
  payload.set_log_id(Printable(details.log_id, kTextBytesMax));
  payload.set_replica(Printable(details.replica, kTextBytesMax));
  if (details.retry_after) {
    constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
    payload.mutable_retry_after()->set_seconds(details.retry_after->count() / kNanosPerSecond);
    payload.mutable_retry_after()->set_nanos(static_cast<std::int32_t>(details.retry_after->count() % kNanosPerSecond));
  }
  status.SetPayload(kPayloadUrl, absl::Cord(payload.SerializeAsString()));
}

bool ReadPayload(const absl::Status& status, wire::v1::ErrorDetails& payload) {
  if (status.ok()) return false;
  const absl::optional<absl::Cord> bytes = status.GetPayload(kPayloadUrl);
  return bytes.has_value() && payload.ParseFromString(std::string(*bytes));
}

}  // namespace

absl::Status MakeError(Reason reason, std::string_view text, const ErrorDetails& details) {
  absl::Status status(CodeOf(reason), AbslView(text));
  SetPayload(reason, details, status);
  return status;
}

std::optional<Reason> ReasonOf(const absl::Status& status) {
  wire::v1::ErrorDetails payload;
  if (!ReadPayload(status, payload)) return std::nullopt;
  return ReasonFromName(payload.reason());
}

bool HasReason(const absl::Status& status, Reason reason) { return ReasonOf(status) == reason; }

ErrorDetails DetailsOf(const absl::Status& status) {
  wire::v1::ErrorDetails payload;
  ErrorDetails details;
  if (!ReadPayload(status, payload)) return details;
  details.resource = payload.resource();
  details.field = payload.field();
  if (payload.has_limit()) details.limit = payload.limit();
  if (payload.has_actual()) details.actual = payload.actual();
  details.oldest_position = payload.oldest_position();
  details.path = payload.path();
  details.log_id = payload.log_id();
  details.replica = payload.replica();
  if (payload.has_retry_after()) {
    details.retry_after = seconds(payload.retry_after().seconds()) + Duration(payload.retry_after().nanos());
  } else if (const std::optional<Reason> reason = ReasonFromName(payload.reason())) {
    details.retry_after = DefaultRetryDelayOf(*reason);
  }
  return details;
}

absl::Status WithDetails(const absl::Status& status, const ErrorDetails& details) {
  const std::optional<Reason> reason = ReasonOf(status);
  if (!reason) return status;
  absl::Status changed = status;
  SetPayload(*reason, details, changed);
  return changed;
}

std::string_view ReasonName(Reason reason) { return RowOf(reason).name; }

std::optional<Reason> ReasonFromName(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.reason;
  }
  return std::nullopt;
}

absl::StatusCode CodeOf(Reason reason) { return RowOf(reason).code; }

std::optional<Duration> DefaultRetryDelayOf(Reason reason) {
  const Duration delay = RowOf(reason).retry_delay;
  if (delay == kNever) return std::nullopt;
  return delay;
}

std::span<const Reason> AllReasons() {
  static constexpr auto kAll = [] {
    std::array<Reason, kRows.size()> all{};
    for (std::size_t i = 0; i < kRows.size(); ++i) all[i] = kRows[i].reason;
    return all;
  }();
  return kAll;
}

void FirstError::Add(absl::Status status) {
  if (status.ok()) return;
  const Reason reason = ReasonOf(status).value_or(Reason::kBug);
  if (!status_.ok() && reason >= reason_) return;
  status_ = std::move(status);
  reason_ = reason;
}

}  // namespace postkeeper
