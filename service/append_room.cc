#include "service/append_room.h"

#include <algorithm>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// A topic trims instead of refusing: a small one need not ask its owner for every message.
constexpr std::int64_t kTopicMessages = 4096;
constexpr std::int64_t kTopicBytes = 4 << 20;

}  // namespace

AppendSize SizeOf(const CheckedAppend& append) {
  return {static_cast<std::int64_t>(append.messages.size()), append.message_bytes, append.has_id()};
}

AppendRoom::Amount& AppendRoom::Amount::operator+=(const Amount& other) {
  messages += other.messages;
  bytes += other.bytes;
  batches += other.batches;
  return *this;
}

AppendRoom::Amount& AppendRoom::Amount::operator-=(const Amount& other) {
  messages -= other.messages;
  bytes -= other.bytes;
  batches -= other.batches;
  return *this;
}

bool AppendRoom::Amount::IsWithin(const Amount& bound) const {
  return messages <= bound.messages && bytes <= bound.bytes && batches <= bound.batches;
}

AppendRoom::AppendRoom(EngineContext& context, const LogEntry& entry, asio::any_io_executor strand)
    : context_(context),
      name_(entry.name),
      log_(entry.uid),
      strand_(strand),
      settings_(entry.settings),
      looked_(context.environment, strand) {}

AppendRoom::~AppendRoom() { context_.foreign_bytes -= bytes_in_context_; }

AppendRoom::Amount AppendRoom::AllowanceOf(const LogSettings& settings, const EngineLimits& limits) {
  const std::int64_t batches = limits.live_batches_max / kPart;
  if (const QueueSettings* queue = std::get_if<QueueSettings>(&settings)) {
    return {queue->max_messages / kPart, queue->max_bytes / kPart, batches};
  }
  const TopicSettings& topic = std::get<TopicSettings>(settings);
  return {std::max(topic.max_messages / kPart, kTopicMessages), std::max(topic.max_bytes / kPart, kTopicBytes),
          batches};
}

absl::Status AppendRoom::CheckQueueBounds(const Amount& live, const AppendSize& append, const QueueSettings& settings,
                                          const EngineLimits& limits, const std::string& full_name) {
  const std::int64_t messages_then = live.messages + append.messages;
  if (messages_then > settings.max_messages) {
    return MakeError(Reason::kQueueFull,
                     Cat("queue ", full_name, " is full: its max_messages is ", settings.max_messages),
                     {.resource = full_name, .limit = settings.max_messages, .actual = messages_then});
  }
  const std::int64_t bytes_then = live.bytes + append.bytes;
  if (bytes_then > settings.max_bytes) {
    return MakeError(Reason::kQueueFull, Cat("queue ", full_name, " is full: its max_bytes is ", settings.max_bytes),
                     {.resource = full_name, .limit = settings.max_bytes, .actual = bytes_then});
  }
  if (live.batches >= limits.live_batches_max) {
    return MakeError(Reason::kQueueFull,
                     Cat("queue ", full_name, " is full: it has ", live.batches,
                         " batches. Put more messages into each Enqueue, or use EnqueueStream"),
                     {.resource = full_name, .limit = limits.live_batches_max, .actual = live.batches});
  }
  return absl::OkStatus();
}

absl::Status AppendRoom::CheckStoreBound(std::int64_t bytes_then, const EngineLimits& limits,
                                         const std::string& full_name) {
  if (bytes_then <= limits.stored_bytes_max) return absl::OkStatus();
  return MakeError(Reason::kStoreFull, Cat("all queues and topics together hold ", bytes_then, " bytes"),
                   {.resource = full_name, .limit = limits.stored_bytes_max, .actual = bytes_then});
}

bool AppendRoom::IsHeadDue(const Amount& of_others, const LogSettings& settings, const EngineLimits& limits) {
  Amount quarter = AllowanceOf(settings, limits);
  quarter = {quarter.messages / 4, quarter.bytes / 4, quarter.batches / 4};
  return !of_others.IsWithin(quarter);
}

bool AppendRoom::IsOlderThan(Duration age) const {
  return !looked_at_ || context_.environment.Now() - *looked_at_ > age;
}

bool AppendRoom::Fits(const AppendSize& append) {
  if (append.has_id || IsOlderThan(kAgeMax)) return false;
  Amount unseen = unseen_sum_;
  unseen += in_flight_;
  unseen += {append.messages, append.bytes, 1};
  const bool is_much = unseen.messages > allowance_.messages / 4 || unseen.bytes > allowance_.bytes / 4 ||
                       unseen.batches > allowance_.batches / 4;
  if (!is_looking_ && IsOlderThan(is_much ? kLookSoonerAfter : kLookAgainAfter)) {
    auto look = [](std::shared_ptr<AppendRoom> self) -> Task<void> { (void)co_await self->Look(); };
    Spawn(strand_, look(shared_from_this()));
  }
  if (!unseen.IsWithin(allowance_)) return false;
  if (context_.stored_bytes + context_.foreign_bytes + in_flight_.bytes + append.bytes >
      context_.limits.stored_bytes_max) {
    return false;
  }
  const QueueSettings* queue = std::get_if<QueueSettings>(&settings_);
  if (queue == nullptr) return true;
  unseen += live_;
  return unseen.IsWithin({queue->max_messages, queue->max_bytes, context_.limits.live_batches_max});
}

