#include "service/log_handle.h"

#include <utility>

#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// Between two looks for room.
constexpr Duration kLookPause = std::chrono::milliseconds(50);
// How long a ZooKeeper that does not answer is waited for.
constexpr Duration kZookeeperPatience = std::chrono::milliseconds(1500);

}  // namespace

absl::Status NoSubscription(const Name& name) {
  return MakeError(
      Reason::kSubscriptionNotFound,
      Cat("there is no ", name.Full(), ": this build serves no subscriptions. Read the topic: postkeeper subscribe ",
          name.Topic().Short()),
      {.resource = name.Full()});
}

bool IsLogGone(const absl::Status& status) {
  return HasReason(status, Reason::kQueueNotFound) || HasReason(status, Reason::kTopicNotFound);
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

std::int64_t LogHandle::epoch() const {
  return std::visit([](const auto& engine) { return engine->epoch(); }, engine_);
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

bool LogHandle::HasRoomFor(const AppendSize& append) const {
  return std::visit([&append](const auto& engine) { return engine->HasRoomFor(append); }, engine_);
}

AppendRoom& LogHandle::room() const {
  return std::visit([](const auto& engine) -> AppendRoom& { return engine->room(); }, engine_);
}

AppendIds& LogHandle::ids() const {
  return std::visit([](const auto& engine) -> AppendIds& { return engine->ids(); }, engine_);
}

const std::string& LogHandle::full_name() const {
  return std::visit([](const auto& engine) -> const std::string& { return engine->full_name(); }, engine_);
}

Task<absl::Status> LogHandle::WaitForRoom(AppendSize append, Duration timeout) const {
  const LogHandle self = *this;
  Environment& environment = self.room().environment();
  const Instant began = environment.Now();
  while (!self.is_serving()) {
    const absl::Status looked = co_await self.room().Look();
    if (absl::IsNotFound(looked)) {
      self.SetGone();
      co_return looked;
    }
    if (self.is_serving() || self.HasRoomFor(append)) break;
    const Duration waited = environment.Now() - began;
    if (!looked.ok() && waited >= kZookeeperPatience) co_return looked;
    if (looked.ok()) {
      absl::Status bounds = self.room().CheckBounds(append, self.full_name());
      if (!bounds.ok()) co_return bounds;
    }
    if (waited >= timeout) {
      co_return MakeError(Reason::kNoOwner, Cat("nobody works for ", self.full_name(), ", which has much to be read"),
                          {.resource = self.full_name()});
    }
    co_await SleepFor(environment, kLookPause);
  }
  co_return absl::OkStatus();
}

void LogHandle::SetGone() const {
  std::visit([](const auto& engine) { engine->SetGone(); }, engine_);
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
