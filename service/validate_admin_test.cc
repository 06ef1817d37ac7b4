#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "postkeeper/v1/admin.pb.h"
#include "postkeeper/v1/cluster.pb.h"
#include "service/validate.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

std::string ErrorOf(const absl::Status& status) {
  if (status.ok()) return "";
  const std::string field = DetailsOf(status).field;
  return Cat(ReasonName(ReasonOf(status).value_or(Reason::kBug)), field.empty() ? "" : " ", field);
}
void Set(google::protobuf::Duration* duration, std::int64_t whole_seconds, std::int32_t nanos = 0) {
  duration->set_seconds(whole_seconds);
  duration->set_nanos(nanos);
}

v1::CreateQueueRequest ACreate() {
  v1::CreateQueueRequest request;
  request.mutable_queue()->set_name("orders");
  return request;
}
std::string CreateError(const std::function<void(v1::Queue&)>& change) {
  v1::CreateQueueRequest request = ACreate();
  change(*request.mutable_queue());
  return ErrorOf(CheckCreateQueue(request).status());
}

// A queue with nothing but a name has the defaults; what only the server gives is ignored.
TEST(ValidateAdminTest, CreateQueueDefaults) {
  v1::CreateQueueRequest request = ACreate();
  request.mutable_queue()->set_uid("x");
  request.mutable_queue()->set_etag("x");
  request.mutable_queue()->mutable_create_time()->set_nanos(-1);
  const absl::StatusOr<CheckedCreateQueue> create = CheckCreateQueue(request);
  ASSERT_TRUE(create.ok()) << create.status();
  EXPECT_EQ(create->name.Full(), "namespaces/default/queues/orders");
  EXPECT_EQ(create->settings, QueueSettings{});
  EXPECT_EQ(create->settings.lease_duration, seconds(30));
}

// Settings come out as given, cut to the milliseconds that are stored.
TEST(ValidateAdminTest, CreateQueueSettings) {
  v1::CreateQueueRequest request = ACreate();
  v1::Queue& queue = *request.mutable_queue();
  Set(queue.mutable_lease_duration(), 1, 500'999'999);
  Set(queue.mutable_retry_backoff(), 0, 100'000'000);
  Set(queue.mutable_retry_backoff_max(), 60);
  queue.set_max_messages(10);
  queue.set_max_bytes(1000);
  EXPECT_EQ(CheckCreateQueue(request)->settings, (QueueSettings{.lease_duration = milliseconds(1500),
                                                                .retry_backoff = milliseconds(100),
                                                                .retry_backoff_max = seconds(60),
                                                                .max_messages = 10,
                                                                .max_bytes = 1000}));
}

// Each bound of a queue, from outside.
TEST(ValidateAdminTest, QueueBounds) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(CreateError([](auto& q) { q.set_name("namespaces/default/topics/t"); }), "INVALID_NAME queue.name");
  EXPECT_EQ(ErrorOf(CheckCreateQueue({}).status()), "INVALID_NAME queue.name");
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_lease_duration(), 0); }), "INVALID_FIELD queue.lease_duration");
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_lease_duration(), 43201); }), "INVALID_FIELD queue.lease_duration");
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_retry_backoff(), 0, 99'999'999); }),
            "INVALID_FIELD queue.retry_backoff");
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_retry_backoff_max(), 31 * 86400); }),
            "INVALID_FIELD queue.retry_backoff_max");
  EXPECT_EQ(CreateError([](auto& q) { q.set_max_messages(-1); }), "INVALID_FIELD queue.max_messages");
  EXPECT_EQ(CreateError([](auto& q) { q.set_max_messages(kHuge); }), "INVALID_FIELD queue.max_messages");
  EXPECT_EQ(CreateError([](auto& q) { q.set_max_bytes(-kHuge - 1); }), "INVALID_FIELD queue.max_bytes");
  EXPECT_EQ(CreateError([](auto& q) { q.set_max_attempts(3); }), "FIELD_NOT_SERVED queue.max_attempts");
  EXPECT_EQ(CreateError([](auto& q) { q.set_dead_letter_queue("dead"); }), "FIELD_NOT_SERVED queue.dead_letter_queue");
}

