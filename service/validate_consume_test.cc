#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "postkeeper/v1/message.pb.h"
#include "service/validate.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string ErrorOf(const absl::Status& status) {
  if (status.ok()) return "";
  const std::string field = DetailsOf(status).field;
  return Cat(ReasonName(ReasonOf(status).value_or(Reason::kBug)), field.empty() ? "" : " ", field);
}

v1::DequeueRequest ADequeue() {
  v1::DequeueRequest request;
  request.set_source("orders");
  return request;
}
std::string DequeueError(const std::function<void(v1::DequeueRequest&)>& change) {
  v1::DequeueRequest request = ADequeue();
  change(request);
  return ErrorOf(CheckDequeue(std::move(request)).status());
}
void Set(google::protobuf::Duration* duration, std::int64_t whole_seconds, std::int32_t nanos = 0) {
  duration->set_seconds(whole_seconds);
  duration->set_nanos(nanos);
}

// What is left out has its default: one message, 20 s, 3 MiB, the source's lease.
TEST(ValidateConsumeTest, DequeueDefaults) {
  const absl::StatusOr<CheckedDequeue> dequeue = CheckDequeue(ADequeue());
  ASSERT_TRUE(dequeue.ok()) << dequeue.status();
  EXPECT_EQ(dequeue->source.Full(), "namespaces/default/queues/orders");
  EXPECT_EQ(dequeue->messages_max, 1);
  EXPECT_EQ(dequeue->bytes_max, 3 << 20);
  EXPECT_EQ(dequeue->wait, seconds(20));
  EXPECT_EQ(dequeue->lease, std::nullopt);
}

// A wait of 0 s is a wait of 0 s, not the default; more bytes than an answer may have is no error.
TEST(ValidateConsumeTest, DequeueValues) {
  v1::DequeueRequest request = ADequeue();
  Set(request.mutable_wait(), 0);
  Set(request.mutable_lease_duration(), 0, 0);
  EXPECT_EQ(ErrorOf(CheckDequeue(v1::DequeueRequest(request)).status()), "INVALID_FIELD lease_duration");
  Set(request.mutable_lease_duration(), 43200);
  request.set_max_messages(1000);
  request.set_max_bytes(std::numeric_limits<std::int64_t>::max());
  request.add_ack_tokens("a");
  request.set_consumer("worker-1");
  const absl::StatusOr<CheckedDequeue> dequeue = CheckDequeue(std::move(request));
  ASSERT_TRUE(dequeue.ok()) << dequeue.status();
  EXPECT_EQ(dequeue->wait, Duration::zero());
  EXPECT_EQ(dequeue->lease, hours(12));
  EXPECT_EQ(dequeue->messages_max, 1000);
  EXPECT_EQ(dequeue->bytes_max, 3 << 20);
  EXPECT_THAT(dequeue->ack_tokens, testing::ElementsAre("a"));
  EXPECT_EQ(dequeue->consumer, "worker-1");
}

// Each bound of Dequeue, from outside.
TEST(ValidateConsumeTest, DequeueBounds) {
  EXPECT_EQ(DequeueError([](auto& r) { r.set_source("A"); }), "INVALID_NAME source");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_source("topics/t"); }), "INVALID_NAME source");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_max_messages(-1); }), "INVALID_FIELD max_messages");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_max_messages(1001); }), "INVALID_FIELD max_messages");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_max_bytes(-1); }), "INVALID_FIELD max_bytes");
  EXPECT_EQ(DequeueError([](auto& r) { Set(r.mutable_wait(), -1); }), "INVALID_FIELD wait");
  EXPECT_EQ(DequeueError([](auto& r) { Set(r.mutable_wait(), 60, 1); }), "INVALID_FIELD wait");
  EXPECT_EQ(DequeueError([](auto& r) { Set(r.mutable_wait(), 1, 2'000'000'000); }), "INVALID_FIELD wait");
  EXPECT_EQ(DequeueError([](auto& r) { Set(r.mutable_lease_duration(), 0, 999'999'999); }),
            "INVALID_FIELD lease_duration");
  EXPECT_EQ(DequeueError([](auto& r) { Set(r.mutable_lease_duration(), 43200, 1); }), "INVALID_FIELD lease_duration");
  EXPECT_EQ(DequeueError([](auto& r) {
              for (int i = 0; i < 1001; ++i) r.add_ack_tokens("t");
            }),
            "INVALID_FIELD ack_tokens");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_consumer(std::string(129, 'x')); }), "INVALID_FIELD consumer");
  EXPECT_EQ(DequeueError([](auto& r) { r.set_at_most_once(true); }), "FIELD_NOT_SERVED at_most_once");
}

