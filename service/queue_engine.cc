#include "service/queue_engine.h"

#include <algorithm>
#include <asio/post.hpp>

#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// A call that finds no owner waits for one.
constexpr Duration kDeleteTimeout = std::chrono::seconds(15);

Backoff BackoffOf(const LogEntry& entry) {
  const QueueSettings& settings = std::get<QueueSettings>(entry.settings);
  return {settings.retry_backoff, settings.retry_backoff_max};
}

}  // namespace

QueueEngine::QueueEngine(EngineContext& context, LogEntry entry, std::string full_name)
    : context_(context),
      full_name_(std::move(full_name)),
      strand_(context.environment.MakeStrand()),
      entry_(std::move(entry)),
      dispatcher_(std::make_unique<Dispatcher>(Dispatcher::Options{.backoff = BackoffOf(entry_)})),
      window_(std::make_shared<IdWindow>(context, entry_.uid, strand_)),
      room_(std::make_shared<AppendRoom>(context, entry_, strand_)),
      tick_(context.environment.MakeTimer(strand_)),
      follow_progress_(context.environment, strand_) {}

QueueEngine::~QueueEngine() { context_.stored_bytes -= stored_bytes_counted_; }

void QueueEngine::Start() {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  metrics_ = context_.metrics.ForQueue(full_name_, [shared = gauges_, &environment = context_.environment] {
    absl::MutexLock lock(&shared->mutex);
    QueueGauges gauges = shared->gauges;
    if (shared->oldest) gauges.oldest_age = environment.Now() - *shared->oldest;
    return gauges;
  });
  reader_ = std::make_shared<LogReader>(context_.environment, context_.client, context_.layout, entry_.uid,
                                        context_.cache, strand_);
  LogAppender::Listener appended;
  appended.on_appended = [weak = weak_from_this(), reader = reader_, room = room_, &metrics = context_.metrics](
                             Position at, std::shared_ptr<const Batch> batch) {
    metrics.logs().BatchWritten(batch->size(), batch->message_bytes());
    room->OnAppended(at, *batch);
    if (const std::shared_ptr<QueueEngine> engine = weak.lock()) engine->OnOwnBatch(at, *batch);
    reader->OnAppended(at, std::move(batch));
  };
  appended.on_appended_somewhere = [reader = reader_, room = room_](std::shared_ptr<const Batch> batch) {
    if (batch) room->OnAppended(std::nullopt, *batch);
    reader->Ring();
  };
  appended.on_idle = [room = room_] { room->Rest(); };
  appender_ = std::make_shared<LogAppender>(
      context_.environment, context_.client, context_.layout, entry_.uid, context_.process,
      [&context = context_] { return ++context.last_generation; }, strand_, context_.append, std::move(appended));
  LogOwnership::Listener ownership;
  ownership.on_taken = [self](OwnerView held) { return self->OnTaken(std::move(held)); };
  ownership.on_retaken = [self](const OwnerView& held) { self->OnRetaken(held); };
  ownership.on_lost = [self](absl::Status why) { self->OnLost(std::move(why)); };
  ownership.on_owned_elsewhere = [self](const std::string& owner) {
    self->TellObservers(owner);
    self->EndConsumers(MakeError(Reason::kNoOwner,
                                 Cat("the replica at ", owner, " works for ", self->full_name_, " now"),
                                 {.resource = self->full_name_}));
  };
  ownership.on_gone = [self] {
    self->EndConsumers(self->NotFound());
    self->TellObservers("");
  };
  ownership_ = std::make_shared<LogOwnership>(context_, entry_.uid, strand_, std::move(ownership));
  ownership_->Start();
}

absl::Status QueueEngine::NotFound() const {
  return MakeError(Reason::kQueueNotFound, Cat("queue ", full_name_, " was deleted"), {.resource = full_name_});
}

// ---- Owning

std::shared_ptr<Cursor> QueueEngine::MakeCursor(const OwnerView& held) {
  Cursor::Listener listener;
  listener.head = [weak = weak_from_this()] {
    const std::shared_ptr<QueueEngine> self = weak.lock();
    return self ? self->CurrentHead() : Cursor::Head{};
  };
  listener.on_lost = [weak = weak_from_this(), reign = reign_](absl::Status why) {
    const std::shared_ptr<QueueEngine> self = weak.lock();
    if (self && self->reign_ == reign) self->ownership_->Lose(std::move(why));
  };
  listener.on_written = [weak = weak_from_this(), reign = reign_](std::size_t, std::size_t deletes) {
    const std::shared_ptr<QueueEngine> self = weak.lock();
    if (self && self->reign_ == reign) self->OnCursorWritten(deletes);
  };
  return std::make_shared<Cursor>(context_.environment, context_.client, context_.layout, entry_.uid, entry_.uid, held,
                                  strand_, std::move(listener));
}

