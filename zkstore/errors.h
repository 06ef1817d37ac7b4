// What can go wrong, in words that never change: the reasons of the API, as they travel through the code.
#ifndef POSTKEEPER_ZKSTORE_ERRORS_H_
#define POSTKEEPER_ZKSTORE_ERRORS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "zkstore/environment.h"
#include "zkstore/text.h"

namespace postkeeper {

// In order of precedence: if several apply, the first one is answered. The names (QUEUE_NOT_FOUND ...) are public and
// for ever; the numbers are not, and may change. To add one: put it in its place here and in kRows (errors.cc), and
// into the list of errors in protos/postkeeper/v1/message.proto.
enum class Reason {
  // INVALID_ARGUMENT
  kMalformedRequest,
  kInvalidName,
  kInvalidField,
  kMessageTooLarge,
  kRequestTooLarge,
  kMalformedPosition,
  kInvalidFilter,
  // UNIMPLEMENTED
  kFieldNotServed,
  kMethodNotServed,
  // NOT_FOUND
  kQueueNotFound,
  kTopicNotFound,
  kSubscriptionNotFound,
  // ALREADY_EXISTS
  kOtherSettings,
  // FAILED_PRECONDITION
  kPositionOfDeletedTopic,
  kStoreFormatNewer,
  kPaused,
  // OUT_OF_RANGE
  kPositionTrimmed,
  // RESOURCE_EXHAUSTED
  kQueueFull,
  kStoreFull,
  kTooManyCalls,
  kTooManyStreams,
  // UNAVAILABLE
  kZookeeperUnavailable,
  kNoOwner,
  kReplicaDraining,
  // ABORTED here; the edge says UNAVAILABLE when the call is safe to repeat
  kOutcomeUnknown,
  // ABORTED
  kEtagMismatch,
  // DATA_LOSS, INTERNAL
  kStoreCorrupt,
  kBug,
  // CANCELLED: the caller has gone; nobody reads it. Not part of the API's list.
  kCallCancelled,
};

// What a program may want to know besides the reason. Each is left out where it does not apply.
struct ErrorDetails {
  std::string resource;  // full name of the queue, topic or subscription
  std::string field;     // path of the request's field: messages[3].body
  std::optional<std::int64_t> limit;
  std::optional<std::int64_t> actual;
  std::string oldest_position;          // as text
  std::string path;                     // of what is damaged in the store
  std::string log_id;                   // of the log line that says more
  std::string replica;                  // which one says it
  std::optional<Duration> retry_after;  // unset = the reason's default, if it is worth repeating at all

  friend bool operator==(const ErrorDetails&, const ErrorDetails&) = default;
};

// An error of the service: an absl::Status with the code of the reason, a text for people (what, which, and what to do
// next), and reason and details as a payload. The payload's encoding is postkeeper.wire.v1.ErrorDetails; it also goes
// from replica to replica.
//
// All functions here are pure and thread-safe.
absl::Status MakeError(Reason reason, std::string_view text, const ErrorDetails& details = {});

// nullopt: OK, or a status that is not from MakeError.
std::optional<Reason> ReasonOf(const absl::Status& status);
bool HasReason(const absl::Status& status, Reason reason);
// Empty where ReasonOf is nullopt. retry_after is set if the reason has a default.
ErrorDetails DetailsOf(const absl::Status& status);
// The same error with other details, e.g. with the resource that a lower layer did not know. Other statuses are
// returned unchanged.
absl::Status WithDetails(const absl::Status& status, const ErrorDetails& details);

// "QUEUE_NOT_FOUND"
std::string_view ReasonName(Reason reason);
std::optional<Reason> ReasonFromName(std::string_view name);
absl::StatusCode CodeOf(Reason reason);
// How long a caller should wait before it repeats; nullopt: repeating as it stands does not help.
std::optional<Duration> DefaultRetryDelayOf(Reason reason);
// All of them, in order of precedence.
std::span<const Reason> AllReasons();

// Keeps the error that is to be answered when several apply: the first one of the highest precedence. Not thread-safe.
class FirstError {
 public:
  void Add(absl::Status status);
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
  Reason reason_ = Reason::kCallCancelled;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_ERRORS_H_