// The first backoff is not above the longest one, whichever of them was given.
TEST(ValidateAdminTest, BackoffsGoTogether) {
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_retry_backoff(), 601); }), "INVALID_FIELD queue.retry_backoff");
  EXPECT_EQ(CreateError([](auto& q) { Set(q.mutable_retry_backoff_max(), 0, 999'000'000); }),
            "INVALID_FIELD queue.retry_backoff");
  EXPECT_EQ(CreateError([](auto& q) {
              Set(q.mutable_retry_backoff(), 1000);
              Set(q.mutable_retry_backoff_max(), 1000);
            }),
            "");
}

// A topic: defaults, values, bounds.
TEST(ValidateAdminTest, CreateTopic) {
  v1::CreateTopicRequest request;
  request.mutable_topic()->set_name("prices");
  EXPECT_EQ(CheckCreateTopic(request)->settings, TopicSettings{});
  Set(request.mutable_topic()->mutable_retention(), 60);
  request.mutable_topic()->set_max_messages(5);
  EXPECT_EQ(CheckCreateTopic(request)->settings, (TopicSettings{.retention = minutes(1), .max_messages = 5}));
  Set(request.mutable_topic()->mutable_retention(), 59);
  EXPECT_EQ(ErrorOf(CheckCreateTopic(request).status()), "INVALID_FIELD topic.retention");
  Set(request.mutable_topic()->mutable_retention(), 720 * 3600, 1);
  EXPECT_EQ(ErrorOf(CheckCreateTopic(request).status()), "INVALID_FIELD topic.retention");
  request.mutable_topic()->clear_retention();
  request.mutable_topic()->set_max_bytes(-1);
  EXPECT_EQ(ErrorOf(CheckCreateTopic(request).status()), "INVALID_FIELD topic.max_bytes");
}

v1::UpdateQueueRequest AnUpdate(std::initializer_list<std::string> mask) {
  v1::UpdateQueueRequest request;
  request.mutable_queue()->set_name("orders");
  request.mutable_queue()->set_max_messages(5);
  for (const std::string& path : mask) request.mutable_update_mask()->add_paths(path);
  return request;
}
const QueueSettings kCurrent{.lease_duration = seconds(7), .max_messages = 77, .max_bytes = 777};

QueueSettings Updated(const v1::UpdateQueueRequest& request) {
  const absl::StatusOr<CheckedUpdateQueue> update = CheckUpdateQueue(request);
  EXPECT_TRUE(update.ok()) << update.status();
  return *update->changes.ApplyTo(kCurrent);
}

// The mask decides: empty = what is set; a name = that one, back to the default if it is unset; * = all.
TEST(ValidateAdminTest, UpdateMask) {
  EXPECT_EQ(Updated(AnUpdate({})), (QueueSettings{.lease_duration = seconds(7), .max_messages = 5, .max_bytes = 777}));
  EXPECT_EQ(Updated(AnUpdate({"max_bytes"})), (QueueSettings{.lease_duration = seconds(7), .max_messages = 77}));
  EXPECT_EQ(Updated(AnUpdate({"max_messages", "lease_duration"})),
            (QueueSettings{.max_messages = 5, .max_bytes = 777}));
  EXPECT_EQ(Updated(AnUpdate({"*"})), (QueueSettings{.max_messages = 5}));
}

// What cannot be changed, is not served, or is no setting, is refused in the mask.
TEST(ValidateAdminTest, WrongMasks) {
  for (const char* path : {"name", "uid", "etag", "create_time", "", "queue.max_bytes", "MAX_BYTES", "max_bytes "}) {
    EXPECT_EQ(ErrorOf(CheckUpdateQueue(AnUpdate({path})).status()), "INVALID_FIELD update_mask") << path;
  }
  EXPECT_EQ(ErrorOf(CheckUpdateQueue(AnUpdate({"max_attempts"})).status()), "FIELD_NOT_SERVED max_attempts");
  EXPECT_EQ(ErrorOf(CheckUpdateQueue(AnUpdate({"*", "x"})).status()), "INVALID_FIELD update_mask");
}

