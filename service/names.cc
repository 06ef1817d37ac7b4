#include "service/names.h"

#include <optional>
#include <utility>
#include <vector>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr std::string_view kNamespaces = "namespaces";
constexpr std::string_view kQueues = "queues";
constexpr std::string_view kTopics = "topics";
constexpr std::string_view kSubscriptions = "subscriptions";

// namespaces/N/topics/T/subscriptions/S has six parts. One more tells that there are too many.
constexpr std::size_t kPartsMax = 6;

bool IsLetterOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// The rule that a segment breaks, "" if none.
std::string BrokenRule(std::string_view segment) {
  if (segment.empty()) return "a part of it is empty";
  if (segment.size() > kNameSegmentBytesMax) {
    return Cat("a part of it has ", segment.size(), " characters; at most ", kNameSegmentBytesMax, " are allowed");
  }
  for (const char c : segment) {
    if (IsLetterOrDigit(c) || c == '.' || c == '_' || c == '-') continue;
    if (c >= 'A' && c <= 'Z') return Cat("it has the capital letter ", std::string(1, c));
    return Cat("it has a character that is not one of a-z, 0-9, '.', '_' and '-'");
  }
  if (!IsLetterOrDigit(segment.front()) || !IsLetterOrDigit(segment.back())) {
    return "a part of it does not begin and end with a letter or a digit";
  }
  if (segment.find("..") != std::string_view::npos) return "it has two dots in a row";
  return "";
}

absl::Status InvalidName(std::string_view text, std::string_view field, std::string_view what, std::string_view rule,
                         std::string_view examples) {
  const std::string subject =
      text.empty() ? Cat(field, " is empty") : Cat(Quoted(text), " is not the name of a ", what, ": ", rule);
  return MakeError(Reason::kInvalidName, Cat(subject, ". Write it like ", examples), {.field = std::string(field)});
}

struct Wanted {
  std::string_view what;
  std::string_view examples;
  bool is_queue_allowed = false;
  bool is_topic_allowed = false;
  bool is_subscription_allowed = false;
};

constexpr Wanted kWantedQueue{
    .what = "queue", .examples = "orders, or namespaces/default/queues/orders", .is_queue_allowed = true};
constexpr Wanted kWantedTopic{
    .what = "topic", .examples = "prices, or namespaces/default/topics/prices", .is_topic_allowed = true};
constexpr Wanted kWantedSubscription{
    .what = "subscription",
    .examples = "topics/prices/subscriptions/audit, or namespaces/default/topics/prices/subscriptions/audit",
    .is_subscription_allowed = true};
constexpr Wanted kWantedSource{.what = "queue or a subscription",
                               .examples = "orders (a queue), or topics/prices/subscriptions/audit (a subscription)",
                               .is_queue_allowed = true,
                               .is_subscription_allowed = true};

