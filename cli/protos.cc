#include "cli/protos.h"

#include <absl/strings/ascii.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <map>

namespace postkeeper::cli {
namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
// What fits into a Duration; a stranger's clock may say anything.
constexpr std::int64_t kSecondsMax = 9'000'000'000;

}  // namespace

google::protobuf::Duration ToProto(Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(duration.count() / kNanosPerSecond);
  proto.set_nanos(static_cast<std::int32_t>(duration.count() % kNanosPerSecond));
  return proto;
}

Duration FromProto(const google::protobuf::Duration& duration) {
  return std::chrono::seconds(std::clamp<std::int64_t>(duration.seconds(), -kSecondsMax, kSecondsMax)) +
         Duration(duration.nanos());
}

google::protobuf::Timestamp ToProto(WallTime time) {
  google::protobuf::Timestamp proto;
  proto.set_seconds(time.time_since_epoch().count() / kNanosPerSecond);
  proto.set_nanos(static_cast<std::int32_t>(time.time_since_epoch().count() % kNanosPerSecond));
  return proto;
}

WallTime FromProto(const google::protobuf::Timestamp& time) {
  return WallTime(std::chrono::seconds(std::clamp<std::int64_t>(time.seconds(), -kSecondsMax, kSecondsMax)) +
                  Duration(time.nanos()));
}

void AddMessage(JsonObject& object, const v1::Message& message) {
  object.AddBody(message.body());
  if (!message.attributes().empty()) {
    // In order of name: a protobuf map has none.
    const std::map<std::string, std::string> sorted(message.attributes().begin(), message.attributes().end());
    JsonObject attributes;
    for (const auto& [name, value] : sorted) attributes.Add(name, value);
    object.Add("attributes", attributes);
  }
  if (!message.content_type().empty()) object.Add("content_type", message.content_type());
  if (!message.ordering_key().empty()) object.Add("ordering_key", message.ordering_key());
  if (message.priority() != 0) object.Add("priority", std::int64_t{message.priority()});
  if (message.has_delay()) object.Add("delay", FormatDuration(FromProto(message.delay())));
  if (message.has_deliver_at()) object.Add("deliver_at", FormatTime(FromProto(message.deliver_at())));
  if (message.has_time_to_live()) object.Add("time_to_live", FormatDuration(FromProto(message.time_to_live())));
  if (!message.dedup_id().empty()) object.Add("dedup_id", message.dedup_id());
}

JsonObject DeliveryJson(const v1::Delivery& delivery) {
  JsonObject object;
  object.Add("message_id", delivery.message_id());
  if (!delivery.lease_token().empty()) object.Add("lease_token", delivery.lease_token());
  object.Add("attempt", std::int64_t{delivery.attempt()});
  object.Add("enqueue_time", FormatTime(FromProto(delivery.enqueue_time())));
  if (!delivery.last_reason().empty()) object.Add("last_reason", delivery.last_reason());
  AddMessage(object, delivery.message());
  return object;
}

JsonObject TopicMessageJson(const v1::TopicMessage& message) {
  JsonObject object;
  object.Add("message_id", message.message_id());
  object.Add("position", message.position());
  object.Add("topic", message.topic());
  object.Add("publish_time", FormatTime(FromProto(message.publish_time())));
  AddMessage(object, message.message());
  return object;
}

std::string SettleErrorName(v1::SettleError error) {
  if (!v1::SettleError_IsValid(error)) return Cat("error_", static_cast<int>(error));
  return absl::AsciiStrToLower(absl::StripPrefix(v1::SettleError_Name(error), "SETTLE_ERROR_"));
}

std::string SettleErrorText(const v1::SettleFailure& failure) {
  switch (failure.error()) {
    case v1::SETTLE_ERROR_ALREADY_SETTLED:
      return "it was settled before";
    case v1::SETTLE_ERROR_STALE_LEASE:
      return "its lease lapsed and another consumer was given the message";
    case v1::SETTLE_ERROR_MALFORMED_TOKEN:
      return "the token is damaged, or of another queue";
    case v1::SETTLE_ERROR_LEASE_LIMIT:
      return "a lease cannot be held for more than 12 hours";
    default:
      return failure.detail().empty() ? SettleErrorName(failure.error()) : failure.detail();
  }
}

}  // namespace postkeeper::cli