// Whether settings go together is seen only beside the current ones; what would be created stands beside the defaults.
TEST(ValidateAdminTest, UpdatesAreJudgedWithTheCurrentSettings) {
  v1::UpdateQueueRequest request = AnUpdate({});
  Set(request.mutable_queue()->mutable_retry_backoff(), 1200);
  request.set_allow_missing(true);
  const absl::StatusOr<CheckedUpdateQueue> update = CheckUpdateQueue(request);
  ASSERT_TRUE(update.ok()) << update.status();
  EXPECT_TRUE(update->allow_missing);
  EXPECT_EQ(ErrorOf(update->changes.ApplyTo(QueueSettings{}).status()), "INVALID_FIELD queue.retry_backoff");
  EXPECT_EQ(ErrorOf(update->settings_if_missing.status()), "INVALID_FIELD queue.retry_backoff");
  EXPECT_TRUE(update->changes.ApplyTo({.retry_backoff_max = hours(1)}).ok());
}

// With allow_missing the settings for the new queue ignore the mask, as the API says.
TEST(ValidateAdminTest, WhatIsCreatedIgnoresTheMask) {
  EXPECT_EQ(*CheckUpdateQueue(AnUpdate({"max_bytes"}))->settings_if_missing, (QueueSettings{.max_messages = 5}));
}

// Topics are updated by the same rules.
TEST(ValidateAdminTest, UpdateTopic) {
  v1::UpdateTopicRequest request;
  request.mutable_topic()->set_name("prices");
  Set(request.mutable_topic()->mutable_retention(), 120);
  request.mutable_update_mask()->add_paths("max_bytes");
  const TopicSettings current{.retention = hours(1), .max_bytes = 5};
  EXPECT_EQ(*CheckUpdateTopic(request)->changes.ApplyTo(current), (TopicSettings{.retention = hours(1)}));
  EXPECT_EQ(CheckUpdateTopic(request)->settings_if_missing->retention, minutes(2));
}

// An etag comes out as what it says; what is none is refused.
TEST(ValidateAdminTest, Etags) {
  Uid uid;
  uid.bytes[3] = 9;
  const Etag etag{uid, 4};
  v1::UpdateQueueRequest update = AnUpdate({});
  EXPECT_EQ(CheckUpdateQueue(update)->etag, std::nullopt);
  update.mutable_queue()->set_etag(EncodeEtag(etag));
  EXPECT_EQ(CheckUpdateQueue(update)->etag, etag);
  v1::DeleteQueueRequest remove;
  remove.set_name("orders");
  remove.set_etag(EncodeEtag(etag));
  remove.set_allow_missing(true);
  EXPECT_EQ(CheckDeleteQueue(remove)->etag, etag);
  EXPECT_TRUE(CheckDeleteQueue(remove)->allow_missing);
  remove.set_etag("\"weak\"");
  EXPECT_EQ(ErrorOf(CheckDeleteQueue(remove).status()), "INVALID_FIELD etag");
  v1::DeleteTopicRequest remove_topic;
  remove_topic.set_name("queues/q");
  EXPECT_EQ(ErrorOf(CheckDeleteTopic(remove_topic).status()), "INVALID_NAME name");
}

