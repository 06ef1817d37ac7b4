// The views of wire.proto carry the bytes of the public messages; this is what keeps the two from drifting apart.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "postkeeper/v1/message.pb.h"
#include "postkeeper/wire/v1/wire.pb.h"

namespace postkeeper {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Which views stand for a part of the public message only.
bool IsPart(const Descriptor& view) { return view.name() == "ConsumeResponse"; }

// A message's bytes in place of the message, a number in place of an enum: the same on the wire. All other types must
// be equal, and submessages be views of each other.
void ExpectSameType(const FieldDescriptor& view, const FieldDescriptor& real) {
  SCOPED_TRACE(view.full_name() + " and " + real.full_name());
  EXPECT_EQ(view.is_repeated(), real.is_repeated());
  if (real.type() == FieldDescriptor::TYPE_MESSAGE && view.type() == FieldDescriptor::TYPE_BYTES) {
    EXPECT_EQ(real.message_type()->full_name(), "postkeeper.v1.Message");
    return;
  }
  if (real.type() == FieldDescriptor::TYPE_ENUM) {
    EXPECT_EQ(view.type(), FieldDescriptor::TYPE_INT32);
    return;
  }
  EXPECT_EQ(view.type(), real.type());
  if (real.type() == FieldDescriptor::TYPE_MESSAGE && view.type() == FieldDescriptor::TYPE_MESSAGE) {
    EXPECT_EQ(view.message_type()->name(), real.message_type()->name());
  }
}

void ExpectSameFields(const Descriptor& view, const Descriptor& real) {
  SCOPED_TRACE(view.full_name() + " and " + real.full_name());
  for (int i = 0; i < view.field_count(); ++i) {
    const FieldDescriptor& field = *view.field(i);
    const FieldDescriptor* twin = real.FindFieldByNumber(field.number());
    ASSERT_NE(twin, nullptr) << field.full_name();
    if (field.name() != "log") {
      EXPECT_EQ(field.name(), twin->name());
    }
    ExpectSameType(field, *twin);
  }
  if (IsPart(view)) return;
  EXPECT_EQ(view.field_count(), real.field_count()) << "a public field would be dropped by the view";
}

// Number, type and label of every field are those of the public message, and none is missing.
TEST(WireTest, ViewsHaveTheFieldsOfThePublicMessages) {
  for (const Descriptor* real : {v1::EnqueueRequest::descriptor(), v1::PublishRequest::descriptor(),
                                 v1::EnqueueStreamRequest::descriptor(), v1::PublishStreamRequest::descriptor()}) {
    ExpectSameFields(*wire::v1::AppendRequest::descriptor(), *real);
  }
  ExpectSameFields(*wire::v1::Delivery::descriptor(), *v1::Delivery::descriptor());
  ExpectSameFields(*wire::v1::Deliveries::descriptor(), *v1::Deliveries::descriptor());
  ExpectSameFields(*wire::v1::ConsumeResponse::descriptor(), *v1::ConsumeResponse::descriptor());
  ExpectSameFields(*wire::v1::SettleFailure::descriptor(), *v1::SettleFailure::descriptor());
  ExpectSameFields(*wire::v1::DequeueResponse::descriptor(), *v1::DequeueResponse::descriptor());
  ExpectSameFields(*wire::v1::TopicMessage::descriptor(), *v1::TopicMessage::descriptor());
  ExpectSameFields(*wire::v1::SubscribeResponse::descriptor(), *v1::SubscribeResponse::descriptor());
}

// Each message of wire.proto is looked at by the test above: a new one must be added to it.
TEST(WireTest, NoViewIsForgotten) {
  const auto* file = wire::v1::AppendRequest::descriptor()->file();
  std::vector<std::string> names;
  for (int i = 0; i < file->message_type_count(); ++i) names.push_back(file->message_type(i)->name());
  EXPECT_THAT(names,
              testing::UnorderedElementsAre("AppendRequest", "Delivery", "Deliveries", "ConsumeResponse",
                                            "SettleFailure", "DequeueResponse", "TopicMessage", "SubscribeResponse"));
}

v1::Message AMessage() {
  v1::Message message;
  message.set_body("body");
  (*message.mutable_attributes())["k"] = "v";
  message.mutable_delay()->set_seconds(3);
  return message;
}

// The bytes themselves: what a client sends is read by the view, the message untouched.
TEST(WireTest, ARequestIsReadThroughTheView) {
  v1::EnqueueRequest request;
  request.set_queue("orders");
  request.set_request_id("id");
  *request.add_messages() = AMessage();
  wire::v1::AppendRequest view;
  ASSERT_TRUE(view.ParseFromString(request.SerializeAsString()));
  EXPECT_EQ(view.log(), "orders");
  EXPECT_EQ(view.request_id(), "id");
  ASSERT_EQ(view.messages_size(), 1);
  EXPECT_EQ(view.messages(0), AMessage().SerializeAsString());
}

// And what the service writes through the view is read by the client.
TEST(WireTest, AnAnswerIsWrittenThroughTheView) {
  wire::v1::ConsumeResponse view;
  wire::v1::Delivery& delivery = *view.mutable_deliveries()->add_deliveries();
  delivery.set_message_id("m1");
  delivery.set_message(AMessage().SerializeAsString());
  delivery.set_attempt(2);
  v1::ConsumeResponse response;
  ASSERT_TRUE(response.ParseFromString(view.SerializeAsString()));
  ASSERT_TRUE(response.has_deliveries());
  EXPECT_EQ(response.deliveries().deliveries(0).message().body(), "body");
  EXPECT_EQ(response.deliveries().deliveries(0).message().attributes().at("k"), "v");
  EXPECT_EQ(response.deliveries().deliveries(0).attempt(), 2);
}

}  // namespace
}  // namespace postkeeper