absl::Status AppendRoom::CheckBounds(const AppendSize& append, const std::string& full_name) const {
  Amount then = live_;
  then += unseen_sum_;
  then += in_flight_;
  if (const QueueSettings* queue = std::get_if<QueueSettings>(&settings_)) {
    absl::Status room = CheckQueueBounds(then, append, *queue, context_.limits, full_name);
    if (!room.ok()) return room;
  }
  return CheckStoreBound(context_.stored_bytes + context_.foreign_bytes + in_flight_.bytes + append.bytes,
                         context_.limits, full_name);
}

bool AppendRoom::SuitsStreams() const {
  if (!looked_at_) return false;
  const RequestLimits& largest = context_.limits.requests;
  return Amount{2 * largest.request_messages_max, 2 * largest.request_bytes_max, 1}.IsWithin(allowance_);
}

Task<absl::Status> AppendRoom::LookIfNeeded(AppendSize append) {
  const std::shared_ptr<AppendRoom> self = shared_from_this();
  const bool is_hopeless = !Amount{append.messages, append.bytes, 1}.IsWithin(allowance_);
  if (!IsOlderThan(is_hopeless ? kAgeMax : kLookSoonerAfter)) co_return absl::OkStatus();
  co_return co_await Look();
}

Task<absl::Status> AppendRoom::Look() {
  const std::shared_ptr<AppendRoom> self = shared_from_this();
  if (is_looking_) {
    while (is_looking_) co_await looked_.WaitFor(zk::kRequestTimeout);
    co_return look_status_;
  }
  is_looking_ = true;
  look_status_ = co_await LookOnce();
  is_looking_ = false;
  looked_.Notify();
  co_return look_status_;
}

Task<absl::Status> AppendRoom::LookOnce() {
  const Instant began = context_.environment.Now();
  const std::uint64_t times_forgotten = times_forgotten_;
  const LogName name = name_;
  const absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(name);
  if (absl::IsNotFound(entry.status()) || (entry.ok() && entry->uid != log_)) {
    co_return absl::NotFoundError("the log is gone");
  }
  if (!entry.ok()) co_return entry.status();
  const zk::Response head = co_await context_.client.Get(context_.layout.Head(log_));
  if (head.code == zk::Code::kNoNode) co_return absl::NotFoundError("the log is gone");
  if (head.code != zk::Code::kOk) co_return UnavailableError(head, "tell how much is in the log");
  storage::v1::HeadRecord record;
  if (!record.ParseFromString(head.data)) {
    co_return MakeError(Reason::kStoreCorrupt, "the head record cannot be read", {.path = context_.layout.Head(log_)});
  }
  // This replica owns it now, or did.
  if (times_forgotten != times_forgotten_) co_return absl::OkStatus();
  settings_ = entry->settings;
  allowance_ = AllowanceOf(settings_, context_.limits);
  Learn(Position::FromValue(record.counted_position()),
        {record.live_messages(), record.live_bytes(), record.live_batches()});
  looked_at_ = began;
  CountBytes();
  co_return absl::OkStatus();
}

void AppendRoom::Learn(Position counted, const Amount& live) {
  if (counted < counted_) return;
  counted_ = counted;
  live_ = live;
  while (!unseen_.empty() && unseen_.front().at && *unseen_.front().at < counted) {
    unseen_sum_ -= unseen_.front().amount;
    unseen_.pop_front();
  }
  CountBytes();
}

void AppendRoom::Begin(const AppendSize& append) { in_flight_ += {append.messages, append.bytes, 0}; }

void AppendRoom::End(const AppendSize& append) { in_flight_ -= {append.messages, append.bytes, 0}; }

void AppendRoom::OnAppended(std::optional<Position> at, const Batch& batch) {
  if (!looked_at_) return;
  if (at && *at < counted_) return;
  const Amount amount{batch.size(), batch.message_bytes(), 1};
  if (at) {
    for (auto unplaced = unseen_.rbegin(); unplaced != unseen_.rend() && !unplaced->at; ++unplaced) unplaced->at = at;
  }
  unseen_.push_back({at, amount});
  unseen_sum_ += amount;
  CountBytes();
}

void AppendRoom::CountBytes() {
  const std::int64_t bytes = looked_at_ ? live_.bytes + unseen_sum_.bytes : 0;
  context_.foreign_bytes += bytes - bytes_in_context_;
  bytes_in_context_ = bytes;
}

void AppendRoom::Rest() {
  looked_at_.reset();
  CountBytes();
}

void AppendRoom::Forget() {
  ++times_forgotten_;
  looked_at_.reset();
  unseen_.clear();
  unseen_sum_ = {};
  live_ = {};
  counted_ = Position();
  CountBytes();
}

}  // namespace postkeeper