// Pages: 100 unless said otherwise, at most 1,000; a token goes on where its own list stopped, and no other.
TEST(ValidateAdminTest, Lists) {
  v1::ListQueuesRequest request;
  const absl::StatusOr<CheckedList> first = CheckListQueues(request);
  EXPECT_EQ(first->name_space, "default");
  EXPECT_EQ(first->page_size, 100);
  EXPECT_EQ(first->after, "");
  request.set_page_token(EncodePageToken(first->list, "orders"));
  EXPECT_EQ(CheckListQueues(request)->after, "orders");
  v1::ListTopicsRequest topics;
  topics.set_page_token(request.page_token());
  EXPECT_EQ(ErrorOf(CheckListTopics(topics).status()), "INVALID_FIELD page_token");
  request.set_parent("namespaces/shop");
  EXPECT_EQ(ErrorOf(CheckListQueues(request).status()), "INVALID_FIELD page_token");
  request.clear_page_token();
  EXPECT_EQ(CheckListQueues(request)->name_space, "shop");
  for (const int size : {-1, 1001, std::numeric_limits<int>::min()}) {
    request.set_page_size(size);
    EXPECT_EQ(ErrorOf(CheckListQueues(request).status()), "INVALID_FIELD page_size") << size;
  }
  request.set_page_size(1000);
  EXPECT_EQ(CheckListQueues(request)->page_size, 1000);
  request.set_parent("shop");
  EXPECT_EQ(ErrorOf(CheckListQueues(request).status()), "INVALID_NAME parent");
}

// What takes only a name checks that name.
TEST(ValidateAdminTest, NamesAlone) {
  v1::GetQueueRequest get_queue;
  EXPECT_EQ(ErrorOf(CheckGetQueue(get_queue).status()), "INVALID_NAME name");
  get_queue.set_name("orders");
  EXPECT_EQ(CheckGetQueue(get_queue)->Full(), "namespaces/default/queues/orders");
  v1::GetTopicRequest get_topic;
  get_topic.set_name("prices");
  EXPECT_EQ(CheckGetTopic(get_topic)->Full(), "namespaces/default/topics/prices");
  v1::GetStatsRequest stats;
  stats.set_source("topics/t/subscriptions/s");
  EXPECT_EQ(CheckGetStats(stats)->Full(), "namespaces/default/topics/t/subscriptions/s");
  v1::PurgeQueueRequest purge;
  purge.set_name("orders");
  purge.set_leased_too(true);
  EXPECT_TRUE(CheckPurgeQueue(purge)->leased_too);
  purge.set_name("topics/t");
  EXPECT_EQ(ErrorOf(CheckPurgeQueue(purge).status()), "INVALID_NAME name");
  EXPECT_TRUE(CheckGetServerInfo({}).ok());
}

// A list of replicas has a size within bounds, and goes on only behind a token of its own.
TEST(ValidateAdminTest, ListReplicas) {
  v1::ListReplicasRequest request;
  EXPECT_EQ(CheckListReplicas(request)->page_size, kPageSizeDefault);
  EXPECT_EQ(CheckListReplicas(request)->after, "");
  request.set_page_size(kPageSizeMax);
  request.set_page_token(EncodePageToken(kReplicasList, "rX"));
  EXPECT_EQ(CheckListReplicas(request)->page_size, kPageSizeMax);
  EXPECT_EQ(CheckListReplicas(request)->after, "rX");
  request.set_page_token(EncodePageToken("default/queues", "rX"));
  EXPECT_EQ(ErrorOf(CheckListReplicas(request).status()), "INVALID_FIELD page_token");
  request.clear_page_token();
  for (const int size : {-1, kPageSizeMax + 1}) {
    request.set_page_size(size);
    EXPECT_EQ(ErrorOf(CheckListReplicas(request).status()), "INVALID_FIELD page_size");
  }
}

// The first setting that differs is named, for OTHER_SETTINGS.
TEST(ValidateAdminTest, FirstDifference) {
  EXPECT_EQ(FirstDifference(QueueSettings{}, QueueSettings{}), "");
  EXPECT_EQ(FirstDifference(QueueSettings{}, QueueSettings{.max_messages = 1, .max_bytes = 1}), "max_messages");
  EXPECT_EQ(FirstDifference(TopicSettings{}, TopicSettings{.retention = hours(1)}), "retention");
}

}  // namespace
}  // namespace postkeeper