Task<absl::Status> QueueEngine::OnTaken(OwnerView held) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  const Instant taken_at = context_.environment.Now();
  // Another replica may have changed the settings.
  const LogName name = entry_.name;
  absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(name);
  if (!entry.ok() && !absl::IsNotFound(entry.status())) co_return entry.status();
  if (entry.ok() && entry->uid == entry_.uid) SetEntry(*std::move(entry));
  ++reign_;
  first_epoch_ = held.first_epoch;
  first_epoch_before_ = IsMutated(Mutation::kForgetReign) ? held.epoch - 1 : held.first_epoch_before;
  const std::shared_ptr<Cursor> cursor = MakeCursor(held);
  if (absl::Status status = co_await cursor->Load(); !status.ok()) {
    LogError("the cursor of a queue could not be loaded", {{"queue", full_name_}, {"error", status.message()}});
    co_return status;
  }
  const absl::StatusOr<std::uint64_t> first_segment = co_await reader_->FindFirstSegment();
  if (!first_segment.ok()) co_return first_segment.status();
  if (is_closed_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  cursor_ = cursor;
  settled_before_ = Position();
  for (std::uint64_t none = 0; none < Layout::kFirstSegment; ++none) cursor_->settled().LearnSegmentEnd(none, 0);
  first_segment_ = *first_segment;
  dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::Options{.backoff = BackoffOf(entry_)});
  dispatcher_->SetLapseObserver([this](Position position, std::uint32_t number, std::uint64_t) {
    metrics_->Lapsed(1);
    ReturnCredit(position, number);
  });
  stream_leases_.clear();
  adopted_.clear();
  loading_.clear();
  live_batches_ = 0;
  has_reached_tail_ = false;
  enqueued_ = RateMeter();
  of_others_ = {};
  room_->Forget();
  followed_ = std::max(cursor_->settled().watermark(), Position(first_segment_, 0, 0));
  window_->Begin(held, taken_at, reader_, followed_);
  cursor_->CarryIdsTo(window_->store());
  reader_->Ring();  // what it knows of the tail may be older than the reign
  BeginReignOfAnnouncements(held);
  Spawn(strand_, Follow(self, reign_));
  LogInfo("took a queue", {{"queue", full_name_}, {"epoch", held.epoch}});
  co_return absl::OkStatus();
}

void QueueEngine::OnRetaken(const OwnerView& held) {
  cursor_->SetOwner(held);
  window_->SetOwner(held);
  LogInfo("took a queue again under a new session", {{"queue", full_name_}, {"epoch", held.epoch}});
  Dispatch();
}

void QueueEngine::OnLost(absl::Status why) {
  LogWarning("lost a queue", {{"queue", full_name_}, {"why", why.message()}});
  cursor_->Depose();
  LeaveReign();
}

// The memory of this reign is of no use any more.
void QueueEngine::LeaveReign() {
  ++reign_;
  window_->End();
  dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::Options{.backoff = BackoffOf(entry_)});
  announced_.clear();
  unread_.clear();
  unread_messages_ = unread_bytes_ = 0;
  EndConsumersOfReign();
  ForgetGrants();
  reader_->Ring();
  follow_progress_.Notify();
  PublishGauges();
}

Task<absl::Status> QueueEngine::WaitUntilServing(Duration timeout) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  absl::Status status = co_await ownership_->WaitUntilHeld(timeout);
  if (is_deleted_ || absl::IsNotFound(status)) status = NotFound();
  co_return status;
}

Task<absl::Status> QueueEngine::WaitUntilReadyFor(bool has_id, Duration timeout) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (!has_id) co_return co_await WaitUntilServing(timeout);
  absl::Status status = co_await window_->WaitUntilKnown(ownership_, timeout);
  if (is_deleted_ || absl::IsNotFound(status)) status = NotFound();
  co_return status;
}

Cursor::Head QueueEngine::CurrentHead() const {
  const Dispatcher::Counts counts = dispatcher_->counts();
  return {.oldest = cursor_->settled().watermark(),
          .counted = followed_,
          .messages = counts.total(),
          .bytes = counts.bytes,
          .batches = live_batches_};
}

void QueueEngine::OnCursorWritten(std::size_t batches_deleted) {
  live_batches_ = std::max<std::int64_t>(live_batches_ - static_cast<std::int64_t>(batches_deleted), 0);
  settled_before_ = cursor_->settled().watermark();
  if (first_segment_ < settled_before_.segment() && !is_removing_segments_) {
    is_removing_segments_ = true;
    Spawn(strand_, RemoveReadSegments(shared_from_this(), reign_));
  }
}

