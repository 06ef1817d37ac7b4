// The bytes of requests, and Enqueue, Publish and their streams.
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "postkeeper/wire/v1/wire.pb.h"
#include "service/field_checks.h"
#include "service/unserved.h"
#include "service/validate.h"

namespace postkeeper {
namespace {

std::string Of(std::string_view path, std::string_view field) { return Cat(path, ".", field); }

void CheckAttributes(const v1::Message& message, std::string_view path, FieldChecks& checks) {
  const auto& attributes = message.attributes();
  if (attributes.size() > kAttributesMax) {
    checks.Invalid(Of(path, "attributes"),
                   Cat("has ", attributes.size(), " entries; at most ", kAttributesMax, " are allowed"),
                   {.limit = kAttributesMax, .actual = static_cast<std::int64_t>(attributes.size())});
    return;
  }
  for (const auto& [key, value] : attributes) {
    const std::string field = Cat(Of(path, "attributes"), "[", Quoted(key), "]");
    if (key.empty() || key.size() > kAttributeKeyBytesMax) {
      checks.Invalid(
          field, Cat("has a key of ", key.size(), " bytes; 1 to ", kAttributeKeyBytesMax, " are allowed"),
          {.limit = static_cast<std::int64_t>(kAttributeKeyBytesMax), .actual = static_cast<std::int64_t>(key.size())});
    }
    if (std::string_view(key).starts_with(kReservedAttributePrefix)) {
      checks.Invalid(field, Cat("begins with ", kReservedAttributePrefix, ", which is reserved. Choose another key"));
    }
    checks.Text(field, value, kAttributeValueBytesMax);
  }
}

WallTime CheckDue(const v1::Message& message, std::string_view path, WallTime now, FieldChecks& checks) {
  if (message.has_delay()) {
    checks.Add(RefuseUnknownFields(message.delay(), Of(path, "delay")));
    const Duration delay = checks.Between(Of(path, "delay"), message.delay(), Duration::zero(), kDelayMax);
    // Rounded up: never before the time that was asked for.
    return delay == Duration::zero() ? NewMessage::kNotDelayed
                                     : now + std::chrono::ceil<std::chrono::milliseconds>(delay);
  }
  if (!message.has_deliver_at()) return NewMessage::kNotDelayed;
  const std::string field = Of(path, "deliver_at");
  checks.Add(RefuseUnknownFields(message.deliver_at(), field));
  const std::optional<WallTime> time = FromProto(message.deliver_at());
  if (!time) {
    checks.Invalid(field, Cat("is not a valid time (seconds ", message.deliver_at().seconds(), ", nanos ",
                              message.deliver_at().nanos(),
                              "): it must be within the years 1 to 9999, nanos within "
                              "0 to 999999999"));
    return NewMessage::kNotDelayed;
  }
  if (*time > now + std::chrono::ceil<std::chrono::milliseconds>(kDelayMax)) {
    checks.Invalid(field, Cat("is more than ", Readable(kDelayMax), " ahead of the server's clock"));
    return NewMessage::kNotDelayed;
  }
  return *time <= now ? NewMessage::kNotDelayed : *time;
}

// What is declared but not served has its bounds all the same: INVALID_FIELD comes before FIELD_NOT_SERVED.
void CheckUnservedFields(const v1::Message& message, std::string_view path, FieldChecks& checks) {
  const bool has_any = !message.ordering_key().empty() || message.priority() != 0 || message.has_time_to_live();
  if (!has_any) return;
  checks.Text(Of(path, "ordering_key"), message.ordering_key(), kOrderingKeyBytesMax);
  checks.Between(Of(path, "priority"), message.priority(), 0, kPriorityMax);
  if (message.has_time_to_live()) {
    checks.Between(Of(path, "time_to_live"), message.time_to_live(), Duration(1), Duration::max());
  }
  checks.Add(RefuseUnserved(message, path));
}

// `scratch` is only for its memory, which is used again from message to message.
WallTime CheckOneMessage(std::string_view bytes, std::string_view path, WallTime now, const RequestLimits& limits,
                         v1::Message& scratch, FieldChecks& checks) {
  const std::int64_t size = static_cast<std::int64_t>(bytes.size());
  if (size > limits.message_bytes_max) {
    checks.Add(MakeError(Reason::kMessageTooLarge,
                         Cat(path, " has ", size, " bytes; a message has at most ", limits.message_bytes_max,
                             ". Put the content elsewhere and send a link to it"),
                         {.field = std::string(path), .limit = limits.message_bytes_max, .actual = size}));
    return NewMessage::kNotDelayed;
  }
  if (!scratch.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    checks.Add(MakeError(Reason::kMalformedRequest,
                         Cat(path, " is not a postkeeper.v1.Message, or a text in it is not UTF-8"),
                         {.field = std::string(path)}));
    return NewMessage::kNotDelayed;
  }
  if (scratch.attributes_size() > 0) CheckAttributes(scratch, path, checks);
  if (scratch.content_type().size() > kContentTypeBytesMax) {
    checks.Text(Of(path, "content_type"), scratch.content_type(), kContentTypeBytesMax);
  }
  if (scratch.dedup_id().size() > kDedupIdBytesMax) {
    checks.Text(Of(path, "dedup_id"), scratch.dedup_id(), kDedupIdBytesMax);
  }
  CheckUnservedFields(scratch, path, checks);
  checks.Add(RefuseUnknownFields(scratch, path));
  return CheckDue(scratch, path, now, checks);
}

std::optional<Name> CheckLogName(const std::string& text, const AppendContext& context, FieldChecks& checks) {
  const bool is_queue = context.log_kind == Name::Kind::kQueue;
  const std::string_view field = is_queue ? "queue" : "topic";
  if (context.stream_log != nullptr && text.empty()) return std::nullopt;
  absl::StatusOr<Name> name = is_queue ? ParseQueueName(text, field) : ParseTopicName(text, field);
  if (name.ok() && context.stream_log != nullptr && *name != *context.stream_log) {
    checks.Invalid(field, Cat("is ", Quoted(text), ", but the first frame of this stream named ",
                              context.stream_log->Full(), ". Leave it empty, or open another stream"));
    return std::nullopt;
  }
  return checks.Take(std::move(name));
}

// Of all messages together.
void CheckTotal(int messages, std::int64_t bytes, const RequestLimits& limits, FieldChecks& checks) {
  if (messages == 0) {
    checks.Invalid("messages", Cat("is empty; 1 to ", limits.request_messages_max, " messages are allowed"));
  }
  if (messages > limits.request_messages_max) {
    checks.Add(MakeError(Reason::kRequestTooLarge,
                         Cat("messages has ", messages, " entries; at most ", limits.request_messages_max,
                             " are allowed. Split the request"),
                         {.field = "messages", .limit = limits.request_messages_max, .actual = messages}));
  }
  if (bytes > limits.request_bytes_max) {
    checks.Add(MakeError(Reason::kRequestTooLarge,
                         Cat("messages have ", bytes, " bytes together; at most ", limits.request_bytes_max,
                             " are allowed. Split the request"),
                         {.field = "messages", .limit = limits.request_bytes_max, .actual = bytes}));
  }
}

}  // namespace

absl::Status ParseRequest(google::protobuf::io::ZeroCopyInputStream& bytes, std::string_view type,
                          google::protobuf::Message& request) {
  if (request.ParseFromZeroCopyStream(&bytes)) return absl::OkStatus();
  return MakeError(Reason::kMalformedRequest,
                   Cat("the bytes are not a postkeeper.v1.", type, ", or a text in it is not UTF-8"));
}

absl::Status ParseRequest(std::string_view bytes, std::string_view type, google::protobuf::Message& request) {
  // gRPC refuses far smaller requests.
  constexpr std::size_t kBytesMax = static_cast<std::size_t>(std::numeric_limits<int>::max());
  google::protobuf::io::ArrayInputStream stream(bytes.data(), static_cast<int>(std::min(bytes.size(), kBytesMax)));
  return ParseRequest(stream, type, request);
}

absl::StatusOr<CheckedAppend> CheckAppend(wire::v1::AppendRequest&& request, const AppendContext& context) {
  FieldChecks checks;
  CheckedAppend append;
  append.log = CheckLogName(request.log(), context, checks);
  checks.Text("request_id", request.request_id(), kRequestIdBytesMax);
  checks.Add(RefuseUnknownFields(request));
  append.request_id = std::move(*request.mutable_request_id());

  for (const std::string& message : request.messages()) append.message_bytes += std::ssize(message);
  CheckTotal(request.messages_size(), append.message_bytes, context.limits, checks);

  const int looked_at = std::min(request.messages_size(), context.limits.request_messages_max);
  append.messages.reserve(static_cast<std::size_t>(looked_at));
  v1::Message scratch;
  std::string path;
  for (int i = 0; i < looked_at; ++i) {
    std::string& bytes = *request.mutable_messages(i);
    path = absl::StrCat("messages[", i, "]");
    const WallTime due = CheckOneMessage(bytes, path, context.now, context.limits, scratch, checks);
    NewMessage& message = append.messages.emplace_back();
    message.bytes = std::move(bytes);
    message.due = due;
    if (!scratch.dedup_id().empty()) {
      message.dedup_id = HashOfDedupId(scratch.dedup_id());
      ++append.dedup_ids;
    }
  }
  if (!checks.ok()) return checks.status();
  return append;
}

absl::StatusOr<WallTime> CheckMessage(std::string_view bytes, std::string_view path, WallTime now,
                                      const RequestLimits& limits) {
  FieldChecks checks;
  v1::Message scratch;
  const WallTime due = CheckOneMessage(bytes, path, now, limits, scratch, checks);
  if (!checks.ok()) return checks.status();
  return due;
}

}  // namespace postkeeper
