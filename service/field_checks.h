// The small change of service/validate.h: checks of single fields, and what to say when they fail.
#ifndef POSTKEEPER_SERVICE_FIELD_CHECKS_H_
#define POSTKEEPER_SERVICE_FIELD_CHECKS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/repeated_field.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "zkstore/environment.h"
#include "zkstore/errors.h"

namespace google::protobuf {
class Message;
}

namespace postkeeper {

// INVALID_FIELD: "<field> <rule>".
absl::Status InvalidField(std::string_view field, std::string_view rule, ErrorDetails details = {});

// nullopt: not a valid google.protobuf.Duration (more than 10,000 years, nanos out of range or of another sign).
// Beyond what Duration holds (292 years) it is the largest or smallest Duration.
std::optional<Duration> FromProto(const google::protobuf::Duration& duration);
// nullopt: not a valid google.protobuf.Timestamp (years 1 to 9999). Rounded up to whole milliseconds.
std::optional<WallTime> FromProto(const google::protobuf::Timestamp& timestamp);

// Collects the errors of one request; the answer is the first one of the highest precedence. The functions return the
// value of a field, and something harmless (which nobody gets to see) when it is wrong. Not thread-safe.
class FieldChecks {
 public:
  void Add(absl::Status status) { errors_.Add(std::move(status)); }
  bool ok() const { return errors_.ok(); }
  const absl::Status& status() const { return errors_.status(); }

  // The answer to the request: the error, or `value` if there is none.
  template <typename T>
  absl::StatusOr<T> Result(T&& value) const {
    if (!ok()) return status();
    return std::forward<T>(value);
  }

  // The value, with its error noted.
  template <typename T>
  T Take(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    Add(value.status());
    return T{};
  }

  void Invalid(std::string_view field, std::string_view rule, ErrorDetails details = {}) {
    Add(InvalidField(field, rule, std::move(details)));
  }

  std::int64_t Between(std::string_view field, std::int64_t value, std::int64_t min, std::int64_t max);
  Duration Between(std::string_view field, const google::protobuf::Duration& value, Duration min, Duration max);
  // A text of at most so many bytes.
  void Text(std::string_view field, std::string_view text, std::size_t bytes_max);
  // min to max tokens; moves them out.
  std::vector<std::string> Tokens(std::string_view field, google::protobuf::RepeatedPtrField<std::string>& tokens,
                                  int min, int max);
  // FIELD_NOT_SERVED of anything in the request that is not served.
  void Served(const google::protobuf::Message& message);

 private:
  FirstError errors_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_FIELD_CHECKS_H_
