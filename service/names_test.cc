#include "service/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using testing::HasSubstr;

std::string FullQueue(std::string_view text) {
  const absl::StatusOr<Name> name = ParseQueueName(text);
  return name.ok() ? name->Full() : std::string(ReasonName(*ReasonOf(name.status())));
}
std::string FullTopic(std::string_view text) {
  const absl::StatusOr<Name> name = ParseTopicName(text);
  return name.ok() ? name->Full() : std::string(ReasonName(*ReasonOf(name.status())));
}
std::string FullSource(std::string_view text) {
  const absl::StatusOr<Name> name = ParseSourceName(text);
  return name.ok() ? name->Full() : std::string(ReasonName(*ReasonOf(name.status())));
}
std::string QueueError(std::string_view text) { return std::string(StdView(ParseQueueName(text).status().message())); }

// Each form that the API allows stands for one full name.
TEST(NamesTest, EveryFormLeadsToTheFullName) {
  EXPECT_EQ(FullQueue("orders"), "namespaces/default/queues/orders");
  EXPECT_EQ(FullQueue("queues/orders"), "namespaces/default/queues/orders");
  EXPECT_EQ(FullQueue("namespaces/shop/queues/orders"), "namespaces/shop/queues/orders");
  EXPECT_EQ(FullTopic("prices"), "namespaces/default/topics/prices");
  EXPECT_EQ(FullTopic("topics/prices"), "namespaces/default/topics/prices");
  EXPECT_EQ(FullSource("orders"), "namespaces/default/queues/orders");
  EXPECT_EQ(FullSource("topics/prices/subscriptions/audit"), "namespaces/default/topics/prices/subscriptions/audit");
  EXPECT_EQ(FullSource("namespaces/shop/topics/prices/subscriptions/audit"),
            "namespaces/shop/topics/prices/subscriptions/audit");
  EXPECT_EQ(ParseSubscriptionName("topics/prices/subscriptions/audit")->Topic().Full(),
            "namespaces/default/topics/prices");
}

// What the full name says is parsed back to the same name.
TEST(NamesTest, AFullNameIsItsOwnName) {
  const Name queue = *ParseQueueName("namespaces/a/queues/b");
  EXPECT_EQ(*ParseSourceName(queue.Full()), queue);
  const Name subscription = *ParseSourceName("namespaces/a/topics/b/subscriptions/c");
  EXPECT_EQ(*ParseSourceName(subscription.Full()), subscription);
  EXPECT_EQ(*ParseSourceName(subscription.Short()), subscription);
  EXPECT_EQ(ParseQueueName("orders")->Short(), "orders");
}

// A name of another kind is refused where it cannot be meant, and the text says what it is.
TEST(NamesTest, KindsAreNotMixedUp) {
  EXPECT_THAT(QueueError("topics/prices"), HasSubstr("it names a topic"));
  EXPECT_EQ(FullTopic("queues/orders"), "INVALID_NAME");
  EXPECT_EQ(FullSource("topics/prices"), "INVALID_NAME");
  EXPECT_EQ(FullQueue("topics/prices/subscriptions/audit"), "INVALID_NAME");
  EXPECT_FALSE(ParseSubscriptionName("audit").ok());
}

// Forms that look almost right are refused.
TEST(NamesTest, OtherFormsAreRefused) {
  for (const std::string_view text :
       {"", "/", "/orders", "orders/", "queues/", "queue/orders", "queues/a/b", "namespaces/default", "namespaces/a/b",
        "namespaces//queues/a", "namespaces/a/queues/b/c", "namespaces/a/topics/b/subscriptions",
        "namespaces/a/topics/b/subscriptions/c/d", "//", "namespaces/a/namespaces/b/queues/c", "a/b"}) {
    EXPECT_EQ(FullSource(text), "INVALID_NAME") << text;
  }
  EXPECT_EQ(FullSource("prices/subscriptions/audit"), "INVALID_NAME");
}

// The rules of a segment hold at their ends: 63 characters, first and last, dots.
TEST(NamesTest, TheRulesOfASegment) {
  for (const std::string& text : {std::string("a"), std::string("0"), std::string("a.b_c-d"), std::string(63, 'x')}) {
    EXPECT_EQ(FullQueue(text), "namespaces/default/queues/" + text);
  }
  for (const std::string& text :
       {std::string(64, 'x'), std::string("A"), std::string("a..b"), std::string("-a"), std::string("a-"),
        std::string(".a"), std::string("a."), std::string("_a"), std::string("a b"), std::string("ä"),
        std::string("a\0b", 3), std::string("a\n"), std::string("..")}) {
    EXPECT_EQ(FullQueue(text), "INVALID_NAME") << text;
  }
  EXPECT_EQ(FullQueue("namespaces/" + std::string(64, 'x') + "/queues/a"), "INVALID_NAME");
}

// The text says which rule is broken, and shows a right one; a huge name is not repeated whole.
TEST(NamesTest, TheTextSaysWhichRuleIsBroken) {
  EXPECT_EQ(QueueError("Orders"),
            "\"Orders\" is not the name of a queue: it has the capital letter O. Write it like orders, or "
            "namespaces/default/queues/orders");
  EXPECT_THAT(QueueError(""), HasSubstr("queue is empty. Write it like orders"));
  EXPECT_THAT(QueueError("a..b"), HasSubstr("two dots in a row"));
  EXPECT_THAT(QueueError(std::string(64, 'x')), HasSubstr("64 characters; at most 63"));
  EXPECT_LT(QueueError(std::string(1'000'000, 'x')).size(), 400u);
  EXPECT_EQ(DetailsOf(ParseSourceName("A", "open.source").status()).field, "open.source");
}

// A parent is a namespace; empty means the default one.
TEST(NamesTest, Namespaces) {
  EXPECT_EQ(*ParseNamespace(""), "default");
  EXPECT_EQ(*ParseNamespace("namespaces/shop"), "shop");
  for (const std::string_view text : {"shop", "namespaces/", "namespaces/A", "namespaces/a/queues", "namespaces/a/"}) {
    EXPECT_EQ(ReasonOf(ParseNamespace(text).status()), Reason::kInvalidName) << text;
  }
}

}  // namespace
}  // namespace postkeeper
