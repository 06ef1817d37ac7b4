#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "postkeeper/v1/message.pb.h"
#include "postkeeper/wire/v1/wire.pb.h"
#include "service/validate.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using testing::HasSubstr;

constexpr WallTime kNow{std::chrono::milliseconds(1'700'000'000'000)};
constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

v1::EnqueueRequest ARequest(int messages = 1) {
  v1::EnqueueRequest request;
  request.set_queue("orders");
  for (int i = 0; i < messages; ++i) request.add_messages()->set_body("body");
  return request;
}

wire::v1::AppendRequest View(const google::protobuf::Message& request) {
  wire::v1::AppendRequest view;
  EXPECT_TRUE(ParseRequest(request.SerializeAsString(), "EnqueueRequest", view).ok());
  return view;
}

absl::StatusOr<CheckedAppend> Check(const google::protobuf::Message& request, AppendContext context = {}) {
  context.now = kNow;
  return CheckAppend(View(request), context);
}

// "INVALID_FIELD messages[0].body", or "" if there is no error.
std::string ErrorOf(const absl::Status& status) {
  if (status.ok()) return "";
  const std::string field = DetailsOf(status).field;
  return Cat(ReasonName(ReasonOf(status).value_or(Reason::kBug)), field.empty() ? "" : " ", field);
}
std::string ErrorOf(const v1::EnqueueRequest& request) { return ErrorOf(Check(request).status()); }

// The error of a request of one message that `change` was done to.
std::string ErrorAfter(const std::function<void(v1::Message&)>& change) {
  v1::EnqueueRequest request = ARequest();
  change(*request.mutable_messages(0));
  return ErrorOf(request);
}

// A good request comes out in the service's words: the full name, the very bytes of each message, nothing delayed.
TEST(ValidateAppendTest, AGoodRequestPasses) {
  v1::EnqueueRequest request = ARequest(2);
  request.set_request_id("id");
  (*request.mutable_messages(1)->mutable_attributes())["k"] = "v";
  request.mutable_messages(1)->set_content_type("text/plain");
  const absl::StatusOr<CheckedAppend> append = Check(request);
  ASSERT_TRUE(append.ok()) << append.status();
  EXPECT_EQ(append->log->Full(), "namespaces/default/queues/orders");
  EXPECT_EQ(append->request_id, "id");
  ASSERT_EQ(append->messages.size(), 2u);
  EXPECT_EQ(append->messages[1].bytes, request.messages(1).SerializeAsString());
  EXPECT_EQ(append->messages[1].due, NewMessage::kNotDelayed);
  EXPECT_EQ(append->message_bytes,
            static_cast<std::int64_t>(request.messages(0).ByteSizeLong() + request.messages(1).ByteSizeLong()));
}

// An empty message is a message.
TEST(ValidateAppendTest, AnEmptyMessagePasses) {
  EXPECT_EQ(ErrorAfter([](v1::Message& message) { message.clear_body(); }), "");
}

// Bytes that are no request, and text that is not UTF-8, are MALFORMED_REQUEST and name the type.
TEST(ValidateAppendTest, UnparsableBytesAreMalformed) {
  wire::v1::AppendRequest view;
  for (const std::string& bytes : {std::string("\xff\xff\xff"), std::string("\x0a\x05") + "ab",
                                   std::string("\x0a\x01\xff"), std::string("garbage from a browser")}) {
    const absl::Status status = ParseRequest(bytes, "EnqueueRequest", view);
    EXPECT_EQ(ErrorOf(status), "MALFORMED_REQUEST");
    EXPECT_THAT(std::string(StdView(status.message())), HasSubstr("postkeeper.v1.EnqueueRequest"));
  }
}

