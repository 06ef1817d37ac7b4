#include "service/wire_codec.h"

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/validate.h"

namespace postkeeper {
namespace {

// Field numbers of postkeeper.v1. wire_codec_test.cc reads what is written here with the generated code.
constexpr int kResponseDeliveries = 1;  // DequeueResponse and Deliveries
constexpr int kResponseLease = 2;
constexpr int kResponseFailures = 3;
constexpr int kConsumeDeliveries = 2;  // ConsumeResponse
constexpr int kDeliveryMessageId = 1;
constexpr int kDeliveryLeaseToken = 2;
constexpr int kDeliveryMessage = 3;
constexpr int kDeliveryAttempt = 4;
constexpr int kDeliveryEnqueueTime = 5;
constexpr int kDeliveryLastReason = 6;
constexpr int kSubscribeMessages = 1;
constexpr int kSubscribePosition = 2;
constexpr int kSubscribeTail = 3;
constexpr int kTopicMessagePosition = 1;
constexpr int kTopicMessageMessage = 2;
constexpr int kTopicMessagePublishTime = 3;
constexpr int kTopicMessageTopic = 4;
constexpr int kTopicMessageMessageId = 5;

// Tag and length of the field around a body: 1 + 5 bytes.
constexpr std::size_t kHeadBytesMax = 6;
// A copy is cheaper than an allocation of its own below this.
constexpr std::size_t kAdoptedBytesMin = 2048;

void PutVarint(std::uint64_t value, std::string& out) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

std::size_t VarintBytes(std::uint64_t value) {
  std::size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

enum WireType { kVarint = 0, kLengthDelimited = 2 };

// All field numbers here are below 16: their tags take one byte.
void PutTag(int field, WireType type, std::string& out) { out.push_back(static_cast<char>(field << 3 | type)); }

void PutLength(int field, std::size_t length, std::string& out) {
  PutTag(field, kLengthDelimited, out);
  PutVarint(length, out);
}

void PutText(int field, std::string_view text, std::string& out) {
  if (text.empty()) return;
  PutLength(field, text.size(), out);
  out.append(text);
}

std::size_t TextBytes(std::string_view text) { return text.empty() ? 0 : 1 + VarintBytes(text.size()) + text.size(); }

void PutNumber(int field, std::int64_t number, std::string& out) {
  if (number == 0) return;
  PutTag(field, kVarint, out);
  PutVarint(static_cast<std::uint64_t>(number), out);
}

std::size_t NumberBytes(std::int64_t number) {
  return number == 0 ? 0 : 1 + VarintBytes(static_cast<std::uint64_t>(number));
}

// google.protobuf.Timestamp and Duration are alike. Of times after 1970, and of durations that are not negative.
struct SecondsAndNanos {
  std::int64_t seconds;
  std::int64_t nanos;

  static SecondsAndNanos Of(Duration duration) {
    constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
    return {duration.count() / kNanosPerSecond, duration.count() % kNanosPerSecond};
  }
  static SecondsAndNanos Of(WallTime time) {
    const std::int64_t ms = time.time_since_epoch().count();
    return {ms / 1000, ms % 1000 * 1'000'000};
  }
  std::size_t Bytes() const { return NumberBytes(seconds) + NumberBytes(nanos); }
  // With tag and length.
  std::size_t FieldBytes() const { return 2 + Bytes(); }
  void Put(int field, std::string& out) const {
    PutLength(field, Bytes(), out);
    PutNumber(1, seconds, out);
    PutNumber(2, nanos, out);
  }
};

grpc::Slice ToSlice(std::string bytes, std::size_t offset = 0) {
  const std::size_t size = bytes.size() - offset;
  if (size < kAdoptedBytesMin) return grpc::Slice(bytes.data() + offset, size);
  auto* const owned = new std::string(std::move(bytes));
  return grpc::Slice(
      owned->data() + offset, size, [](void* text) { delete static_cast<std::string*>(text); }, owned);
}

template <typename Failures>
void FillFailures(const std::vector<SettleFailure>& from, Failures& to) {
  to.Reserve(static_cast<int>(from.size()));
  for (const SettleFailure& failure : from) {
    v1::SettleFailure* added = to.Add();
    added->set_lease_token(failure.lease_token);
    added->set_error(static_cast<v1::SettleError>(failure.error));
    added->set_detail(failure.detail);
  }
}

}  // namespace

absl::Status DecodeRequest(const grpc::ByteBuffer& bytes, std::string_view type, google::protobuf::Message& request) {
  // Reading does not change the buffer; its reader just does not say so.
  grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&bytes));
  return ParseRequest(reader, type, request);
}

grpc::Slice EncodeMessage(const google::protobuf::MessageLite& message) {
  const std::size_t size = message.ByteSizeLong();
  grpc_slice slice = grpc_slice_malloc(size);
  message.SerializeWithCachedSizesToArray(GRPC_SLICE_START_PTR(slice));
  return grpc::Slice(slice, grpc::Slice::STEAL_REF);
}

grpc::Slice EncodeAppended(const Appended& appended) {
  constexpr int kMessageIds = 1;
  constexpr int kDuplicates = 2;
  std::string out;
  for (std::uint32_t i = 0; i < appended.size(); ++i) {
    const std::string id = appended.MessageId(i);
    if (i == 0) out.reserve(appended.size() * TextBytes(id));  // all ids are of the same length
    PutText(kMessageIds, id, out);
  }
  if (appended.duplicates) {
    std::size_t size = 0;
    for (const Duplicate& duplicate : *appended.duplicates) size += VarintBytes(duplicate.index);
    PutLength(kDuplicates, size, out);
    for (const Duplicate& duplicate : *appended.duplicates) PutVarint(duplicate.index, out);
  }
  return ToSlice(std::move(out));
}

