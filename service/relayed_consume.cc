#include "service/relayed_consume.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <string>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "postkeeper/wire/v1/relay.pb.h"
#include "service/grpc_status.h"
#include "service/wire_codec.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr std::uint32_t Tag(int field) { return static_cast<std::uint32_t>(field) << 3 | 2; }
constexpr std::uint32_t kDeliveriesTag = Tag(v1::ConsumeResponse::kDeliveriesFieldNumber);
constexpr std::uint32_t kDeliveryTag = Tag(v1::Deliveries::kDeliveriesFieldNumber);
constexpr std::uint32_t kLeaseTag = Tag(v1::Deliveries::kLeaseDurationFieldNumber);
constexpr std::uint32_t kTokenTag = Tag(v1::Delivery::kLeaseTokenFieldNumber);
constexpr std::uint32_t kMessageTag = Tag(v1::Delivery::kMessageFieldNumber);

void SetDuration(Duration from, google::protobuf::Duration& to) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  to.set_seconds(from.count() / kNanosPerSecond);
  to.set_nanos(static_cast<std::int32_t>(from.count() % kNanosPerSecond));
}

Duration ToDuration(const google::protobuf::Duration& from) {
  return std::chrono::seconds(from.seconds()) + std::chrono::nanoseconds(from.nanos());
}

// Passes over a field. False: it cannot be read.
bool Skip(CodedInputStream& in, std::uint32_t tag) {
  std::uint64_t number = 0;
  std::uint32_t length = 0;
  switch (tag & 7) {
    case 0:
      return in.ReadVarint64(&number);
    case 1:
      return in.Skip(8);
    case 2:
      return in.ReadVarint32(&length) && in.Skip(static_cast<int>(length));
    case 5:
      return in.Skip(4);
    default:
      return false;
  }
}

bool ScanDelivery(CodedInputStream& in, LegDeliveries& found) {
  std::uint32_t length = 0;
  if (!in.ReadVarint32(&length)) return false;
  const CodedInputStream::Limit limit = in.PushLimit(static_cast<int>(length));
  std::string text;
  HeldLease lease;
  while (const std::uint32_t tag = in.ReadTag()) {
    if (tag == kTokenTag) {
      if (!in.ReadVarint32(&length) || !in.ReadString(&text, static_cast<int>(length))) return false;
    } else if (tag == kMessageTag) {
      if (!in.ReadVarint32(&length) || !in.Skip(static_cast<int>(length))) return false;
      lease.bytes = length;
    } else if (!Skip(in, tag)) {
      return false;
    }
  }
  if (!in.ConsumedEntireMessage()) return false;
  in.PopLimit(limit);
  if (const std::optional<LeaseToken> token = DecodeLeaseToken(text)) {
    lease.token = *token;
    found.leases.push_back(lease);
  }
  return true;
}

bool ScanLease(CodedInputStream& in, LegDeliveries& found) {
  std::uint32_t length = 0;
  std::string text;
  google::protobuf::Duration lease;
  if (!in.ReadVarint32(&length) || !in.ReadString(&text, static_cast<int>(length))) return false;
  if (!lease.ParseFromString(text)) return false;
  found.lease = std::clamp<Duration>(ToDuration(lease), Duration::zero(), kLeaseMax);
  return true;
}

absl::Status Malformed() {
  return MakeError(Reason::kMalformedRequest, "the owner sent deliveries that cannot be read");
}

}  // namespace

// ---- To the owner

grpc::Slice EncodeOpening(const LegOpening& opening) {
  const CheckedOpen& from = opening.open;
  v1::ConsumeRequest request;
  v1::Open& open = *request.mutable_open();
  open.set_source(from.source.Full());
  open.mutable_credit()->set_messages(static_cast<std::int32_t>(from.credit.messages));
  open.mutable_credit()->set_bytes(from.credit.bytes);
  open.set_manual_credit(from.is_credit_manual);
  if (from.lease) SetDuration(*from.lease, *open.mutable_lease_duration());
  open.set_keep_leases(from.keeps_leases);
  SetDuration(from.heartbeat_interval, *open.mutable_heartbeat_interval());
  open.set_consumer(from.consumer);
  request.set_drain(opening.is_stopped);
  wire::v1::RelayedConsumeRequest beside;
  for (const HeldLease& lease : opening.held) {
    wire::v1::HeldLease& held = *beside.add_held_leases();
    held.set_lease_token(EncodeLeaseToken(lease.token));
    held.set_message_bytes(lease.bytes);
    held.set_remaining_ms(std::chrono::floor<std::chrono::milliseconds>(lease.remaining).count());
  }
  std::string bytes;
  request.AppendToString(&bytes);
  beside.AppendToString(&bytes);
  return grpc::Slice(bytes);
}