// The same inside a message: its bytes are looked at too, not just passed on.
TEST(ValidateAppendTest, UnparsableMessagesAreMalformed) {
  for (const std::string& bytes :
       {std::string("\xff\xff\xff"), std::string("\x1a\x01\xff"), std::string("\x12\x01x")}) {
    wire::v1::AppendRequest view;
    view.set_log("orders");
    view.add_messages("");
    view.add_messages(bytes);
    EXPECT_EQ(ErrorOf(CheckAppend(std::move(view), {}).status()), "MALFORMED_REQUEST messages[1]");
  }
}

// Names are parsed at the door, per kind of log.
TEST(ValidateAppendTest, Names) {
  v1::EnqueueRequest request = ARequest();
  request.set_queue("Orders");
  EXPECT_EQ(ErrorOf(request), "INVALID_NAME queue");
  request.clear_queue();
  EXPECT_EQ(ErrorOf(request), "INVALID_NAME queue");
  v1::PublishRequest publish;
  publish.set_topic("queues/orders");
  publish.add_messages();
  EXPECT_EQ(ErrorOf(Check(publish, {.log_kind = Name::Kind::kTopic}).status()), "INVALID_NAME topic");
  publish.set_topic("prices");
  EXPECT_EQ(Check(publish, {.log_kind = Name::Kind::kTopic})->log->Full(), "namespaces/default/topics/prices");
}

// In a later frame of a stream the name may be left out or repeated, in any form, but not changed.
TEST(ValidateAppendTest, LaterFramesNameTheSameLogOrNone) {
  const Name first = *ParseQueueName("orders");
  v1::EnqueueStreamRequest frame;
  frame.add_messages();
  EXPECT_EQ(Check(frame, {.stream_log = &first})->log, std::nullopt);
  frame.set_queue("namespaces/default/queues/orders");
  EXPECT_EQ(Check(frame, {.stream_log = &first})->log, first);
  frame.set_queue("others");
  EXPECT_EQ(ErrorOf(Check(frame, {.stream_log = &first}).status()), "INVALID_FIELD queue");
}

// The number of messages: none is INVALID_FIELD, 4,096 pass, more are REQUEST_TOO_LARGE with limit and actual.
TEST(ValidateAppendTest, NumberOfMessages) {
  EXPECT_EQ(ErrorOf(ARequest(0)), "INVALID_FIELD messages");
  EXPECT_EQ(ErrorOf(ARequest(4096)), "");
  const absl::Status status = Check(ARequest(4097)).status();
  EXPECT_EQ(ErrorOf(status), "REQUEST_TOO_LARGE messages");
  EXPECT_EQ(DetailsOf(status).limit, 4096);
  EXPECT_EQ(DetailsOf(status).actual, 4097);
}

// The size of one message: exactly 512 KiB passes, one byte more does not.
TEST(ValidateAppendTest, SizeOfOneMessage) {
  v1::EnqueueRequest request = ARequest();
  v1::Message& message = *request.mutable_messages(0);
  message.set_body(std::string((512 << 10) - 4, 'x'));
  ASSERT_EQ(message.ByteSizeLong(), 512u << 10);
  EXPECT_EQ(ErrorOf(request), "");
  message.mutable_body()->push_back('x');
  const absl::Status status = Check(request).status();
  EXPECT_EQ(ErrorOf(status), "MESSAGE_TOO_LARGE messages[0]");
  EXPECT_EQ(DetailsOf(status).limit, 512 << 10);
  EXPECT_EQ(DetailsOf(status).actual, (512 << 10) + 1);
}

// The size of all messages together.
TEST(ValidateAppendTest, SizeOfARequest) {
  v1::EnqueueRequest request = ARequest(2);
  request.mutable_messages(0)->set_body(std::string(300 << 10, 'x'));
  request.mutable_messages(1)->set_body(std::string(300 << 10, 'x'));
  const absl::Status status = Check(request).status();
  EXPECT_EQ(ErrorOf(status), "REQUEST_TOO_LARGE messages");
  EXPECT_EQ(DetailsOf(status).limit, 512 << 10);
}

