#include "service/consume_outbox.h"

#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "postkeeper/v1/message.pb.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart{std::chrono::hours(1)};
constexpr Duration kLease = seconds(30);

std::vector<Delivery> Deliveries(int count, std::size_t body_bytes = 10) {
  BatchBuilder builder;
  v1::Message message;
  message.set_body(std::string(body_bytes, 'x'));
  std::vector<NewMessage> messages(static_cast<std::size_t>(count), NewMessage{.bytes = message.SerializeAsString()});
  builder.Add(std::move(messages), "");
  const std::shared_ptr<const Batch> batch = std::move(builder).Build({}, WallTime(seconds(1))).batch;
  std::vector<Delivery> deliveries;
  for (int i = 0; i < count; ++i) {
    deliveries.push_back({.batch = batch, .index = static_cast<std::uint32_t>(i), .attempt = 1});
  }
  return deliveries;
}

v1::Deliveries Take(ConsumeOutbox& outbox, Instant now) {
  EXPECT_TRUE(outbox.HasFrame(now));
  const grpc::Slice slice = outbox.TakeFrame(now);
  v1::ConsumeResponse response;
  EXPECT_TRUE(response.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
  return response.deliveries();
}

// What comes while nothing is sent shares a frame, with its lease.
TEST(ConsumeOutboxTest, SharesAFrame) {
  ConsumeOutbox outbox(1 << 20, /*keeps_leases=*/false);
  outbox.Add(Deliveries(3), kLease, kStart);
  outbox.Add(Deliveries(4), kLease, kStart + milliseconds(10));
  const v1::Deliveries frame = Take(outbox, kStart + milliseconds(20));
  EXPECT_EQ(frame.deliveries_size(), 7);
  EXPECT_EQ(frame.lease_duration().seconds(), 30);
  EXPECT_EQ(frame.lease_duration().nanos(), 0);
  EXPECT_FALSE(outbox.HasFrame(kStart));
}

// Deliveries of different leases never share a frame, since a frame states one.
TEST(ConsumeOutboxTest, OneLeasePerFrame) {
  ConsumeOutbox outbox(1 << 20, /*keeps_leases=*/false);
  outbox.Add(Deliveries(1), kLease, kStart);
  outbox.Add(Deliveries(1), kLease * 2, kStart);
  EXPECT_EQ(Take(outbox, kStart).lease_duration().seconds(), 30);
  EXPECT_EQ(Take(outbox, kStart).lease_duration().seconds(), 60);
}

// Every frame keeps to the limit, and none of the messages is left out.
TEST(ConsumeOutboxTest, SplitsAtTheLimit) {
  ConsumeOutbox outbox(100'000, /*keeps_leases=*/false);
  outbox.Add(Deliveries(10, 30'000), kLease, kStart);
  int messages = 0;
  int frames = 0;
  while (outbox.HasFrame(kStart)) {
    const v1::Deliveries frame = Take(outbox, kStart);
    EXPECT_LE(frame.ByteSizeLong(), 100'000u);
    messages += frame.deliveries_size();
    ++frames;
  }
  EXPECT_EQ(messages, 10);
  EXPECT_EQ(frames, 4);
}

// A client that reads late is told what is left of the lease, and is not sent what has lapsed.
TEST(ConsumeOutboxTest, WaitingCostsLease) {
  ConsumeOutbox outbox(1 << 20, /*keeps_leases=*/false);
  outbox.Add(Deliveries(1), kLease, kStart);
  outbox.Add(Deliveries(2), kLease, kStart + seconds(20));
  EXPECT_EQ(Take(outbox, kStart + seconds(10)).lease_duration().seconds(), 20);
  EXPECT_TRUE(outbox.HasFrame(kStart + seconds(49)));
  EXPECT_FALSE(outbox.HasFrame(kStart + seconds(50)));
  EXPECT_TRUE(outbox.empty());
}

// However long a client reads nothing, no more is kept than what is leased at the time.
TEST(ConsumeOutboxTest, AStalledClientCostsNoMemory) {
  ConsumeOutbox outbox(1 << 20, /*keeps_leases=*/false);
  for (int round = 0; round < 100; ++round) outbox.Add(Deliveries(10), kLease, kStart + round * kLease);
  const Instant end = kStart + 99 * kLease;
  EXPECT_EQ(Take(outbox, end).deliveries_size(), 10);
  EXPECT_FALSE(outbox.HasFrame(end));
}

// Leases that the server extends do not lapse in the outbox.
TEST(ConsumeOutboxTest, KeptLeasesStay) {
  ConsumeOutbox outbox(1 << 20, /*keeps_leases=*/true);
  outbox.Add(Deliveries(1), kLease, kStart);
  EXPECT_EQ(Take(outbox, kStart + 10 * kLease).lease_duration().seconds(), 30);
}

}  // namespace
}  // namespace postkeeper