// Removes the segments before the durable watermark. All their batches are settled, and what settled them has deleted
// them, so they are empty but perhaps for the batch that ends them, which has no ids.
Task<void> QueueEngine::RemoveReadSegments(std::shared_ptr<QueueEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  while (reign == reign_ && first_segment_ < settled_before_.segment()) {
    const std::string segment = context_.layout.Segment(entry_.uid, first_segment_);
    std::vector<zk::Op> ops;
    ops.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), ownership_->held().version));
    ops.push_back(zk::Op::Delete(segment, kSegmentSealed));
    const zk::Response gone = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
    if (reign != reign_) break;
    if (gone.code == zk::Code::kOk || gone.code == zk::Code::kNoNode) {
      ++first_segment_;
      continue;
    }
    if (gone.code != zk::Code::kNotEmpty) break;  // the next write of the cursor tries again
    const zk::Response left = co_await context_.client.Children(segment);
    if (reign != reign_ || left.code != zk::Code::kOk) break;
    std::vector<zk::Op> deletes;
    deletes.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), ownership_->held().version));
    for (const std::string& name : left.children) {
      if (deletes.size() <= Cursor::kDeletesMax) deletes.push_back(zk::Op::Delete(Cat(segment, "/", name)));
    }
    const zk::Response emptied = co_await context_.client.Multi(std::move(deletes), zk::Priority::kSettle);
    if (emptied.code != zk::Code::kOk) break;
  }
  is_removing_segments_ = false;
}

// ---- Messages in

// It counts for the queue's bounds although it is not followed yet.
void QueueEngine::OnOwnBatch(Position at, const Batch& batch) {
  if (!is_serving() || at < followed_) return;
  unread_.push_back({at, batch.size(), static_cast<std::int64_t>(batch.message_bytes())});
  unread_messages_ += unread_.back().messages;
  unread_bytes_ += unread_.back().bytes;
}

void QueueEngine::ForgetUnread(Position before) {
  while (!unread_.empty() && unread_.front().at < before) {
    unread_messages_ -= unread_.front().messages;
    unread_bytes_ -= unread_.front().bytes;
    unread_.pop_front();
  }
}

absl::Status QueueEngine::CheckRoom(const AppendSize& append) const {
  const Dispatcher::Counts counts = dispatcher_->counts();
  const AppendRoom::Amount live{counts.total() + unread_messages_ + appending_messages_,
                                counts.bytes + unread_bytes_ + appending_bytes_,
                                live_batches_ + static_cast<std::int64_t>(unread_.size())};
  absl::Status room =
      AppendRoom::CheckQueueBounds(live, append, std::get<QueueSettings>(entry_.settings), context_.limits, full_name_);
  if (!room.ok()) return room;
  return AppendRoom::CheckStoreBound(context_.stored_bytes + appending_bytes_ + append.bytes, context_.limits,
                                     full_name_);
}