// Attributes: how many, how long, and whose.
TEST(ValidateAppendTest, Attributes) {
  const auto with = [](const std::string& key, const std::string& value) {
    return ErrorAfter([&](v1::Message& message) { (*message.mutable_attributes())[key] = value; });
  };
  EXPECT_EQ(with(std::string(128, 'k'), std::string(1024, 'v')), "");
  EXPECT_EQ(with("postkeeper", ""), "");
  EXPECT_EQ(with("", "v"), "INVALID_FIELD messages[0].attributes[\"\"]");
  EXPECT_THAT(with(std::string(129, 'k'), "v"), HasSubstr("INVALID_FIELD messages[0].attributes[\"kkk"));
  EXPECT_EQ(with("k", std::string(1025, 'v')), "INVALID_FIELD messages[0].attributes[\"k\"]");
  EXPECT_EQ(with("postkeeper-x", "v"), "INVALID_FIELD messages[0].attributes[\"postkeeper-x\"]");
  const auto many = [](int count) {
    return ErrorAfter([&](v1::Message& message) {
      for (int i = 0; i < count; ++i) (*message.mutable_attributes())[absl::StrCat(i)] = "";
    });
  };
  EXPECT_EQ(many(64), "");
  EXPECT_EQ(many(65), "INVALID_FIELD messages[0].attributes");
}

// Content type and request id have their lengths.
TEST(ValidateAppendTest, TextLengths) {
  EXPECT_EQ(ErrorAfter([](v1::Message& message) { message.set_content_type(std::string(128, 'x')); }), "");
  EXPECT_EQ(ErrorAfter([](v1::Message& message) { message.set_content_type(std::string(129, 'x')); }),
            "INVALID_FIELD messages[0].content_type");
  v1::EnqueueRequest request = ARequest();
  request.set_request_id(std::string(64, 'x'));
  EXPECT_EQ(ErrorOf(request), "");
  request.set_request_id(std::string(65, 'x'));
  EXPECT_EQ(ErrorOf(request), "INVALID_FIELD request_id");
}

WallTime DueOf(const std::function<void(v1::Message&)>& change) {
  v1::EnqueueRequest request = ARequest();
  change(*request.mutable_messages(0));
  const absl::StatusOr<CheckedAppend> append = Check(request);
  EXPECT_TRUE(append.ok()) << append.status();
  return append.ok() ? append->messages[0].due : WallTime::min();
}
void SetDelay(v1::Message& message, std::int64_t seconds, std::int32_t nanos) {
  message.mutable_delay()->set_seconds(seconds);
  message.mutable_delay()->set_nanos(nanos);
}
void SetDeliverAt(v1::Message& message, std::int64_t seconds, std::int32_t nanos) {
  message.mutable_deliver_at()->set_seconds(seconds);
  message.mutable_deliver_at()->set_nanos(nanos);
}

// A delay counts from now and is rounded up, so that a message never comes too early; 0 is at once.
TEST(ValidateAppendTest, Delay) {
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDelay(m, 0, 0); }), NewMessage::kNotDelayed);
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDelay(m, 5, 0); }), kNow + std::chrono::seconds(5));
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDelay(m, 0, 1); }), kNow + std::chrono::milliseconds(1));
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDelay(m, 30 * 86400, 0); }), kNow + std::chrono::days(30));
}