// Ack takes 1 to 1,000 tokens; what they say is not looked at here.
TEST(ValidateConsumeTest, Ack) {
  const auto check = [](int tokens) {
    v1::AckRequest request;
    request.set_source("topics/t/subscriptions/s");
    for (int i = 0; i < tokens; ++i) request.add_lease_tokens("not a token");
    return CheckAck(std::move(request));
  };
  EXPECT_EQ(ErrorOf(check(0).status()), "INVALID_FIELD lease_tokens");
  EXPECT_EQ(check(1)->lease_tokens.size(), 1u);
  EXPECT_EQ(check(1)->source.Full(), "namespaces/default/topics/t/subscriptions/s");
  EXPECT_EQ(check(1000)->lease_tokens.size(), 1000u);
  EXPECT_EQ(ErrorOf(check(1001).status()), "INVALID_FIELD lease_tokens");
}

v1::NackRequest ANack() {
  v1::NackRequest request;
  request.set_source("orders");
  request.mutable_nacks()->add_lease_tokens("t");
  return request;
}
std::string NackError(const std::function<void(v1::Nacks&)>& change) {
  v1::NackRequest request = ANack();
  change(*request.mutable_nacks());
  return ErrorOf(CheckNack(std::move(request)).status());
}

// Nack: unspecified means RETRY; no delay is not a delay of 0.
TEST(ValidateConsumeTest, Nack) {
  EXPECT_EQ(CheckNack(ANack())->nacks.kind, NackKind::kRetry);
  EXPECT_EQ(CheckNack(ANack())->nacks.delay, std::nullopt);
  v1::NackRequest request = ANack();
  request.mutable_nacks()->set_kind(v1::NACK_KIND_RELEASE);
  request.mutable_nacks()->set_reason("worker stops");
  Set(request.mutable_nacks()->mutable_delay(), 0);
  const absl::StatusOr<CheckedNack> nack = CheckNack(std::move(request));
  EXPECT_EQ(nack->nacks.kind, NackKind::kRelease);
  EXPECT_EQ(nack->nacks.reason, "worker stops");
  EXPECT_EQ(nack->nacks.delay, Duration::zero());
}

// Each bound of Nack, from outside; REJECT is not served, and with a delay it is wrong anyway.
TEST(ValidateConsumeTest, NackBounds) {
  EXPECT_EQ(NackError([](auto& n) { n.clear_lease_tokens(); }), "INVALID_FIELD nacks.lease_tokens");
  EXPECT_EQ(NackError([](auto& n) { n.set_reason(std::string(1024, 'x')); }), "");
  EXPECT_EQ(NackError([](auto& n) { n.set_reason(std::string(1025, 'x')); }), "INVALID_FIELD nacks.reason");
  EXPECT_EQ(NackError([](auto& n) { Set(n.mutable_delay(), -1); }), "INVALID_FIELD nacks.delay");
  EXPECT_EQ(NackError([](auto& n) { Set(n.mutable_delay(), 30 * 86400, 1); }), "INVALID_FIELD nacks.delay");
  EXPECT_EQ(NackError([](auto& n) { n.set_kind(v1::NACK_KIND_REJECT); }), "FIELD_NOT_SERVED nacks.kind");
  EXPECT_EQ(NackError([](auto& n) { n.set_kind(static_cast<v1::NackKind>(9)); }), "FIELD_NOT_SERVED nacks.kind");
  EXPECT_EQ(NackError([](auto& n) {
              n.set_kind(v1::NACK_KIND_REJECT);
              Set(n.mutable_delay(), 0);
            }),
            "INVALID_FIELD nacks.delay");
  v1::NackRequest without;
  without.set_source("orders");
  EXPECT_EQ(ErrorOf(CheckNack(std::move(without)).status()), "INVALID_FIELD nacks.lease_tokens");
}

