// Dequeue, Ack, Nack, Extend, Consume and Subscribe.
#include <algorithm>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/field_checks.h"
#include "service/validate.h"

namespace postkeeper {
namespace {

template <typename Request>
std::optional<Duration> CheckLease(const Request& request, std::string_view field, FieldChecks& checks) {
  if (!request.has_lease_duration()) return std::nullopt;
  return checks.Between(field, request.lease_duration(), kLeaseMin, kLeaseMax);
}

template <typename Request>
Duration CheckHeartbeat(const Request& request, std::string_view field, FieldChecks& checks) {
  if (!request.has_heartbeat_interval()) return kHeartbeatDefault;
  return checks.Between(field, request.heartbeat_interval(), kHeartbeatMin, kHeartbeatMax);
}

CheckedNacks CheckNacks(v1::Nacks& request, const std::string& path, FieldChecks& checks) {
  CheckedNacks nacks;
  nacks.lease_tokens = checks.Tokens(Cat(path, ".lease_tokens"), *request.mutable_lease_tokens(), 1, kSettleTokensMax);
  checks.Text(Cat(path, ".reason"), request.reason(), kReasonBytesMax);
  // REJECT and kinds of a newer API are refused by FieldChecks::Served.
  nacks.kind = request.kind() == v1::NACK_KIND_RELEASE ? NackKind::kRelease : NackKind::kRetry;
  if (request.has_delay()) {
    const std::string field = Cat(path, ".delay");
    if (request.kind() == v1::NACK_KIND_REJECT) checks.Invalid(field, "does not go with kind NACK_KIND_REJECT");
    nacks.delay = checks.Between(field, request.delay(), Duration::zero(), kDelayMax);
  }
  nacks.reason = std::move(*request.mutable_reason());
  return nacks;
}

CheckedExtensions CheckExtensions(v1::Extensions& request, const std::string& path, FieldChecks& checks) {
  CheckedExtensions extensions;
  extensions.lease_tokens =
      checks.Tokens(Cat(path, ".lease_tokens"), *request.mutable_lease_tokens(), 1, kSettleTokensMax);
  extensions.lease = CheckLease(request, Cat(path, ".lease_duration"), checks);
  return extensions;
}

CheckedCredit CheckCredit(const v1::Credit& request, const std::string& path, FieldChecks& checks) {
  CheckedCredit credit;
  credit.messages = checks.Between(Cat(path, ".messages"), request.messages(), 0, kCreditMessagesMax);
  credit.bytes = checks.Between(Cat(path, ".bytes"), request.bytes(), 0, kCreditBytesMax);
  if (credit.bytes == 0) credit.bytes = kCreditBytesDefault;
  return credit;
}

CheckedOpen CheckOpen(const v1::Open& request, FieldChecks& checks) {
  CheckedOpen open;
  open.source = checks.Take(ParseSourceName(request.source(), "open.source"));
  open.credit = request.has_credit() ? CheckCredit(request.credit(), "open.credit", checks)
                                     : CheckedCredit{kOpenCreditMessagesDefault, kCreditBytesDefault};
  open.is_credit_manual = request.manual_credit();
  open.lease = CheckLease(request, "open.lease_duration", checks);
  open.keeps_leases = request.keep_leases();
  open.heartbeat_interval = CheckHeartbeat(request, "open.heartbeat_interval", checks);
  checks.Text("open.consumer", request.consumer(), kConsumerBytesMax);
  open.consumer = request.consumer();
  return open;
}

std::int64_t CountTokens(const v1::ConsumeRequest& request) {
  std::int64_t tokens = request.ack_tokens_size();
  for (const v1::Nacks& nacks : request.nacks()) tokens += nacks.lease_tokens_size();
  for (const v1::Extensions& extensions : request.extensions()) tokens += extensions.lease_tokens_size();
  return tokens;
}

void CheckSettling(v1::ConsumeRequest& request, CheckedFrame& frame, FieldChecks& checks) {
  const std::int64_t tokens = CountTokens(request);
  if (tokens > kFrameTokensMax) {
    checks.Invalid("ack_tokens",
                   Cat("and nacks and extensions have ", tokens, " tokens together; at most ", kFrameTokensMax,
                       " are allowed in one frame"),
                   {.limit = kFrameTokensMax, .actual = tokens});
    return;
  }
  frame.ack_tokens = checks.Tokens("ack_tokens", *request.mutable_ack_tokens(), 0, kFrameTokensMax);
  for (int i = 0; i < request.nacks_size(); ++i) {
    frame.nacks.push_back(CheckNacks(*request.mutable_nacks(i), absl::StrCat("nacks[", i, "]"), checks));
    if (!checks.ok()) return;
  }
  for (int i = 0; i < request.extensions_size(); ++i) {
    frame.extensions.push_back(
        CheckExtensions(*request.mutable_extensions(i), absl::StrCat("extensions[", i, "]"), checks));
    if (!checks.ok()) return;
  }
}

void CheckSequence(std::int64_t sequence, const CheckedFrame& frame, const FrameState& state, FieldChecks& checks) {
  if (sequence == 0) {
    if (frame.Settles()) checks.Invalid("sequence", "is missing; a frame that settles needs one, from 1, rising");
    return;
  }
  if (sequence > state.last_sequence) return;
  checks.Invalid("sequence", Cat("is ", sequence, "; it must be above that of the frame before, ", state.last_sequence),
                 {.limit = state.last_sequence + 1, .actual = sequence});
}

CheckedStart CheckStart(const v1::SubscribeRequest& request, FieldChecks& checks) {
  const v1::Start& start = request.start();
  switch (start.at_case()) {
    case v1::Start::AT_NOT_SET:
      return StartLatest{};
    case v1::Start::kLatest:
      if (!start.latest()) checks.Invalid("start.latest", "is false; only true is allowed");
      return StartLatest{};
    case v1::Start::kEarliest:
      if (!start.earliest()) checks.Invalid("start.earliest", "is false; only true is allowed");
      return StartEarliest{};
    case v1::Start::kAfter: {
      const std::optional<PositionText> position = DecodePosition(start.after());
      if (position) return *position;
      checks.Add(MakeError(Reason::kMalformedPosition,
                           Cat("start.after = ", Quoted(start.after()),
                               " is not a position: those have 26 characters 0-9 and a-v. Give one back as it was "
                               "received, or start at earliest or latest"),
                           {.field = "start.after"}));
      return StartLatest{};
    }
    case v1::Start::kTime: {
      const std::optional<WallTime> time = FromProto(start.time());
      if (time) return *time;
      checks.Invalid("start.time", Cat("is not a valid time (seconds ", start.time().seconds(), ", nanos ",
                                       start.time().nanos(), ")"));
      return StartLatest{};
    }
  }
  return StartLatest{};
}

}  // namespace

absl::StatusOr<CheckedDequeue> CheckDequeue(v1::DequeueRequest&& request, const RequestLimits& limits) {
  FieldChecks checks;
  checks.Served(request);
  CheckedDequeue dequeue;
  dequeue.source = checks.Take(ParseSourceName(request.source()));
  const std::int64_t messages = checks.Between("max_messages", request.max_messages(), 0, limits.dequeue_messages_max);
  dequeue.messages_max = messages == 0 ? 1 : static_cast<int>(messages);
  dequeue.wait = request.has_wait() ? checks.Between("wait", request.wait(), Duration::zero(), kWaitMax) : kWaitDefault;
  dequeue.lease = CheckLease(request, "lease_duration", checks);
  if (request.max_bytes() < 0)
    checks.Invalid("max_bytes", Cat("is ", request.max_bytes(), "; it must not be negative"));
  // Asking for more is no error: "up to". An answer stays within what clients accept.
  dequeue.bytes_max =
      request.max_bytes() == 0 ? limits.response_bytes_max : std::min(request.max_bytes(), limits.response_bytes_max);
  dequeue.ack_tokens = checks.Tokens("ack_tokens", *request.mutable_ack_tokens(), 0, kSettleTokensMax);
  checks.Text("consumer", request.consumer(), kConsumerBytesMax);
  dequeue.consumer = std::move(*request.mutable_consumer());
  return checks.Result(std::move(dequeue));
}

absl::StatusOr<CheckedAck> CheckAck(v1::AckRequest&& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedAck ack;
  ack.source = checks.Take(ParseSourceName(request.source()));
  ack.lease_tokens = checks.Tokens("lease_tokens", *request.mutable_lease_tokens(), 1, kSettleTokensMax);
  return checks.Result(std::move(ack));
}

absl::StatusOr<CheckedNack> CheckNack(v1::NackRequest&& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedNack nack;
  nack.source = checks.Take(ParseSourceName(request.source()));
  nack.nacks = CheckNacks(*request.mutable_nacks(), "nacks", checks);
  return checks.Result(std::move(nack));
}

absl::StatusOr<CheckedExtend> CheckExtend(v1::ExtendRequest&& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedExtend extend;
  extend.source = checks.Take(ParseSourceName(request.source()));
  extend.extensions = CheckExtensions(*request.mutable_extensions(), "extensions", checks);
  return checks.Result(std::move(extend));
}

absl::StatusOr<CheckedFrame> CheckFrame(v1::ConsumeRequest&& request, FrameState& state) {
  FieldChecks checks;
  checks.Served(request);
  CheckedFrame frame;
  if (!state.is_open && !request.has_open()) {
    checks.Invalid("open", "is missing; the first frame of a Consume stream must have it");
  }
  if (state.is_open && request.has_open()) checks.Invalid("open", "is allowed only in the first frame of the stream");
  if (request.has_open()) frame.open = CheckOpen(request.open(), checks);
  frame.sequence = request.sequence();
  CheckSettling(request, frame, checks);
  CheckSequence(request.sequence(), frame, state, checks);
  if (request.has_credit()) frame.credit = CheckCredit(request.credit(), "credit", checks);
  frame.drains = request.drain();
  if (!checks.ok()) return checks.status();
  state.is_open = true;
  if (frame.sequence != 0) state.last_sequence = frame.sequence;
  return frame;
}

absl::StatusOr<CheckedCredit> AddCredit(const CheckedCredit& left, const CheckedCredit& added) {
  FieldChecks checks;
  CheckedCredit sum{left.messages + added.messages, left.bytes + added.bytes};
  if (sum.messages > kCreditMessagesMax) {
    checks.Invalid(
        "credit.messages",
        Cat("makes the credit ", sum.messages, " messages; at most ", kCreditMessagesMax, " are allowed in all"),
        {.limit = kCreditMessagesMax, .actual = sum.messages});
  }
  if (sum.bytes > kCreditBytesMax) {
    checks.Invalid("credit.bytes",
                   Cat("makes the credit ", sum.bytes, " bytes; at most ", kCreditBytesMax, " are allowed in all"),
                   {.limit = kCreditBytesMax, .actual = sum.bytes});
  }
  return checks.Result(std::move(sum));
}

absl::StatusOr<CheckedSubscribe> CheckSubscribe(v1::SubscribeRequest&& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedSubscribe subscribe;
  subscribe.topic = checks.Take(ParseTopicName(request.topic()));
  subscribe.start = CheckStart(request, checks);
  checks.Text("filter", request.filter(), kFilterBytesMax);
  subscribe.heartbeat_interval = CheckHeartbeat(request, "heartbeat_interval", checks);
  checks.Text("subscriber", request.subscriber(), kConsumerBytesMax);
  subscribe.subscriber = std::move(*request.mutable_subscriber());
  return checks.Result(std::move(subscribe));
}

}  // namespace postkeeper
