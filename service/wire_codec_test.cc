#include "service/wire_codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "postkeeper/v1/message.pb.h"
#include "service/validate.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr std::size_t kNoLimit = std::string::npos;
constexpr WallTime kAppendTime{std::chrono::milliseconds(1'700'000'000'123)};

std::string TextOf(const grpc::Slice& slice) {
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

template <typename Message>
Message Parse(const grpc::Slice& slice) {
  Message message;
  EXPECT_TRUE(message.ParseFromString(TextOf(slice)));
  EXPECT_TRUE(message.GetReflection()->GetUnknownFields(message).empty());
  return message;
}

v1::Message MessageWith(const std::string& body) {
  v1::Message message;
  message.set_body(body);
  (*message.mutable_attributes())["colour"] = "blue";
  return message;
}

std::shared_ptr<const Batch> MakeBatch(const std::vector<std::string>& messages) {
  BatchBuilder builder;
  std::vector<NewMessage> added;
  for (const std::string& bytes : messages) added.push_back({.bytes = bytes});
  builder.Add(std::move(added), "");
  ProcessId process;
  process.bytes.fill(7);
  return std::move(builder).Build({.process = process, .generation = 3, .version = 41}, kAppendTime).batch;
}

Delivery MakeDelivery(const std::shared_ptr<const Batch>& batch, std::uint32_t index) {
  Uid source;
  source.bytes.fill(9);
  return {.batch = batch, .index = index, .token = {source, 5, Position(1, 2, index), 6}, .attempt = 2};
}

// What is written by hand is, field by field, what the generated code reads.
TEST(WireCodecTest, DeliveriesCarryEveryField) {
  const v1::Message message = MessageWith("hello");
  const auto batch = MakeBatch({message.SerializeAsString(), ""});
  Delivery first = MakeDelivery(batch, 0);
  first.last_reason = "because";
  DeliveryEncoder encoder;
  EXPECT_TRUE(encoder.Add(first, kNoLimit));
  EXPECT_TRUE(encoder.Add(MakeDelivery(batch, 1), kNoLimit));
  EXPECT_EQ(encoder.count(), 2);

  const auto response = Parse<v1::ConsumeResponse>(encoder.TakeConsumeResponse(std::chrono::milliseconds(1500)));
  ASSERT_EQ(response.frame_case(), v1::ConsumeResponse::kDeliveries);
  EXPECT_EQ(response.deliveries().lease_duration().seconds(), 1);
  EXPECT_EQ(response.deliveries().lease_duration().nanos(), 500'000'000);
  ASSERT_EQ(response.deliveries().deliveries_size(), 2);
  const v1::Delivery& delivery = response.deliveries().deliveries(0);
  EXPECT_EQ(delivery.message_id(), batch->MessageId(0));
  EXPECT_EQ(DecodeLeaseToken(delivery.lease_token()), first.token);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(delivery.message(), message));
  EXPECT_EQ(delivery.attempt(), 2);
  EXPECT_EQ(delivery.enqueue_time().seconds(), 1'700'000'000);
  EXPECT_EQ(delivery.enqueue_time().nanos(), 123'000'000);
  EXPECT_EQ(delivery.last_reason(), "because");
  // An empty message is a message.
  EXPECT_TRUE(response.deliveries().deliveries(1).has_message());
  EXPECT_EQ(response.deliveries().deliveries(1).message_id(), batch->MessageId(1));
}

// The bytes are those that protobuf's own code would write.
TEST(WireCodecTest, DeliveriesAreWrittenAsProtobufWritesThem) {
  const auto batch = MakeBatch({MessageWith(std::string(300, 'x')).SerializeAsString()});
  DeliveryEncoder encoder;
  encoder.Add(MakeDelivery(batch, 0), kNoLimit);
  const std::string written = TextOf(encoder.TakeConsumeResponse(std::chrono::seconds(30)));
  v1::ConsumeResponse response;
  ASSERT_TRUE(response.ParseFromString(written));
  EXPECT_EQ(response.ByteSizeLong(), written.size());
}

// An encoder is empty after its answer was taken, and large answers survive being adopted without a copy.
TEST(WireCodecTest, EncoderCanBeUsedAgain) {
  const auto batch = MakeBatch({MessageWith(std::string(100'000, 'x')).SerializeAsString()});
  DeliveryEncoder encoder;
  for (int i = 0; i < 3; ++i) {
    encoder.Add(MakeDelivery(batch, 0), kNoLimit);
    const auto response = Parse<v1::ConsumeResponse>(encoder.TakeConsumeResponse(std::chrono::seconds(30)));
    ASSERT_EQ(response.deliveries().deliveries_size(), 1);
    EXPECT_EQ(response.deliveries().deliveries(0).message().body(), std::string(100'000, 'x'));
    EXPECT_TRUE(encoder.empty());
  }
}

// No answer exceeds the limit, except for one message that is larger by itself.
TEST(WireCodecTest, DeliveriesKeepToTheLimit) {
  const auto batch = MakeBatch(std::vector<std::string>(20, MessageWith(std::string(500, 'x')).SerializeAsString()));
  constexpr std::size_t kLimit = 4000;
  DeliveryEncoder encoder;
  int fitting = 0;
  while (fitting < 20 && encoder.Add(MakeDelivery(batch, static_cast<std::uint32_t>(fitting)), kLimit)) ++fitting;
  EXPECT_GT(fitting, 3);
  EXPECT_LT(fitting, 8);
  EXPECT_EQ(encoder.count(), fitting);
  EXPECT_LE(encoder.TakeConsumeResponse(std::chrono::hours(12)).size(), kLimit);
  EXPECT_TRUE(encoder.Add(MakeDelivery(batch, 0), 10));
  EXPECT_FALSE(encoder.Add(MakeDelivery(batch, 1), 10));
}

// A Dequeue's answer has its failures beside its deliveries, and no lease when there is nothing leased.
TEST(WireCodecTest, DequeueResponses) {
  DeliveryEncoder encoder;
  const std::vector<SettleFailure> failures = {{"token", SettleError::kStaleLease, "too late"}};
  auto response = Parse<v1::DequeueResponse>(encoder.TakeDequeueResponse(std::chrono::seconds(30), failures));
  EXPECT_FALSE(response.has_lease_duration());
  ASSERT_EQ(response.failures_size(), 1);
  EXPECT_EQ(response.failures(0).lease_token(), "token");
  EXPECT_EQ(response.failures(0).error(), v1::SETTLE_ERROR_STALE_LEASE);
  EXPECT_EQ(response.failures(0).detail(), "too late");

  encoder.Add(MakeDelivery(MakeBatch({MessageWith("a").SerializeAsString()}), 0), kNoLimit);
  response = Parse<v1::DequeueResponse>(encoder.TakeDequeueResponse(std::chrono::seconds(30), {}));
  EXPECT_EQ(response.lease_duration().seconds(), 30);
  ASSERT_EQ(response.deliveries_size(), 1);
  EXPECT_EQ(response.deliveries(0).message().body(), "a");
  EXPECT_EQ(response.failures_size(), 0);

  EXPECT_EQ(TextOf(encoder.TakeDequeueResponse(std::chrono::seconds(30), {})), "");
}

// The answer to an append names each message, from the right place of the batch on.
TEST(WireCodecTest, AppendedIds) {
  const auto batch = MakeBatch(std::vector<std::string>(100, ""));
  const Appended appended{.writer = batch->writer(), .first_index = 40, .count = 60};
  const auto response = Parse<v1::EnqueueResponse>(EncodeAppended(appended));
  ASSERT_EQ(response.message_ids_size(), 60);
  EXPECT_EQ(response.message_ids(0), batch->MessageId(40));
  EXPECT_EQ(response.message_ids(59), batch->MessageId(99));
  EXPECT_EQ(response.duplicates_size(), 0);
}

// Duplicates are named by their indexes, and have the ids of the messages that they are duplicates of.
TEST(WireCodecTest, AppendedDuplicates) {
  const Writer own{.process = {{1}}, .generation = 2, .version = 3};
  const Writer other{.process = {{4}}, .generation = 5, .version = 6};
  Appended appended{.writer = own, .first_index = 7, .count = 198};
  appended.duplicates =
      std::make_shared<const std::vector<Duplicate>>(std::vector<Duplicate>{{0, other, 9}, {198, own, 8}});
  const auto response = Parse<v1::EnqueueResponse>(EncodeAppended(appended));
  ASSERT_EQ(response.message_ids_size(), 200);
  const auto id = [](const Writer& writer, std::uint16_t index) {
    return EncodeMessageId({writer.process, writer.generation, writer.version, index});
  };
  EXPECT_EQ(response.message_ids(0), id(other, 9));
  EXPECT_EQ(response.message_ids(1), id(own, 7));
  EXPECT_EQ(response.message_ids(197), id(own, 203));
  EXPECT_EQ(response.message_ids(198), id(own, 8));
  EXPECT_EQ(response.message_ids(199), id(own, 204));
  EXPECT_THAT(response.duplicates(), testing::ElementsAre(0, 198));
}

// Failures and settled frames carry what the engine said.
TEST(WireCodecTest, SettledFrames) {
  const std::vector<SettleFailure> failures = {{"a", SettleError::kAlreadySettled, "gone"},
                                               {"b", SettleError::kLeaseLimit, ""}};
  const auto settled = Parse<v1::ConsumeResponse>(EncodeSettled(17, failures));
  EXPECT_EQ(settled.settled().sequence(), 17);
  ASSERT_EQ(settled.settled().failures_size(), 2);
  EXPECT_EQ(settled.settled().failures(1).error(), v1::SETTLE_ERROR_LEASE_LIMIT);
  const auto acked = Parse<v1::AckResponse>(EncodeFailures(failures));
  ASSERT_EQ(acked.failures_size(), 2);
  EXPECT_EQ(acked.failures(0).error(), v1::SETTLE_ERROR_ALREADY_SETTLED);
}

// A subscriber gets the rest of a batch with positions that it can resume behind.
TEST(WireCodecTest, TopicMessages) {
  Uid topic;
  topic.bytes.fill(1);
  const auto batch = MakeBatch({MessageWith("a").SerializeAsString(), MessageWith("b").SerializeAsString()});
  TopicMessageEncoder encoder(topic, "namespaces/default/topics/t");
  encoder.Add(*batch, Position(1, 5, 0), 1);
  EXPECT_EQ(encoder.count(), 1);
  EXPECT_LE(encoder.bytes(), encoder.BytesOf(*batch));
  const auto response = Parse<v1::SubscribeResponse>(encoder.Take(Position(1, 5, 1), Position(1, 9, 0)));
  EXPECT_EQ(response.position(), EncodePosition(topic, Position(1, 5, 1)));
  EXPECT_EQ(response.tail(), EncodePosition(topic, Position(1, 9, 0)));
  ASSERT_EQ(response.messages_size(), 1);
  EXPECT_EQ(response.messages(0).position(), response.position());
  EXPECT_EQ(response.messages(0).message().body(), "b");
  EXPECT_EQ(response.messages(0).topic(), "namespaces/default/topics/t");
  EXPECT_EQ(response.messages(0).message_id(), batch->MessageId(1));
  EXPECT_EQ(response.messages(0).publish_time().nanos(), 123'000'000);

  const auto heartbeat = Parse<v1::SubscribeResponse>(encoder.Take(Position(1, 5, 1), Position(1, 5, 1)));
  EXPECT_EQ(heartbeat.messages_size(), 0);
  EXPECT_EQ(heartbeat.position(), heartbeat.tail());
}

// A request may come in pieces; bytes that are no request are refused by name.
TEST(WireCodecTest, DecodesRequests) {
  v1::AckRequest request;
  request.set_source("orders");
  request.add_lease_tokens(std::string(50, 't'));
  const std::string bytes = request.SerializeAsString();
  const std::vector<grpc::Slice> pieces = {grpc::Slice(bytes.substr(0, 3)), grpc::Slice(bytes.substr(3, 30)),
                                           grpc::Slice(bytes.substr(33))};
  v1::AckRequest read;
  ASSERT_TRUE(DecodeRequest(grpc::ByteBuffer(pieces.data(), pieces.size()), "AckRequest", read).ok());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(read, request));

  for (const std::string& garbage :
       {std::string("\xff\xff\xff"), std::string("\x0a\x05orde"), std::string("\x0a\x02\xc3\x28")}) {
    const grpc::Slice slice(garbage);
    const absl::Status status = DecodeRequest(grpc::ByteBuffer(&slice, 1), "AckRequest", read);
    EXPECT_TRUE(HasReason(status, Reason::kMalformedRequest)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("AckRequest"));
  }
}

}  // namespace
}  // namespace postkeeper
