#include "service/unserved.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <string>

#include "postkeeper/v1/admin.pb.h"
#include "postkeeper/v1/cluster.pb.h"
#include "postkeeper/v1/message.pb.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

std::string FieldOf(const absl::Status& status) {
  EXPECT_TRUE(HasReason(status, Reason::kFieldNotServed)) << status;
  return DetailsOf(status).field;
}

// Every name of the list is one that the protos declare; a misspelt one would refuse nothing.
TEST(UnservedTest, EveryNameIsDeclared) {
  // Linked in only when used.
  v1::Queue::descriptor();
  v1::Message::descriptor();
  v1::Replica::descriptor();
  const auto& pool = *google::protobuf::DescriptorPool::generated_pool();
  for (const std::string_view listed : Unserved()) {
    const std::string name(listed);
    EXPECT_TRUE(pool.FindFieldByName(name) != nullptr || pool.FindMethodByName(name) != nullptr ||
                pool.FindEnumValueByName(name) != nullptr)
        << name;
    EXPECT_TRUE(IsUnserved(name));
  }
  EXPECT_FALSE(IsUnserved("postkeeper.v1.Message.body"));
}

// A field of the list is refused wherever it stands, and the error names its place.
TEST(UnservedTest, FieldsAreRefusedWhereverTheyStand) {
  v1::EnqueueRequest enqueue;
  enqueue.add_messages();
  EXPECT_TRUE(RefuseUnserved(enqueue).ok());
  enqueue.add_messages()->set_ordering_key("k");
  EXPECT_EQ(FieldOf(RefuseUnserved(enqueue)), "messages[1].ordering_key");

  v1::CreateQueueRequest create;
  create.mutable_queue()->set_max_attempts(3);
  EXPECT_EQ(FieldOf(RefuseUnserved(create)), "queue.max_attempts");

  v1::DequeueRequest dequeue;
  dequeue.set_at_most_once(true);
  EXPECT_EQ(FieldOf(RefuseUnserved(dequeue)), "at_most_once");
}

// So is an enum value of the list, and one that only a newer client can know.
TEST(UnservedTest, EnumValuesAreRefused) {
  v1::ConsumeRequest consume;
  consume.add_nacks()->set_kind(v1::NACK_KIND_RELEASE);
  EXPECT_TRUE(RefuseUnserved(consume).ok());
  consume.add_nacks()->set_kind(v1::NACK_KIND_REJECT);
  EXPECT_EQ(FieldOf(RefuseUnserved(consume)), "nacks[1].kind");
  consume.mutable_nacks(1)->set_kind(static_cast<v1::NackKind>(77));
  const absl::Status status = RefuseUnserved(consume);
  EXPECT_EQ(FieldOf(status), "nacks[1].kind");
  EXPECT_THAT(std::string(StdView(status.message())), testing::HasSubstr("= 77 is not known to this build"));
}

// A field that only a newer client can know is refused with its number, deep inside too; not passed over in silence.
TEST(UnservedTest, UnknownFieldsAreRefused) {
  v1::CreateQueueRequest create;
  auto* duration = create.mutable_queue()->mutable_lease_duration();
  EXPECT_TRUE(RefuseUnserved(create).ok());
  duration->GetReflection()->MutableUnknownFields(duration)->AddVarint(99, 1);
  EXPECT_EQ(FieldOf(RefuseUnserved(create)), "queue.lease_duration.field 99");
  EXPECT_TRUE(RefuseUnknownFields(create).ok());
  create.GetReflection()->MutableUnknownFields(&create)->AddVarint(50, 1);
  EXPECT_EQ(FieldOf(RefuseUnknownFields(create, "x")), "x.field 50");
}

// An unserved RPC says so by name.
TEST(UnservedTest, Methods) {
  const absl::Status status = MethodNotServed("postkeeper.v1.AdminService.CreateSubscription");
  EXPECT_TRUE(HasReason(status, Reason::kMethodNotServed));
  EXPECT_THAT(std::string(StdView(status.message())), testing::HasSubstr("CreateSubscription is not served"));
}

}  // namespace
}  // namespace postkeeper
