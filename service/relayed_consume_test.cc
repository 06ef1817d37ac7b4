#include "service/relayed_consume.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>

#include "postkeeper/wire/v1/relay.pb.h"
#include "service/grpc_status.h"
#include "service/wire_codec.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

HeldLease Lease(std::uint32_t index) {
  return {{.source = {}, .epoch = 3, .position = Position(1, 0, index), .number = 2}, 77, seconds(12)};
}

v1::ConsumeRequest Parse(const grpc::Slice& slice) {
  v1::ConsumeRequest request;
  EXPECT_TRUE(request.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
  return request;
}

// The first frame brings the owner what the stream is for and what is held; the public checks do not see the latter.
TEST(RelayedConsumeTest, OpeningArrives) {
  LegOpening opening;
  opening.open.source = {Name::Kind::kQueue, "default", "q", {}};
  opening.open.credit = {7, 500};
  opening.open.is_credit_manual = true;
  opening.open.keeps_leases = true;
  opening.open.lease = seconds(40);
  opening.open.heartbeat_interval = seconds(3);
  opening.open.consumer = "me";
  opening.held = {Lease(0), Lease(5)};
  opening.is_stopped = true;
  v1::ConsumeRequest request = Parse(EncodeOpening(opening));
  const absl::StatusOr<std::vector<HeldLease>> held = TakeHeldLeases(request);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_THAT(*held, ElementsAre(Lease(0), Lease(5)));
  FrameState state;
  const absl::StatusOr<CheckedFrame> frame = CheckFrame(std::move(request), state);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->open->source.id, "q");
  EXPECT_EQ(frame->open->credit.messages, 7);
  EXPECT_EQ(frame->open->credit.bytes, 500);
  EXPECT_TRUE(frame->open->is_credit_manual);
  EXPECT_TRUE(frame->open->keeps_leases);
  EXPECT_EQ(frame->open->lease, seconds(40));
  EXPECT_EQ(frame->open->heartbeat_interval, seconds(3));
  EXPECT_EQ(frame->open->consumer, "me");
  EXPECT_TRUE(frame->drains);
}

// What nobody of us would announce is refused, and nothing of it gets to an engine.
TEST(RelayedConsumeTest, RefusesWhatCannotBe) {
  const auto refuses = [](const std::string& token, std::int64_t bytes, std::int64_t ms) {
    wire::v1::RelayedConsumeRequest beside;
    wire::v1::HeldLease& lease = *beside.add_held_leases();
    lease.set_lease_token(token);
    lease.set_message_bytes(bytes);
    lease.set_remaining_ms(ms);
    v1::ConsumeRequest request;
    EXPECT_TRUE(request.ParseFromString(beside.SerializeAsString()));
    return HasReason(TakeHeldLeases(request).status(), Reason::kInvalidField);
  };
  const std::string token = EncodeLeaseToken(Lease(0).token);
  EXPECT_FALSE(refuses(token, 10, 1000));
  EXPECT_TRUE(refuses("t", 10, 1000));
  EXPECT_TRUE(refuses(token, -1, 1000));
  EXPECT_TRUE(refuses(token, kCreditBytesMax + 1, 1000));
  EXPECT_TRUE(refuses(token, 10, -1));
  EXPECT_TRUE(refuses(token, 10, std::int64_t{1} << 62));
  v1::ConsumeRequest number;
  EXPECT_TRUE(number.ParseFromString(std::string("\xc0\x3e\x05", 3)));  // field 1000 as a varint
  EXPECT_TRUE(HasReason(TakeHeldLeases(number).status(), Reason::kInvalidField));
  wire::v1::RelayedConsumeRequest many;
  for (std::size_t i = 0; i <= kHeldLeasesMax; ++i) many.add_held_leases()->set_lease_token(token);
  v1::ConsumeRequest request;
  EXPECT_TRUE(request.ParseFromString(many.SerializeAsString()));
  EXPECT_TRUE(HasReason(TakeHeldLeases(request).status(), Reason::kInvalidField));
}