void QueueEngine::Enqueue(CheckedAppend append, LogAppender::Done done) {
  if (is_draining_) return done(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
  if (IsReadyFor(append.has_id()) || HasRoomFor(SizeOf(append))) return EnqueueNow(std::move(append), std::move(done));
  // Calls that wait are woken in the order in which they came.
  auto wait = [](std::shared_ptr<QueueEngine> self, CheckedAppend waiting, LogAppender::Done answer) -> Task<void> {
    const bool has_id = waiting.has_id();
    const absl::Status status = co_await self->WaitUntilReadyFor(has_id, kOwnerPatience);
    if (status.ok()) {
      self->EnqueueNow(std::move(waiting), std::move(answer));
    } else {
      answer(status);
    }
  };
  Spawn(strand_, wait(shared_from_this(), std::move(append), std::move(done)));
}

bool QueueEngine::HasRoomFor(const AppendSize& append) { return !is_serving() && !is_gone() && room_->Fits(append); }

// Either this replica owns the log, or it is known that there is room.
void QueueEngine::EnqueueNow(CheckedAppend append, LogAppender::Done done) {
  std::shared_ptr<const AppendIds::Held> ids;
  if (append.has_id()) {
    ids = window_->Enter(append, done, full_name_,
                         [self = shared_from_this()](CheckedAppend waited, LogAppender::Done answer) {
                           self->Enqueue(std::move(waited), std::move(answer));
                         });
    if (!ids) return;
  }
  const auto messages = static_cast<std::int64_t>(append.messages.size());
  const std::int64_t bytes = append.message_bytes;
  const bool is_owner = is_serving();
  if (absl::Status room = is_owner ? CheckRoom({messages, bytes}) : absl::OkStatus(); !room.ok()) {
    if (ids) window_->ids().Finish(*ids, room);
    return done(room);
  }
  if (!is_owner) room_->Begin({messages, bytes});
  appending_messages_ += messages;
  appending_bytes_ += bytes;
  auto answered = [self = shared_from_this(), ids, is_owner, messages, bytes, is_first = true,
                   done = std::move(done)](absl::StatusOr<Appended> outcome) mutable {
    if (is_first && !is_owner) self->room_->End({messages, bytes});
    if (is_first) {
      self->appending_messages_ -= messages;
      self->appending_bytes_ -= bytes;
    }
    if (HasReason(outcome.status(), Reason::kQueueNotFound)) {
      outcome = self->NotFound();
      self->ownership_->SetGone();
    }
    if (HasReason(outcome.status(), Reason::kNoOwner)) self->ownership_->Doubt();
    if (outcome.ok()) self->metrics_->Enqueued(messages, bytes);
    if (ids) self->window_->ids().Finish(*ids, outcome);
    if (std::exchange(is_first, false)) done(std::move(outcome));
  };
  const std::optional<std::int32_t> fence = ids ? std::optional(ownership_->held().version) : std::nullopt;
  appender_->Append(std::move(append.messages), std::move(append.request_id), fence, std::move(answered),
                    ids ? ids->duplicates : nullptr);
}

// ---- Administration

void QueueEngine::SetEntry(LogEntry entry) {
  entry_ = std::move(entry);
  dispatcher_->SetBackoff(BackoffOf(entry_));
}

Task<absl::StatusOr<QueueEngine::Stats>> QueueEngine::GetStats() {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  if (absl::Status status = co_await WaitUntilCaughtUp(); !status.ok()) co_return status;
  const Instant now = context_.environment.Now();
  dispatcher_->Advance(now);
  Stats stats;
  stats.counts = dispatcher_->counts();
  stats.consumers = static_cast<std::int64_t>(consumers_.size());
  if (std::optional<Instant> oldest = dispatcher_->OldestEnqueued()) stats.oldest_age = now - *oldest;
  stats.enqueue_rate = enqueued_.PerSecond(now);
  stats.settle_rate = settled_.PerSecond(now);
  co_return stats;
}

Dispatcher::Counts QueueEngine::CountsRead() {
  dispatcher_->Advance(context_.environment.Now());
  return dispatcher_->counts();
}

Task<absl::StatusOr<std::int64_t>> QueueEngine::Purge(bool leased_too) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  if (absl::Status status = co_await WaitUntilCaughtUp(); !status.ok()) co_return status;
  const std::vector<Position> purged = dispatcher_->Purge(leased_too, context_.environment.Now());
  std::vector<Cursor::Change> changes;
  changes.reserve(purged.size());
  for (Position position : purged) changes.push_back({position, std::nullopt});
  if (leased_too) {
    for (const auto& [position, lease] : absl::flat_hash_map<Position, StreamLease>(stream_leases_)) {
      if (!dispatcher_->Contains(position)) ReturnCredit(position, lease.number);
    }
  }
  if (absl::Status status = co_await cursor_->WriteAndWait(std::move(changes)); !status.ok()) co_return status;
  metrics_->Purged(static_cast<std::int64_t>(purged.size()));
  PublishGauges();
  co_return static_cast<std::int64_t>(purged.size());
}

Task<absl::Status> QueueEngine::Delete() {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  const std::int64_t messages = dispatcher_->counts().total();
  LogEntry entry = entry_;
  OwnerView held = ownership_->held();
  if (absl::Status status = co_await context_.catalog.Delete(std::move(entry), std::move(held)); !status.ok()) {
    co_return status;
  }
  metrics_->Deleted(messages);
  is_closed_ = true;
  is_deleted_ = true;
  EndConsumers(NotFound());
  TellObservers("");
  ++reign_;
  cursor_->Abandon();
  window_->End();
  ownership_->Stop();
  reader_->Ring();
  tick_->Cancel();
  co_await appender_->Stop(kDeleteTimeout);
  co_return absl::OkStatus();
}

