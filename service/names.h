// The names of queues, topics and subscriptions: what is allowed, and what a short form stands for.
#ifndef POSTKEEPER_SERVICE_NAMES_H_
#define POSTKEEPER_SERVICE_NAMES_H_

#include <compare>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postkeeper {

inline constexpr std::string_view kDefaultNamespace = "default";
inline constexpr std::size_t kNameSegmentBytesMax = 63;

// A name that has been checked. A value; copyable, comparable, hashable.
struct Name {
  enum class Kind { kQueue, kTopic, kSubscription };

  Kind kind = Kind::kQueue;
  std::string name_space;
  std::string id;            // the queue, or the topic
  std::string subscription;  // only kSubscription

  // Canonical: namespaces/N/queues/Q, namespaces/N/topics/T, namespaces/N/topics/T/subscriptions/S.
  std::string Full() const;
  // As a person would type it: Q or T in namespace default where a bare name means that kind, else the full name.
  std::string Short() const;
  // The topic of a subscription.
  Name Topic() const { return {Kind::kTopic, name_space, id, {}}; }

  friend auto operator<=>(const Name&, const Name&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Name& name) {
    return H::combine(std::move(h), name.kind, name.name_space, name.id, name.subscription);
  }
};

// A segment is [a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])? without "..". Each of these takes the full name, the same without
// namespaces/N/ (then namespace default) and, except for a subscription, the bare segment. `field` is the request's
// field, for the error. INVALID_NAME says which rule is broken; an empty text is INVALID_NAME too.
absl::StatusOr<Name> ParseQueueName(std::string_view text, std::string_view field = "queue");
absl::StatusOr<Name> ParseTopicName(std::string_view text, std::string_view field = "topic");
absl::StatusOr<Name> ParseSubscriptionName(std::string_view text, std::string_view field = "name");
// A queue or a subscription; a bare name is a queue.
absl::StatusOr<Name> ParseSourceName(std::string_view text, std::string_view field = "source");
// namespaces/N; "" = namespaces/default. Returns N.
absl::StatusOr<std::string> ParseNamespace(std::string_view text, std::string_view field = "parent");

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_NAMES_H_