// A frame that settles says the same behind the relay as before it.
TEST(RelayedConsumeTest, OrdersArrive) {
  const std::string a = EncodeLeaseToken(Lease(0).token);
  const std::string b = EncodeLeaseToken(Lease(1).token);
  SettleOrders orders;
  orders.ack_tokens = {a};
  orders.nacks.push_back({{b}, NackKind::kRelease, "not now", seconds(2)});
  orders.extensions.push_back({{a, b}, seconds(50)});
  FrameState state{.is_open = true};
  const absl::StatusOr<CheckedFrame> frame = CheckFrame(Parse(EncodeOrders(9, orders)), state);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->sequence, 9);
  EXPECT_THAT(frame->ack_tokens, ElementsAre(a));
  ASSERT_EQ(frame->nacks.size(), 1U);
  EXPECT_EQ(frame->nacks[0].kind, NackKind::kRelease);
  EXPECT_EQ(frame->nacks[0].reason, "not now");
  EXPECT_EQ(frame->nacks[0].delay, seconds(2));
  ASSERT_EQ(frame->extensions.size(), 1U);
  EXPECT_EQ(frame->extensions[0].lease, seconds(50));
}

grpc::Slice DeliveriesFrame() {
  v1::ConsumeResponse response;
  for (std::uint32_t i = 0; i < 3; ++i) {
    v1::Delivery& delivery = *response.mutable_deliveries()->add_deliveries();
    delivery.set_message_id("m");
    delivery.set_lease_token(EncodeLeaseToken(Lease(i).token));
    delivery.mutable_message()->set_body(std::string(300, 'x'));
    delivery.set_attempt(4);
    delivery.mutable_enqueue_time()->set_seconds(5);
  }
  response.mutable_deliveries()->mutable_lease_duration()->set_seconds(30);
  return EncodeMessage(response);
}

// The relay learns of an encoded frame what the next owner must be told, and passes the frame on as it came.
TEST(RelayedConsumeTest, ScansDeliveries) {
  const grpc::Slice frame = DeliveriesFrame();
  ASSERT_TRUE(IsDeliveries(frame));
  const absl::StatusOr<LegDeliveries> found = ScanDeliveries(frame);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->leases.size(), 3U);
  EXPECT_EQ(found->leases[2].token, Lease(2).token);
  EXPECT_EQ(found->leases[2].bytes, 303);  // 300 of the body, its tag and its length
  EXPECT_EQ(found->leases[2].remaining, seconds(30));
  EXPECT_EQ(found->lease, seconds(30));
  EXPECT_EQ(found->encoded->bytes.size(), frame.size());
}

// One that had to wait is sent with the lease that is left, and else unchanged.
TEST(RelayedConsumeTest, ShortensTheLease) {
  const absl::StatusOr<LegDeliveries> found = ScanDeliveries(DeliveriesFrame());
  ASSERT_TRUE(found.ok());
  const grpc::Slice later = found->encoded->WithLease(seconds(7));
  v1::ConsumeResponse response;
  ASSERT_TRUE(response.ParseFromArray(later.begin(), static_cast<int>(later.size())));
  EXPECT_EQ(response.deliveries().deliveries_size(), 3);
  EXPECT_EQ(response.deliveries().deliveries(1).message().body(), std::string(300, 'x'));
  EXPECT_EQ(response.deliveries().lease_duration().seconds(), 7);
}

// A frame that is cut off or damaged anywhere is refused or read, never read past its end.
TEST(RelayedConsumeTest, DamagedDeliveries) {
  const grpc::Slice whole = DeliveriesFrame();
  const std::string bytes(reinterpret_cast<const char*>(whole.begin()), whole.size());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ScanDeliveries(grpc::Slice(bytes.substr(0, size))).ok()) << size;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(~damaged[i]);
    const absl::StatusOr<LegDeliveries> found = ScanDeliveries(grpc::Slice(damaged));
    EXPECT_LE(found.ok() ? found->leases.size() : 0U, 3U) << i;
  }
}

// What says something of the stream keeps its reason; a broken connection is that of an owner that has gone.
TEST(RelayedConsumeTest, EndsInOurWords) {
  const absl::Status full = MakeError(Reason::kTooManyStreams, "full", {.resource = "q"});
  const absl::Status told = FromPeer(ToGrpcStatus(full));
  EXPECT_TRUE(HasReason(told, Reason::kTooManyStreams));
  EXPECT_EQ(DetailsOf(told).resource, "q");
  EXPECT_TRUE(FromPeer(grpc::Status::OK).ok());
  const grpc::Status broken(grpc::StatusCode::UNAVAILABLE, "connection reset");
  EXPECT_TRUE(HasReason(FromPeer(broken), Reason::kNoOwner));
}

}  // namespace
}  // namespace postkeeper
