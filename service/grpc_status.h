// The one table from the service's errors to what a gRPC client sees.
#ifndef POSTKEEPER_SERVICE_GRPC_STATUS_H_
#define POSTKEEPER_SERVICE_GRPC_STATUS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace postkeeper {

// The trailer that gRPC clients obey before they repeat a call.
inline constexpr char kRetryPushbackTrailer[] = "grpc-retry-pushback-ms";

// ErrorInfo.domain.
inline constexpr std::string_view kErrorDomain = "postkeeper";

// google.rpc.Status, encoded, stays under this: all trailers of a call share 8 KiB.
inline constexpr std::size_t kErrorDetailsBytesMax = 4096;

// What the edge knows and the error does not.
struct CallFacts {
  // This replica, for ErrorInfo's metadata, unless the error names another.
  std::string_view replica;
  // The very same call may be sent again: it has a request_id, or it is safe by its nature (Ack, Get, Create ...).
  // Decides whether OUTCOME_UNKNOWN is UNAVAILABLE or ABORTED.
  bool is_safe_to_repeat = false;
};

// Fills in `status` with code, text, and google.rpc.Status as details: ErrorInfo always, RetryInfo where the reason has
// a delay, BadRequest where a field is to blame. An absl::Status that is not from MakeError becomes INTERNAL/BUG
// (CANCELLED stays CANCELLED). The texts are valid UTF-8 and cut so that the details stay under kErrorDetailsBytesMax.
//
// Returns the value for kRetryPushbackTrailer, which the caller puts into the trailing metadata; "" = none.
// Pure; thread-safe.
std::string ToGrpcStatus(const absl::Status& error, const CallFacts& facts, grpc::Status* status);
// Where trailers cannot be sent.
grpc::Status ToGrpcStatus(const absl::Status& error, const CallFacts& facts = {});

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_GRPC_STATUS_H_