// Extend: unset means the source's lease.
TEST(ValidateConsumeTest, Extend) {
  v1::ExtendRequest request;
  request.set_source("orders");
  request.mutable_extensions()->add_lease_tokens("t");
  EXPECT_EQ(CheckExtend(v1::ExtendRequest(request))->extensions.lease, std::nullopt);
  Set(request.mutable_extensions()->mutable_lease_duration(), 1);
  EXPECT_EQ(CheckExtend(v1::ExtendRequest(request))->extensions.lease, seconds(1));
  Set(request.mutable_extensions()->mutable_lease_duration(), -1);
  EXPECT_EQ(ErrorOf(CheckExtend(std::move(request)).status()), "INVALID_FIELD extensions.lease_duration");
}

v1::ConsumeRequest AnOpen() {
  v1::ConsumeRequest request;
  request.mutable_open()->set_source("orders");
  return request;
}
std::string OpenError(const std::function<void(v1::Open&)>& change) {
  v1::ConsumeRequest request = AnOpen();
  change(*request.mutable_open());
  FrameState state;
  return ErrorOf(CheckFrame(std::move(request), state).status());
}

// The first frame opens, with 100 messages and 3 MiB of credit and a heartbeat of 10 s unless it says otherwise.
TEST(ValidateConsumeTest, OpenDefaults) {
  FrameState state;
  const absl::StatusOr<CheckedFrame> frame = CheckFrame(AnOpen(), state);
  ASSERT_TRUE(frame.ok()) << frame.status();
  ASSERT_TRUE(frame->open.has_value());
  EXPECT_EQ(frame->open->credit.messages, 100);
  EXPECT_EQ(frame->open->credit.bytes, 3 << 20);
  EXPECT_EQ(frame->open->heartbeat_interval, seconds(10));
  EXPECT_FALSE(frame->open->is_credit_manual);
  EXPECT_FALSE(frame->open->keeps_leases);
  EXPECT_EQ(frame->open->lease, std::nullopt);
  EXPECT_TRUE(state.is_open);
}

