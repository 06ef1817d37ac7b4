// A queue or a topic, for those who only append to it.
#ifndef POSTKEEPER_SERVICE_LOG_HANDLE_H_
#define POSTKEEPER_SERVICE_LOG_HANDLE_H_

#include <memory>
#include <optional>
#include <variant>

#include "service/broker.h"

namespace postkeeper {

// Refers to one engine and keeps it alive. A value. What is not said to be thread-safe is to be called on the strand.
class LogHandle {
 public:
  using Engine = std::variant<std::shared_ptr<QueueEngine>, std::shared_ptr<TopicEngine>>;

  explicit LogHandle(Engine engine) : engine_(std::move(engine)) {}
  // The engine that is open here; nullopt if there is none.
  static std::optional<LogHandle> Find(const Broker& broker, const Name& name);
  // Looks it up in the catalog; creates it where that is allowed.
  static Task<absl::StatusOr<LogHandle>> Open(Broker& broker, Name name);

  // Thread-safe.
  asio::any_io_executor strand() const;
  const Uid& uid() const;
  // See QueueEngine; on the strand.
  std::int64_t epoch() const;
  const std::string& full_name() const;
  void Append(CheckedAppend append, LogAppender::Done done) const;
  // Thread-safe.
  bool is_serving() const;
  // See QueueEngine.
  bool IsReadyFor(bool has_id) const;
  Task<absl::Status> WaitUntilReadyFor(bool has_id, Duration timeout) const;
  // Whether it may be appended by this replica, which does not own the log.
  bool HasRoomFor(const AppendSize& append) const;
  AppendRoom& room() const;
  AppendIds& ids() const;
  // OK when a HasRoomFor that was not will do, or this replica owns the log; at most `timeout`. QUEUE_FULL, STORE_FULL,
  // NO_OWNER, ZOOKEEPER_UNAVAILABLE; absl::NotFound when the log is gone.
  Task<absl::Status> WaitForRoom(AppendSize append, Duration timeout) const;
  void SetGone() const;
  Task<std::optional<std::string>> FindOwner(Duration timeout) const;
  Task<void> HandOver(Duration timeout) const;

 private:
  Engine engine_;
};

// SUBSCRIPTION_NOT_FOUND, since this build has none.
absl::Status NoSubscription(const Name& name);

// What an append says when its log was deleted.
bool IsLogGone(const absl::Status& status);

// The engine of a queue that is there; unlike Broker::OpenQueue it never creates one. `name` may be of a subscription,
// which is not found.
Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> OpenExistingQueue(Broker& broker, Name name);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_LOG_HANDLE_H_