// Negative, too long and impossible delays are refused, up to the ends of the types.
TEST(ValidateAppendTest, WrongDelays) {
  const std::string error = "INVALID_FIELD messages[0].delay";
  for (const auto& [seconds, nanos] :
       std::initializer_list<std::pair<std::int64_t, std::int32_t>>{{-1, 0},
                                                                    {0, -1},
                                                                    {30 * 86400, 1},
                                                                    {kHuge, 0},
                                                                    {-kHuge - 1, 0},
                                                                    {1, 1'000'000'000},
                                                                    {1, -1},
                                                                    {-1, 1},
                                                                    {0, std::numeric_limits<std::int32_t>::max()},
                                                                    {0, std::numeric_limits<std::int32_t>::min()},
                                                                    {9'223'372'036, 854'775'807},
                                                                    {315'576'000'000, 0},
                                                                    {315'576'000'001, 0}}) {
    EXPECT_EQ(ErrorAfter([&](v1::Message& m) { SetDelay(m, seconds, nanos); }), error) << seconds << " " << nanos;
  }
}

// An absolute time in the past is at once; in the future it stands, rounded up.
TEST(ValidateAppendTest, DeliverAt) {
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDeliverAt(m, 1'700'000'000, 0); }), NewMessage::kNotDelayed);
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDeliverAt(m, 0, 0); }), NewMessage::kNotDelayed);
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDeliverAt(m, -62'135'596'800, 0); }), NewMessage::kNotDelayed);
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDeliverAt(m, 1'700'000'000, 1); }), kNow + std::chrono::milliseconds(1));
  EXPECT_EQ(DueOf([](v1::Message& m) { SetDeliverAt(m, 1'700'000'000 + 30 * 86400, 0); }),
            kNow + std::chrono::days(30));
}

// Times that do not exist, or are more than 30 days ahead, are refused.
TEST(ValidateAppendTest, WrongDeliverAt) {
  const std::string error = "INVALID_FIELD messages[0].deliver_at";
  for (const auto& [seconds, nanos] :
       std::initializer_list<std::pair<std::int64_t, std::int32_t>>{{1'700'000'000 + 30 * 86400, 1},
                                                                    {253'402'300'799, 0},
                                                                    {253'402'300'800, 0},
                                                                    {-62'135'596'801, 0},
                                                                    {kHuge, 0},
                                                                    {-kHuge - 1, 0},
                                                                    {0, -1},
                                                                    {0, 1'000'000'000}}) {
    EXPECT_EQ(ErrorAfter([&](v1::Message& m) { SetDeliverAt(m, seconds, nanos); }), error) << seconds << " " << nanos;
  }
}

// What is declared but not served is refused by name, and so is what this build has never heard of.
TEST(ValidateAppendTest, UnservedFieldsOfAMessage) {
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.set_ordering_key("k"); }), "FIELD_NOT_SERVED messages[0].ordering_key");
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.set_priority(9); }), "FIELD_NOT_SERVED messages[0].priority");
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.mutable_time_to_live()->set_seconds(1); }),
            "FIELD_NOT_SERVED messages[0].time_to_live");
  const auto add_unknown = [](google::protobuf::Message& m) {
    m.GetReflection()->MutableUnknownFields(&m)->AddVarint(99, 1);
  };
  EXPECT_EQ(ErrorAfter([&](v1::Message& m) { add_unknown(m); }), "FIELD_NOT_SERVED messages[0].field 99");
  EXPECT_EQ(ErrorAfter([&](v1::Message& m) { add_unknown(*m.mutable_delay()); }),
            "FIELD_NOT_SERVED messages[0].delay.field 99");
  v1::EnqueueRequest request = ARequest();
  add_unknown(request);
  EXPECT_EQ(ErrorOf(request), "FIELD_NOT_SERVED field 99");
}

// A dedup_id becomes a hash; an empty one is none, and the longest one passes. With one on every message, or a
// request_id, the call is safe to repeat.
TEST(ValidateAppendTest, DedupIds) {
  v1::EnqueueRequest request = ARequest(3);
  EXPECT_FALSE(Check(request)->has_id());
  EXPECT_FALSE(Check(request)->is_safe_to_repeat());
  request.mutable_messages(0)->set_dedup_id("a");
  request.mutable_messages(2)->set_dedup_id(std::string(128, 'x'));
  const absl::StatusOr<CheckedAppend> append = Check(request);
  ASSERT_TRUE(append.ok()) << append.status();
  EXPECT_EQ(append->messages[0].dedup_id, HashOfDedupId("a"));
  EXPECT_EQ(append->messages[1].dedup_id, std::nullopt);
  EXPECT_EQ(append->messages[2].dedup_id, HashOfDedupId(std::string(128, 'x')));
  EXPECT_EQ(append->messages[0].bytes, request.messages(0).SerializeAsString());
  EXPECT_EQ(append->dedup_ids, 2u);
  EXPECT_TRUE(append->has_id());
  EXPECT_FALSE(append->is_safe_to_repeat());
  request.mutable_messages(1)->set_dedup_id("a");
  EXPECT_TRUE(Check(request)->is_safe_to_repeat());
  request.mutable_messages(1)->clear_dedup_id();
  request.set_request_id("r");
  EXPECT_TRUE(Check(request)->is_safe_to_repeat());
  request.mutable_messages(1)->set_dedup_id(std::string(129, 'x'));
  EXPECT_EQ(ErrorOf(request), "INVALID_FIELD messages[1].dedup_id");
}

// Their bounds hold already, since a broken bound comes first in the order of errors.
TEST(ValidateAppendTest, UnservedFieldsHaveTheirBounds) {
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.set_priority(10); }), "INVALID_FIELD messages[0].priority");
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.set_priority(-1); }), "INVALID_FIELD messages[0].priority");
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.set_ordering_key(std::string(257, 'x')); }),
            "INVALID_FIELD messages[0].ordering_key");
  EXPECT_EQ(ErrorAfter([](v1::Message& m) { m.mutable_time_to_live(); }), "INVALID_FIELD messages[0].time_to_live");
}