// Each bound of Open, from outside.
TEST(ValidateConsumeTest, OpenBounds) {
  EXPECT_EQ(OpenError([](auto& o) { o.clear_source(); }), "INVALID_NAME open.source");
  EXPECT_EQ(OpenError([](auto& o) { o.mutable_credit()->set_messages(10'000); }), "");
  EXPECT_EQ(OpenError([](auto& o) { o.mutable_credit()->set_messages(10'001); }), "INVALID_FIELD open.credit.messages");
  EXPECT_EQ(OpenError([](auto& o) { o.mutable_credit()->set_messages(-1); }), "INVALID_FIELD open.credit.messages");
  EXPECT_EQ(OpenError([](auto& o) { o.mutable_credit()->set_bytes((64 << 20) + 1); }),
            "INVALID_FIELD open.credit.bytes");
  EXPECT_EQ(OpenError([](auto& o) { Set(o.mutable_lease_duration(), 0); }), "INVALID_FIELD open.lease_duration");
  EXPECT_EQ(OpenError([](auto& o) { Set(o.mutable_heartbeat_interval(), 61); }),
            "INVALID_FIELD open.heartbeat_interval");
  EXPECT_EQ(OpenError([](auto& o) { Set(o.mutable_heartbeat_interval(), 0, 500'000'000); }),
            "INVALID_FIELD open.heartbeat_interval");
  EXPECT_EQ(OpenError([](auto& o) { o.set_consumer(std::string(129, 'x')); }), "INVALID_FIELD open.consumer");
}

// open comes once, and first. What breaks the rule leaves the stream's state as it was.
TEST(ValidateConsumeTest, OpenComesFirstAndOnce) {
  FrameState state;
  v1::ConsumeRequest drain;
  drain.set_drain(true);
  EXPECT_EQ(ErrorOf(CheckFrame(v1::ConsumeRequest(drain), state).status()), "INVALID_FIELD open");
  EXPECT_FALSE(state.is_open);
  ASSERT_TRUE(CheckFrame(AnOpen(), state).ok());
  EXPECT_EQ(ErrorOf(CheckFrame(AnOpen(), state).status()), "INVALID_FIELD open");
  const absl::StatusOr<CheckedFrame> frame = CheckFrame(std::move(drain), state);
  EXPECT_TRUE(frame->drains);
  EXPECT_FALSE(frame->open.has_value());
}

// Frames that settle are numbered, and the numbers rise.
TEST(ValidateConsumeTest, Sequence) {
  FrameState state;
  ASSERT_TRUE(CheckFrame(AnOpen(), state).ok());
  const auto settle = [&](std::int64_t sequence) {
    v1::ConsumeRequest request;
    request.set_sequence(sequence);
    request.add_ack_tokens("t");
    return ErrorOf(CheckFrame(std::move(request), state).status());
  };
  EXPECT_EQ(settle(0), "INVALID_FIELD sequence");
  EXPECT_EQ(settle(-1), "INVALID_FIELD sequence");
  EXPECT_EQ(settle(1), "");
  EXPECT_EQ(settle(1), "INVALID_FIELD sequence");
  EXPECT_EQ(settle(7), "");
  EXPECT_EQ(settle(6), "INVALID_FIELD sequence");
  EXPECT_EQ(settle(std::numeric_limits<std::int64_t>::max()), "");
  v1::ConsumeRequest credit_only;
  credit_only.mutable_credit()->set_messages(1);
  EXPECT_EQ(CheckFrame(std::move(credit_only), state)->credit->messages, 1);
}

// One frame settles at most 10,000 tokens, however they are spread.
TEST(ValidateConsumeTest, TokensOfOneFrame) {
  const auto check = [](int acks, int nacks) {
    v1::ConsumeRequest request = AnOpen();
    request.set_sequence(1);
    for (int i = 0; i < acks; ++i) request.add_ack_tokens("t");
    for (int i = 0; i < nacks; ++i) {
      if (i % 1000 == 0) request.add_nacks();
      request.mutable_nacks(i / 1000)->add_lease_tokens("t");
    }
    FrameState state;
    return CheckFrame(std::move(request), state);
  };
  const absl::StatusOr<CheckedFrame> full = check(8000, 2000);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->ack_tokens.size(), 8000u);
  ASSERT_EQ(full->nacks.size(), 2u);
  EXPECT_EQ(full->nacks[1].lease_tokens.size(), 1000u);
  EXPECT_EQ(ErrorOf(check(8001, 2000).status()), "INVALID_FIELD ack_tokens");
}

// The rules of Nacks and Extensions hold inside a frame, and the error says which of them.
TEST(ValidateConsumeTest, FramesNameThePartThatIsWrong) {
  FrameState state;
  v1::ConsumeRequest request = AnOpen();
  request.set_sequence(1);
  request.add_nacks()->add_lease_tokens("t");
  request.add_nacks();
  EXPECT_EQ(ErrorOf(CheckFrame(v1::ConsumeRequest(request), state).status()), "INVALID_FIELD nacks[1].lease_tokens");
  request.clear_nacks();
  auto& extensions = *request.add_extensions();
  extensions.add_lease_tokens("t");
  Set(extensions.mutable_lease_duration(), 50'000);
  EXPECT_EQ(ErrorOf(CheckFrame(std::move(request), state).status()), "INVALID_FIELD extensions[0].lease_duration");
}

// Credit adds up, and not past its bounds.
TEST(ValidateConsumeTest, CreditAddsUp) {
  EXPECT_EQ(AddCredit({9'000, 0}, {1'000, 1})->messages, 10'000);
  EXPECT_EQ(ErrorOf(AddCredit({9'000, 0}, {1'001, 1}).status()), "INVALID_FIELD credit.messages");
  EXPECT_EQ(ErrorOf(AddCredit({0, 64 << 20}, {0, 1}).status()), "INVALID_FIELD credit.bytes");
  // The last message may exceed the bytes: what is left can be below zero.
  EXPECT_EQ(AddCredit({1, -100}, {1, 300})->bytes, 200);
}

v1::SubscribeRequest ASubscribe() {
  v1::SubscribeRequest request;
  request.set_topic("prices");
  return request;
}
std::string StartError(const std::function<void(v1::Start&)>& change) {
  v1::SubscribeRequest request = ASubscribe();
  change(*request.mutable_start());
  return ErrorOf(CheckSubscribe(std::move(request)).status());
}
CheckedStart StartOf(const std::function<void(v1::Start&)>& change) {
  v1::SubscribeRequest request = ASubscribe();
  change(*request.mutable_start());
  return CheckSubscribe(std::move(request))->start;
}

// Every start point comes out as what it means; nothing given means latest.
TEST(ValidateConsumeTest, SubscribeStarts) {
  const Uid topic;
  const std::string position = EncodePosition(topic, Position(1, 2, 3));
  EXPECT_EQ(CheckSubscribe(ASubscribe())->start, CheckedStart(StartLatest{}));
  EXPECT_EQ(StartOf([](auto&) {}), CheckedStart(StartLatest{}));
  EXPECT_EQ(StartOf([](auto& s) { s.set_latest(true); }), CheckedStart(StartLatest{}));
  EXPECT_EQ(StartOf([](auto& s) { s.set_earliest(true); }), CheckedStart(StartEarliest{}));
  EXPECT_EQ(StartOf([&](auto& s) { s.set_after(position); }), CheckedStart(StartAfter{0, Position(1, 2, 3)}));
  EXPECT_EQ(StartOf([](auto& s) { s.mutable_time()->set_seconds(5); }), CheckedStart(WallTime(seconds(5))));
}

// Wrong starts, and the other bounds of Subscribe.
TEST(ValidateConsumeTest, SubscribeBounds) {
  EXPECT_EQ(StartError([](auto& s) { s.set_latest(false); }), "INVALID_FIELD start.latest");
  EXPECT_EQ(StartError([](auto& s) { s.set_earliest(false); }), "INVALID_FIELD start.earliest");
  EXPECT_EQ(StartError([](auto& s) { s.set_after(""); }), "MALFORMED_POSITION start.after");
  EXPECT_EQ(StartError([](auto& s) { s.set_after("' OR 1=1"); }), "MALFORMED_POSITION start.after");
  EXPECT_EQ(StartError([](auto& s) { s.mutable_time()->set_nanos(-1); }), "INVALID_FIELD start.time");
  const auto error = [](const std::function<void(v1::SubscribeRequest&)>& change) {
    v1::SubscribeRequest request = ASubscribe();
    change(request);
    return ErrorOf(CheckSubscribe(std::move(request)).status());
  };
  EXPECT_EQ(error([](auto& r) { r.set_topic("queues/q"); }), "INVALID_NAME topic");
  EXPECT_EQ(error([](auto& r) { r.set_filter("a = 1"); }), "FIELD_NOT_SERVED filter");
  EXPECT_EQ(error([](auto& r) { r.set_filter(std::string(1025, 'x')); }), "INVALID_FIELD filter");
  EXPECT_EQ(error([](auto& r) { Set(r.mutable_heartbeat_interval(), 61); }), "INVALID_FIELD heartbeat_interval");
  EXPECT_EQ(error([](auto& r) { r.set_subscriber(std::string(129, 'x')); }), "INVALID_FIELD subscriber");
}

}  // namespace
}  // namespace postkeeper
