#include "service/field_checks.h"

#include <google/protobuf/message.h>

#include "service/unserved.h"

namespace postkeeper {
namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

// Of the documentation of google.protobuf.Duration and Timestamp.
constexpr std::int64_t kDurationSecondsMax = 315'576'000'000;
constexpr std::int64_t kTimestampSecondsMin = -62'135'596'800;
constexpr std::int64_t kTimestampSecondsMax = 253'402'300'799;

}  // namespace

absl::Status InvalidField(std::string_view field, std::string_view rule, ErrorDetails details) {
  details.field = std::string(field);
  return MakeError(Reason::kInvalidField, Cat(field, " ", rule), details);
}

std::optional<Duration> FromProto(const google::protobuf::Duration& duration) {
  const std::int64_t seconds = duration.seconds();
  const std::int64_t nanos = duration.nanos();
  if (seconds < -kDurationSecondsMax || seconds > kDurationSecondsMax) return std::nullopt;
  if (nanos <= -kNanosPerSecond || nanos >= kNanosPerSecond) return std::nullopt;
  if ((seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0)) return std::nullopt;
  constexpr std::int64_t kSecondsMax = Duration::max().count() / kNanosPerSecond - 1;
  if (seconds > kSecondsMax) return Duration::max();
  if (seconds < -kSecondsMax) return Duration::min();
  return Duration(seconds * kNanosPerSecond + nanos);
}

std::optional<WallTime> FromProto(const google::protobuf::Timestamp& timestamp) {
  const std::int64_t seconds = timestamp.seconds();
  const std::int64_t nanos = timestamp.nanos();
  if (seconds < kTimestampSecondsMin || seconds > kTimestampSecondsMax) return std::nullopt;
  if (nanos < 0 || nanos >= kNanosPerSecond) return std::nullopt;
  constexpr std::int64_t kNanosPerMilli = 1'000'000;
  const std::int64_t millis = (nanos + kNanosPerMilli - 1) / kNanosPerMilli;
  return WallTime(std::chrono::seconds(seconds) + std::chrono::milliseconds(millis));
}

std::int64_t FieldChecks::Between(std::string_view field, std::int64_t value, std::int64_t min, std::int64_t max) {
  if (value >= min && value <= max) return value;
  Invalid(field, Cat("is ", value, "; it must be between ", min, " and ", max),
          {.limit = value < min ? min : max, .actual = value});
  return min;
}

Duration FieldChecks::Between(std::string_view field, const google::protobuf::Duration& value, Duration min,
                              Duration max) {
  const std::optional<Duration> duration = FromProto(value);
  if (!duration) {
    Invalid(field, Cat("is not a valid duration (seconds ", value.seconds(), ", nanos ", value.nanos(),
                       "): nanos must be within one second and have the sign of seconds"));
    return min;
  }
  if (*duration >= min && *duration <= max) return *duration;
  Invalid(field, Cat("is ", Readable(*duration), "; it must be between ", Readable(min), " and ", Readable(max)));
  return min;
}

void FieldChecks::Text(std::string_view field, std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return;
  Invalid(field, Cat("has ", text.size(), " bytes; at most ", bytes_max, " are allowed"),
          {.limit = static_cast<std::int64_t>(bytes_max), .actual = static_cast<std::int64_t>(text.size())});
}

std::vector<std::string> FieldChecks::Tokens(std::string_view field,
                                             google::protobuf::RepeatedPtrField<std::string>& tokens, int min,
                                             int max) {
  if (tokens.size() < min || tokens.size() > max) {
    Invalid(field, Cat("has ", tokens.size(), " tokens; between ", min, " and ", max, " are allowed"),
            {.limit = tokens.size() < min ? min : max, .actual = tokens.size()});
    return {};
  }
  std::vector<std::string> taken;
  taken.reserve(static_cast<std::size_t>(tokens.size()));
  for (std::string& token : tokens) taken.push_back(std::move(token));
  return taken;
}

void FieldChecks::Served(const google::protobuf::Message& message) { Add(RefuseUnserved(message)); }

}  // namespace postkeeper