// With everything wrong at once, the answers come in the order of the API as one mistake after the other is mended.
TEST(ValidateAppendTest, ErrorsComeInOrderOfPrecedence) {
  v1::EnqueueRequest request = ARequest(4);
  request.set_queue("Orders");
  request.mutable_messages(0)->set_ordering_key("k");
  request.mutable_messages(1)->mutable_body()->assign(600 << 10, 'x');
  request.mutable_messages(2)->set_content_type(std::string(129, 'x'));
  wire::v1::AppendRequest view = View(request);
  view.set_messages(3, "\xff");
  EXPECT_EQ(ErrorOf(CheckAppend(std::move(view), {}).status()), "MALFORMED_REQUEST messages[3]");
  EXPECT_EQ(ErrorOf(request), "INVALID_NAME queue");
  request.set_queue("orders");
  EXPECT_EQ(ErrorOf(request), "INVALID_FIELD messages[2].content_type");
  request.mutable_messages(2)->clear_content_type();
  EXPECT_EQ(ErrorOf(request), "MESSAGE_TOO_LARGE messages[1]");
  request.mutable_messages(1)->mutable_body()->assign(512 << 10, 'x');
  request.mutable_messages(1)->mutable_body()->resize((512 << 10) - 4);
  EXPECT_EQ(ErrorOf(request), "REQUEST_TOO_LARGE messages");
  request.mutable_messages(1)->clear_body();
  EXPECT_EQ(ErrorOf(request), "FIELD_NOT_SERVED messages[0].ordering_key");
  request.mutable_messages(0)->clear_ordering_key();
  EXPECT_EQ(ErrorOf(request), "");
}

// One message alone is checked by the same rules.
TEST(ValidateAppendTest, OneMessageAlone) {
  v1::Message message;
  SetDelay(message, 5, 0);
  EXPECT_EQ(*CheckMessage(message.SerializeAsString(), "message", kNow, {}), kNow + std::chrono::seconds(5));
  EXPECT_EQ(ErrorOf(CheckMessage("\xff", "message", kNow, {}).status()), "MALFORMED_REQUEST message");
}

}  // namespace
}  // namespace postkeeper
