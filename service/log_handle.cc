#include "service/log_handle.h"

#include <utility>

#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {

absl::Status NoSubscription(const Name& name) {
  return MakeError(
      Reason::kSubscriptionNotFound,
      Cat("there is no ", name.Full(), ": this build serves no subscriptions. Read the topic: postkeeper subscribe ",
          name.Topic().Short()),
      {.resource = name.Full()});
}

std::optional<LogHandle> LogHandle::Find(const Broker& broker, const Name& name) {
  if (name.kind == Name::Kind::kQueue) {
    if (std::shared_ptr<QueueEngine> queue = broker.FindQueue(name)) return LogHandle(std::move(queue));
  } else if (name.kind == Name::Kind::kTopic) {
    if (std::shared_ptr<TopicEngine> topic = broker.FindTopic(name)) return LogHandle(std::move(topic));
  }
  return std::nullopt;
}

Task<absl::StatusOr<LogHandle>> LogHandle::Open(Broker& broker, Name name) {
  if (name.kind == Name::Kind::kQueue) {
    absl::StatusOr<std::shared_ptr<QueueEngine>> queue = co_await broker.OpenQueue(std::move(name));
    if (!queue.ok()) co_return queue.status();
    co_return LogHandle(*std::move(queue));
  }
  absl::StatusOr<std::shared_ptr<TopicEngine>> topic = co_await broker.OpenTopic(std::move(name));
  if (!topic.ok()) co_return topic.status();
  co_return LogHandle(*std::move(topic));
}

asio::any_io_executor LogHandle::strand() const {
  return std::visit([](const auto& engine) { return engine->strand(); }, engine_);
}

const Uid& LogHandle::uid() const {
  return std::visit([](const auto& engine) -> const Uid& { return engine->uid(); }, engine_);
}

Task<void> LogHandle::HandOver(Duration timeout) const {
  return std::visit([timeout](const auto& engine) { return engine->HandOver(timeout); }, engine_);
}

void LogHandle::Append(CheckedAppend append, LogAppender::Done done) const {
  if (const auto* queue = std::get_if<std::shared_ptr<QueueEngine>>(&engine_)) {
    (*queue)->Enqueue(std::move(append), std::move(done));
  } else {
    std::get<std::shared_ptr<TopicEngine>>(engine_)->Publish(std::move(append), std::move(done));
  }
}

bool LogHandle::is_serving() const {
  return std::visit([](const auto& engine) { return engine->is_serving(); }, engine_);
}

bool LogHandle::IsReadyFor(bool has_id) const {
  return std::visit([has_id](const auto& engine) { return engine->IsReadyFor(has_id); }, engine_);
}

Task<absl::Status> LogHandle::WaitUntilReadyFor(bool has_id, Duration timeout) const {
  return std::visit([has_id, timeout](const auto& engine) { return engine->WaitUntilReadyFor(has_id, timeout); },
                    engine_);
}

Task<std::optional<std::string>> LogHandle::FindOwner(Duration timeout) const {
  return std::visit([timeout](const auto& engine) { return engine->FindOwner(timeout); }, engine_);
}

Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> OpenExistingQueue(Broker& broker, Name name) {
  if (name.kind != Name::Kind::kQueue) co_return NoSubscription(name);
  if (std::shared_ptr<QueueEngine> queue = broker.FindQueue(name)) co_return queue;
  const Name asked = name;
  const absl::StatusOr<LogEntry> entry = co_await broker.Get(std::move(name));
  if (!entry.ok()) co_return entry.status();
  co_return co_await broker.OpenQueue(asked);
}

}  // namespace postkeeper