void QueueEngine::Drain() {
  is_draining_ = true;
  for (auto& [id, consumer] : consumers_) {
    if (consumer.is_one_shot && consumer.callbacks.on_end) {
      consumer.callbacks.on_end(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
    }
  }
}

// Consumers live on when the log is lost. What they held is void: its credit comes back, and calls that were about to
// get messages get none.
void QueueEngine::ForgetGrants() {
  for (const auto& [position, lease] : std::exchange(stream_leases_, {})) {
    AddBack(lease.consumer, lease.bytes);
  }
  for (const Loading& loading : std::exchange(loading_, {})) ReturnManualCredit(loading);
  for (auto& [id, consumer] : consumers_) {
    if (consumer.is_one_shot && consumer.credit.messages == 0) consumer.callbacks.on_deliveries({}, consumer.lease);
  }
}

void QueueEngine::EndConsumers(const absl::Status& why) {
  std::vector<std::function<void(absl::Status)>> ends;
  for (auto& [id, consumer] : consumers_) {
    if (consumer.callbacks.on_end) ends.push_back(std::move(consumer.callbacks.on_end));
  }
  consumers_.clear();
  turn_.clear();
  stream_leases_.clear();
  announced_.clear();
  PublishGauges();
  for (const auto& end : ends) end(why);
}

std::vector<Cursor::HandedOverLease> QueueEngine::LeasesToHandOver() const {
  const Instant now = context_.environment.Now();
  std::vector<Cursor::HandedOverLease> leases;
  for (const Dispatcher::Grant& lease : dispatcher_->Leases(Cursor::kHandedOverLeasesMax)) {
    const auto adopted = adopted_.find(lease.position);
    const bool is_adopted = adopted != adopted_.end() && adopted->second.number == lease.number;
    leases.push_back({lease.position, lease.number, std::max<Duration>(lease.deadline - now, Duration::zero()),
                      is_adopted ? adopted->second.epochs : Reign()});
  }
  // Their messages have not been read again yet.
  leases.insert(leases.end(), handed_over_.begin(), handed_over_.end());
  for (const auto& [position, announced] : announced_) {
    const auto epoch = static_cast<std::int64_t>(announced.token.epoch);
    const bool counts = announced.token.source == entry_.uid && epoch < first_epoch_ && announced.deadline > now &&
                        CountsFromEarlierEpoch(announced.token);
    if (!counts || leases.size() >= Cursor::kHandedOverLeasesMax) continue;
    leases.push_back({position, announced.token.number, announced.deadline - now, {epoch, epoch}});
  }
  return leases;
}

Task<void> QueueEngine::HandOver(Duration timeout) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (is_draining_ || !ownership_->is_held()) co_return;
  // Nobody has seen what was about to be given out.
  for (const Loading& loading : std::exchange(loading_, {})) TakeBack(loading);
  std::vector<Cursor::HandedOverLease> leases = LeasesToHandOver();
  PrepareToLetGo();
  ownership_->BeginHandOver();
  ++reign_;
  const absl::Status given = co_await cursor_->LetGo(std::move(leases), timeout);
  LeaveReign();
  ownership_->EndHandOver();
  if (given.ok()) {
    context_.metrics.ownership().HandedOver();
    LogInfo("handed a queue over", {{"queue", full_name_}});
  } else {
    LogWarning("could not hand a queue over", {{"queue", full_name_}, {"why", given.message()}});
  }
}

Task<void> QueueEngine::Close(Duration timeout) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  Drain();
  const Instant deadline = context_.environment.Now() + timeout;
  co_await appender_->Stop(timeout);
  tick_->Cancel();
  is_closed_ = true;
  if (ownership_->is_held()) {
    const Instant now = context_.environment.Now();
    std::vector<Cursor::HandedOverLease> leases = LeasesToHandOver();
    PrepareToLetGo();
    ownership_->Stop();
    ++reign_;
    const absl::Status given =
        co_await cursor_->LetGo(std::move(leases), std::max<Duration>(deadline - now, Duration::zero()));
    if (given.ok()) context_.metrics.ownership().HandedOver();
    if (!given.ok()) LogWarning("could not give a queue back", {{"queue", full_name_}, {"why", given.message()}});
  }
  window_->End();
  ownership_->Stop();
  reader_->Ring();
  EndConsumers(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
}

void QueueEngine::PublishGauges() {
  const Dispatcher::Counts counts = dispatcher_->counts();
  context_.stored_bytes += counts.bytes - stored_bytes_counted_;
  stored_bytes_counted_ = counts.bytes;
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges.ready = counts.ready;
  gauges_->gauges.delayed = counts.delayed;
  gauges_->gauges.leased = counts.leased;
  gauges_->gauges.bytes = counts.bytes;
  gauges_->gauges.consumers = static_cast<std::int64_t>(consumers_.size());
  gauges_->gauges.consumers_with_credit = static_cast<std::int64_t>(turn_.size());
  gauges_->oldest = dispatcher_->OldestEnqueued();
}

}  // namespace postkeeper