std::vector<std::string_view> Parts(std::string_view text) {
  std::vector<std::string_view> parts;
  while (parts.size() < kPartsMax) {
    const std::size_t slash = text.find('/');
    parts.push_back(text.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    text.remove_prefix(slash + 1);
  }
  parts.push_back(text);
  return parts;
}

// Which parts are where, whatever stands in them; nullopt if it looks like no name at all.
std::optional<Name> Shape(std::string_view text, Name::Kind bare_kind, bool is_bare_allowed) {
  std::vector<std::string_view> parts = Parts(text);
  Name name;
  name.name_space = std::string(kDefaultNamespace);
  if (parts.size() == 1) {
    if (!is_bare_allowed) return std::nullopt;
    name.kind = bare_kind;
    name.id = std::string(parts[0]);
    return name;
  }
  if (parts[0] == kNamespaces) {
    name.name_space = std::string(parts[1]);
    parts.erase(parts.begin(), parts.begin() + 2);
  }
  if (parts.size() == 2 && parts[0] == kQueues) {
    name.kind = Name::Kind::kQueue;
  } else if (parts.size() == 2 && parts[0] == kTopics) {
    name.kind = Name::Kind::kTopic;
  } else if (parts.size() == 4 && parts[0] == kTopics && parts[2] == kSubscriptions) {
    name.kind = Name::Kind::kSubscription;
    name.subscription = std::string(parts[3]);
  } else {
    return std::nullopt;
  }
  name.id = std::string(parts[1]);
  return name;
}

std::string_view KindName(Name::Kind kind) {
  switch (kind) {
    case Name::Kind::kQueue:
      return "queue";
    case Name::Kind::kTopic:
      return "topic";
    case Name::Kind::kSubscription:
      return "subscription";
  }
  return "";
}

absl::StatusOr<Name> Parse(std::string_view text, std::string_view field, const Wanted& wanted) {
  const auto invalid = [&](std::string_view rule) {
    return InvalidName(text, field, wanted.what, rule, wanted.examples);
  };
  const bool is_bare_allowed = wanted.is_queue_allowed || wanted.is_topic_allowed;
  const Name::Kind bare_kind = wanted.is_queue_allowed ? Name::Kind::kQueue : Name::Kind::kTopic;
  std::optional<Name> name = Shape(text, bare_kind, is_bare_allowed);
  if (!name) return invalid("it has not the form of one");

  std::vector<std::string_view> segments = {name->name_space, name->id};
  if (name->kind == Name::Kind::kSubscription) segments.push_back(name->subscription);
  for (const std::string_view segment : segments) {
    const std::string rule = BrokenRule(segment);
    if (!rule.empty()) return invalid(rule);
  }
  const bool is_allowed = (name->kind == Name::Kind::kQueue && wanted.is_queue_allowed) ||
                          (name->kind == Name::Kind::kTopic && wanted.is_topic_allowed) ||
                          (name->kind == Name::Kind::kSubscription && wanted.is_subscription_allowed);
  if (!is_allowed) return invalid(Cat("it names a ", KindName(name->kind)));
  return *std::move(name);
}

}  // namespace

std::string Name::Full() const {
  const std::string start = Cat(kNamespaces, "/", name_space, "/");
  switch (kind) {
    case Kind::kQueue:
      return Cat(start, kQueues, "/", id);
    case Kind::kTopic:
      return Cat(start, kTopics, "/", id);
    case Kind::kSubscription:
      return Cat(start, kTopics, "/", id, "/", kSubscriptions, "/", subscription);
  }
  return "";
}

std::string Name::Short() const {
  if (name_space != kDefaultNamespace) return Full();
  if (kind == Kind::kSubscription) return Cat(kTopics, "/", id, "/", kSubscriptions, "/", subscription);
  return id;
}

absl::StatusOr<Name> ParseQueueName(std::string_view text, std::string_view field) {
  return Parse(text, field, kWantedQueue);
}

absl::StatusOr<Name> ParseTopicName(std::string_view text, std::string_view field) {
  return Parse(text, field, kWantedTopic);
}

absl::StatusOr<Name> ParseSubscriptionName(std::string_view text, std::string_view field) {
  return Parse(text, field, kWantedSubscription);
}

absl::StatusOr<Name> ParseSourceName(std::string_view text, std::string_view field) {
  return Parse(text, field, kWantedSource);
}

absl::StatusOr<std::string> ParseNamespace(std::string_view text, std::string_view field) {
  if (text.empty()) return std::string(kDefaultNamespace);
  constexpr std::string_view kExamples = "namespaces/default";
  const std::vector<std::string_view> parts = Parts(text);
  if (parts.size() != 2 || parts[0] != kNamespaces) {
    return InvalidName(text, field, "namespace", "it has not the form of one", kExamples);
  }
  const std::string rule = BrokenRule(parts[1]);
  if (!rule.empty()) return InvalidName(text, field, "namespace", rule, kExamples);
  return std::string(parts[1]);
}

}  // namespace postkeeper