absl::StatusOr<std::vector<HeldLease>> TakeHeldLeases(v1::ConsumeRequest& request) {
  constexpr int kField = wire::v1::RelayedConsumeRequest::kHeldLeasesFieldNumber;
  std::vector<HeldLease> held;
  google::protobuf::UnknownFieldSet& unknown = *v1::ConsumeRequest::GetReflection()->MutableUnknownFields(&request);
  for (int i = 0; i < unknown.field_count(); ++i) {
    const google::protobuf::UnknownField& field = unknown.field(i);
    if (field.number() != kField) continue;
    wire::v1::HeldLease from;
    const bool is_message = field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED;
    const bool is_whole = is_message && from.ParseFromString(field.length_delimited());
    const std::optional<LeaseToken> token = DecodeLeaseToken(from.lease_token());
    const std::chrono::milliseconds remaining(from.remaining_ms());
    const bool is_sane = is_whole && token && held.size() < kHeldLeasesMax && from.message_bytes() >= 0 &&
                         from.message_bytes() <= kCreditBytesMax && from.remaining_ms() >= 0 &&
                         remaining <= std::chrono::ceil<std::chrono::milliseconds>(kLeaseMax);
    if (!is_sane) {
      return MakeError(Reason::kInvalidField, "the leases that another replica announces cannot be read",
                       {.field = "held_leases"});
    }
    held.push_back({*token, from.message_bytes(), remaining});
  }
  unknown.DeleteByNumber(kField);
  return held;
}

grpc::Slice EncodeOrders(std::int64_t sequence, const SettleOrders& orders) {
  v1::ConsumeRequest request;
  request.set_sequence(sequence);
  request.mutable_ack_tokens()->Assign(orders.ack_tokens.begin(), orders.ack_tokens.end());
  for (const CheckedNacks& from : orders.nacks) {
    v1::Nacks& nacks = *request.add_nacks();
    nacks.mutable_lease_tokens()->Assign(from.lease_tokens.begin(), from.lease_tokens.end());
    nacks.set_kind(from.kind == NackKind::kRelease ? v1::NACK_KIND_RELEASE : v1::NACK_KIND_RETRY);
    nacks.set_reason(from.reason);
    if (from.delay) SetDuration(*from.delay, *nacks.mutable_delay());
  }
  for (const CheckedExtensions& from : orders.extensions) {
    v1::Extensions& extensions = *request.add_extensions();
    extensions.mutable_lease_tokens()->Assign(from.lease_tokens.begin(), from.lease_tokens.end());
    if (from.lease) SetDuration(*from.lease, *extensions.mutable_lease_duration());
  }
  return EncodeMessage(request);
}

// ---- From the owner

bool IsDeliveries(const grpc::Slice& frame) { return frame.size() > 0 && *frame.begin() == kDeliveriesTag; }

absl::StatusOr<LegDeliveries> ScanDeliveries(grpc::Slice frame) {
  CodedInputStream in(frame.begin(), static_cast<int>(frame.size()));
  LegDeliveries found;
  EncodedDeliveries encoded;
  std::uint32_t length = 0;
  if (in.ReadTag() != kDeliveriesTag || !in.ReadVarint32(&length)) return Malformed();
  encoded.body_begin = static_cast<std::size_t>(in.CurrentPosition());
  // One field, and nothing behind it.
  if (encoded.body_begin + length != frame.size()) return Malformed();
  encoded.lease_begin = encoded.lease_end = frame.size();
  while (in.CurrentPosition() < static_cast<int>(frame.size())) {
    const int begin = in.CurrentPosition();
    const std::uint32_t tag = in.ReadTag();
    if (tag == kDeliveryTag) {
      if (!ScanDelivery(in, found)) return Malformed();
    } else if (tag == kLeaseTag) {
      if (!ScanLease(in, found)) return Malformed();
      encoded.lease_begin = static_cast<std::size_t>(begin);
      encoded.lease_end = static_cast<std::size_t>(in.CurrentPosition());
    } else if (tag == 0 || !Skip(in, tag)) {
      return Malformed();
    }
  }
  for (HeldLease& lease : found.leases) lease.remaining = found.lease;
  encoded.bytes = std::move(frame);
  found.encoded = std::make_shared<const EncodedDeliveries>(std::move(encoded));
  return found;
}

grpc::Slice EncodedDeliveries::WithLease(Duration lease) const {
  const auto* const all = reinterpret_cast<const char*>(bytes.begin());
  std::string body(all + body_begin, lease_begin - body_begin);
  body.append(all + lease_end, bytes.size() - lease_end);
  v1::Deliveries end;
  SetDuration(lease, *end.mutable_lease_duration());
  end.AppendToString(&body);
  std::string head(1, static_cast<char>(kDeliveriesTag));
  for (std::size_t length = body.size();; length >>= 7) {
    if (length < 0x80) {
      head.push_back(static_cast<char>(length));
      break;
    }
    head.push_back(static_cast<char>(length | 0x80));
  }
  return grpc::Slice(head + body);
}

absl::Status FromPeer(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  std::optional<Reason> reason;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : details.details()) {
      if (detail.UnpackTo(&info) && info.domain() == kErrorDomain) reason = ReasonFromName(info.reason());
    }
  }
  if (!reason || *reason == Reason::kCallCancelled) {
    return MakeError(Reason::kNoOwner,
                     Cat("the connection to the replica that works for it broke: ", status.error_message()));
  }
  const auto& metadata = info.metadata();
  ErrorDetails said;
  if (const auto found = metadata.find("resource"); found != metadata.end()) said.resource = found->second;
  if (const auto found = metadata.find("replica"); found != metadata.end()) said.replica = found->second;
  return MakeError(*reason, status.error_message(), said);
}

}  // namespace postkeeper