grpc::Slice EncodeFailures(const std::vector<SettleFailure>& failures) {
  v1::AckResponse response;
  FillFailures(failures, *response.mutable_failures());
  return EncodeMessage(response);
}

grpc::Slice EncodeSettled(std::int64_t sequence, const std::vector<SettleFailure>& failures) {
  v1::ConsumeResponse response;
  response.mutable_settled()->set_sequence(sequence);
  FillFailures(failures, *response.mutable_settled()->mutable_failures());
  return EncodeMessage(response);
}

bool DeliveryEncoder::Add(const Delivery& delivery, std::size_t bytes_max) {
  const std::string id = delivery.message_id();
  const std::string token = EncodeLeaseToken(delivery.token);
  const std::string_view message = delivery.message();
  const SecondsAndNanos time = SecondsAndNanos::Of(delivery.enqueue_time());
  // An empty message is still there: its field is written with length 0.
  const std::size_t size = TextBytes(id) + TextBytes(token) + 1 + VarintBytes(message.size()) + message.size() +
                           NumberBytes(delivery.attempt) + time.FieldBytes() + TextBytes(delivery.last_reason);
  const std::size_t field_size = 1 + VarintBytes(size) + size;
  if (count_ > 0 && body_.size() + field_size + kOverheadBytes > bytes_max) return false;
  if (body_.empty()) body_.resize(kHeadBytesMax);
  PutLength(kResponseDeliveries, size, body_);
  PutText(kDeliveryMessageId, id, body_);
  PutText(kDeliveryLeaseToken, token, body_);
  PutLength(kDeliveryMessage, message.size(), body_);
  body_.append(message);
  PutNumber(kDeliveryAttempt, delivery.attempt, body_);
  time.Put(kDeliveryEnqueueTime, body_);
  PutText(kDeliveryLastReason, delivery.last_reason, body_);
  ++count_;
  return true;
}

std::string DeliveryEncoder::TakeBody() {
  if (body_.empty()) body_.resize(kHeadBytesMax);
  count_ = 0;
  return std::exchange(body_, {});
}

grpc::Slice DeliveryEncoder::TakeConsumeResponse(Duration lease) {
  std::string out = TakeBody();
  SecondsAndNanos::Of(lease).Put(kResponseLease, out);
  std::string head;
  PutLength(kConsumeDeliveries, out.size() - kHeadBytesMax, head);
  const std::size_t offset = kHeadBytesMax - head.size();
  out.replace(offset, head.size(), head);
  return ToSlice(std::move(out), offset);
}

grpc::Slice DeliveryEncoder::TakeDequeueResponse(Duration lease, const std::vector<SettleFailure>& failures) {
  const bool has_deliveries = count_ > 0;
  std::string out = TakeBody();
  if (has_deliveries) SecondsAndNanos::Of(lease).Put(kResponseLease, out);
  if (!failures.empty()) {
    v1::DequeueResponse rest;
    static_assert(v1::DequeueResponse::kFailuresFieldNumber == kResponseFailures);
    FillFailures(failures, *rest.mutable_failures());
    rest.AppendToString(&out);
  }
  return ToSlice(std::move(out), kHeadBytesMax);
}

TopicMessageEncoder::TopicMessageEncoder(const Uid& topic, std::string topic_name)
    : topic_(topic), topic_name_(std::move(topic_name)) {}

std::size_t TopicMessageEncoder::BytesOf(const Batch& batch) const {
  // Position, id (below kTextIdBytesMax, each with tag and length), time and the lengths around.
  const std::size_t per_message = kPositionTextBytes + kTextIdBytesMax + topic_name_.size() + 48;
  return static_cast<std::size_t>(batch.message_bytes()) + static_cast<std::size_t>(batch.size()) * per_message;
}

void TopicMessageEncoder::Add(const Batch& batch, Position at, std::uint32_t first_index) {
  const SecondsAndNanos time = SecondsAndNanos::Of(batch.append_time());
  for (std::uint32_t i = first_index; i < static_cast<std::uint32_t>(batch.size()); ++i) {
    const std::string position = EncodePosition(topic_, Position::FromValue(at.BatchStart().value() + i));
    const std::string id = batch.MessageId(static_cast<int>(i));
    const std::string_view message = batch.message(static_cast<int>(i));
    const std::size_t size = TextBytes(position) + 1 + VarintBytes(message.size()) + message.size() +
                             time.FieldBytes() + TextBytes(topic_name_) + TextBytes(id);
    PutLength(kSubscribeMessages, size, body_);
    PutText(kTopicMessagePosition, position, body_);
    PutLength(kTopicMessageMessage, message.size(), body_);
    body_.append(message);
    time.Put(kTopicMessagePublishTime, body_);
    PutText(kTopicMessageTopic, topic_name_, body_);
    PutText(kTopicMessageMessageId, id, body_);
    ++count_;
  }
}

grpc::Slice TopicMessageEncoder::Take(Position position, Position tail) {
  PutText(kSubscribePosition, EncodePosition(topic_, position), body_);
  PutText(kSubscribeTail, EncodePosition(topic_, tail), body_);
  count_ = 0;
  return ToSlice(std::exchange(body_, {}));
}

}  // namespace postkeeper
