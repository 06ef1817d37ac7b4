#include "service/topic_engine.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(100);
constexpr Duration kDeleteTimeout = std::chrono::seconds(15);

Position Before(Position position) { return Position::FromValue(position.value() - 1); }

}  // namespace

TopicEngine::TopicEngine(EngineContext& context, LogEntry entry, std::string full_name)
    : context_(context),
      full_name_(std::move(full_name)),
      strand_(context.environment.MakeStrand()),
      entry_(std::move(entry)),
      window_(std::make_shared<IdWindow>(context, entry_.uid, strand_)),
      room_(std::make_shared<AppendRoom>(context, entry_, strand_)),
      grown_(context.environment, strand_),
      trim_(context.environment, strand_) {}

TopicEngine::~TopicEngine() { context_.stored_bytes -= stored_bytes_counted_; }

void TopicEngine::Start() {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  metrics_ = context_.metrics.ForTopic(full_name_, [shared = gauges_] {
    absl::MutexLock lock(&shared->mutex);
    return shared->gauges;
  });
  reader_ = std::make_shared<LogReader>(context_.environment, context_.client, context_.layout, entry_.uid,
                                        context_.cache, strand_);
  LogAppender::Listener appended;
  appended.on_appended = [reader = reader_, room = room_, &metrics = context_.metrics](
                             Position at, std::shared_ptr<const Batch> batch) {
    metrics.logs().BatchWritten(batch->size(), batch->message_bytes());
    room->OnAppended(at, *batch);
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
  ownership.on_retaken = [self](const OwnerView& held) { self->window_->SetOwner(held); };
  ownership.on_lost = [self](absl::Status why) { self->OnLost(std::move(why)); };
  const auto wake_readers = [self] {
    ++self->growth_;
    self->grown_.Notify();
  };
  ownership.on_owned_elsewhere = [wake_readers](const std::string&) { wake_readers(); };
  ownership.on_gone = wake_readers;
  ownership_ = std::make_shared<LogOwnership>(context_, entry_.uid, strand_, std::move(ownership));
  ownership_->Start();
}

absl::Status TopicEngine::NotFound() const {
  return MakeError(Reason::kTopicNotFound, Cat("topic ", full_name_, " was deleted"), {.resource = full_name_});
}

// ---- Owning and following

Task<absl::Status> TopicEngine::OnTaken(OwnerView held) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  const Instant taken_at = context_.environment.Now();
  // Another replica may have changed the settings.
  const LogName name = entry_.name;
  absl::StatusOr<LogEntry> entry = co_await context_.catalog.Get(name);
  if (!entry.ok() && !absl::IsNotFound(entry.status())) co_return entry.status();
  if (entry.ok() && entry->uid == entry_.uid) SetEntry(*std::move(entry));
  const absl::StatusOr<std::uint64_t> first = co_await reader_->FindFirstSegment();
  if (!first.ok()) co_return first.status();
  const absl::StatusOr<Position> head = co_await ReadHead();
  if (!head.ok()) co_return head.status();
  if (is_closed_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  ++reign_;
  first_segment_ = *first;
  kept_.clear();
  messages_ = 0;
  bytes_ = 0;
  trimming_to_ = Position();
  has_reached_tail_ = false;
  of_others_ = {};
  room_->Forget();
  SetBeginning(*head, first_segment_);
  followed_ = oldest_;
  last_message_ = Before(kept_from_);
  window_->Begin(held, taken_at, reader_, followed_);
  reader_->Ring();  // what it knows of the tail may be older than the reign
  Spawn(strand_, Follow(self, reign_));
  Spawn(strand_, TrimFromTimeToTime(self, reign_));
  LogInfo("took a topic", {{"topic", full_name_}, {"epoch", held.epoch}});
  co_return absl::OkStatus();
}

// The head record's oldest position: nothing from it on was trimmed.
Task<absl::StatusOr<Position>> TopicEngine::ReadHead() {
  const std::string path = context_.layout.Head(entry_.uid);
  const zk::Response head = co_await context_.client.Get(path);
  if (head.code != zk::Code::kOk) co_return UnavailableError(head, "tell where the topic begins");
  storage::v1::HeadRecord record;
  if (!record.ParseFromString(head.data)) {
    co_return MakeError(Reason::kStoreCorrupt, "the head record cannot be read", {.path = path});
  }
  co_return Position::FromValue(record.oldest_position());
}

// A segment goes only when the head is in a later one, or behind its last message.
void TopicEngine::SetBeginning(Position kept_from, std::uint64_t first_segment) {
  const Position first(first_segment, 0, 0);
  kept_from_ = kept_from.segment() + 1 >= first_segment ? kept_from : first;
  oldest_ = std::max(first, kept_from_.BatchStart());
}

// Nothing is kept yet, and the first batch is not there. The head stands behind its last message, since both went in
// one write; anything else is damage, and whoever stands before it is told that messages are missing. Unless this
// replica was deposed, and the new owner has trimmed.
Task<absl::Status> TopicEngine::StepOverHole(Position hole, Position next) {
  if (kept_from_ <= hole) {
    const std::uint64_t reign = reign_;
    if (absl::Status status = co_await ownership_->Confirm(); !status.ok()) co_return status;
    if (reign != reign_) co_return absl::OkStatus();
  }
  oldest_ = next;
  if (kept_from_ > hole) co_return absl::OkStatus();
  ++context_.corruptions;
  LogError("a batch is missing although nothing says that it was trimmed",
           {{"topic", full_name_}, {"position", hole.DebugString()}});
  kept_from_ = next;
  co_return absl::OkStatus();
}

void TopicEngine::OnLost(absl::Status why) {
  LogWarning("lost a topic", {{"topic", full_name_}, {"why", why.message()}});
  LeaveReign();
}

void TopicEngine::LeaveReign() {
  ++reign_;
  ++growth_;
  window_->End();
  reader_->Ring();
  grown_.Notify();
  trim_.Notify();
  // The next owner counts them; what is known of them here may still be needed for letting go.
  context_.stored_bytes -= std::exchange(stored_bytes_counted_, 0);
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges.messages = 0;
  gauges_->gauges.bytes = 0;
}

Task<absl::Status> TopicEngine::WaitUntilReadyFor(bool has_id, Duration timeout) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  if (!has_id) co_return co_await WaitUntilServing(timeout);
  absl::Status status = co_await window_->WaitUntilKnown(ownership_, timeout);
  if (is_deleted_ || absl::IsNotFound(status)) status = NotFound();
  co_return status;
}

Task<absl::Status> TopicEngine::WaitUntilServing(Duration timeout) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  absl::Status status = co_await ownership_->WaitUntilHeld(timeout);
  if (is_deleted_ || absl::IsNotFound(status)) status = NotFound();
  co_return status;
}

Task<void> TopicEngine::Follow(std::shared_ptr<TopicEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  while (reign == reign_) {
    const absl::Status status = co_await FollowOneStep(reign);
    if (reign != reign_) co_return;
    window_->OnFollowed(followed_);
    ++growth_;
    grown_.Notify();
    if (status.ok()) continue;
    LogWarning("could not read a topic's log", {{"topic", full_name_}, {"error", status.message()}});
    co_await SleepFor(context_.environment, kRetryPause);
  }
}

Task<absl::Status> TopicEngine::FollowOneStep(std::uint64_t reign) {
  const Position at = followed_;
  const absl::StatusOr<LogReader::Step> step = co_await reader_->Read(at);
  if (reign != reign_) co_return absl::OkStatus();
  if (HasReason(step.status(), Reason::kStoreCorrupt)) {
    ++context_.corruptions;
    LogError("a batch is damaged; subscribers cannot read past it",
             {{"topic", full_name_}, {"position", at.DebugString()}, {"error", step.status().message()}});
    kept_.push_back({at, 0, 0, std::nullopt});
    followed_ = at.NextBatch();
    co_return absl::OkStatus();
  }
  if (!step.ok()) co_return step.status();
  switch (step->kind) {
    case LogReader::Step::Kind::kBatch:
      AddBatch(at, *step->batch);
      followed_ = step->next;
      break;
    case LogReader::Step::Kind::kHole:
      if (kept_.empty()) {
        if (absl::Status status = co_await StepOverHole(at, step->next); !status.ok()) co_return status;
        if (reign != reign_) co_return absl::OkStatus();
      }
      followed_ = step->next;
      break;
    case LogReader::Step::Kind::kNextSegment:
      followed_ = step->next;
      break;
    case LogReader::Step::Kind::kSegmentGone: {
      const absl::StatusOr<std::uint64_t> first = co_await reader_->FindFirstSegment();
      if (reign != reign_) co_return absl::OkStatus();
      if (!first.ok()) co_return first.status();
      if (kept_.empty() && *first > oldest_.segment()) {
        // Perhaps a new owner has trimmed, of which this one does not know yet.
        const absl::StatusOr<Position> head = co_await ReadHead();
        if (reign != reign_) co_return absl::OkStatus();
        if (!head.ok()) co_return head.status();
        SetBeginning(std::max(kept_from_, *head), *first);
      }
      followed_ = std::max(followed_, Position(*first, 0, 0));
      break;
    }
    case LogReader::Step::Kind::kAtTail:
      has_reached_tail_ = true;
      ++growth_;
      grown_.Notify();
      PublishGauges();
      WriteHeadIfDue();
      co_await reader_->WaitAtTail(at);
      break;
  }
  co_return absl::OkStatus();
}

void TopicEngine::AddBatch(Position at, const Batch& batch) {
  if (batch.ends_segment()) return;  // goes with its segment
  window_->OnRead(at, batch);
  kept_.push_back({at, batch.size(), batch.message_bytes(), std::nullopt});
  messages_ += batch.size();
  bytes_ += batch.message_bytes();
  if (batch.writer().process != context_.process) {
    of_others_ += {batch.size(), batch.message_bytes(), 1};
    if (has_reached_tail_) WriteHeadIfDue();
  }
  last_message_ = Position(at.segment(), at.batch(), static_cast<std::uint32_t>(batch.size() - 1));
  const TopicSettings& settings = std::get<TopicSettings>(entry_.settings);
  if (messages_ > settings.max_messages || bytes_ > settings.max_bytes) trim_.Notify();
  PublishGauges();
}

// ---- Messages in

bool TopicEngine::HasRoomFor(const AppendSize& append) { return !is_serving() && !is_gone() && room_->Fits(append); }

void TopicEngine::Publish(CheckedAppend append, LogAppender::Done done) {
  if (is_draining_) return done(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
  if (IsReadyFor(append.has_id()) || HasRoomFor(SizeOf(append))) return PublishNow(std::move(append), std::move(done));
  auto wait = [](std::shared_ptr<TopicEngine> self, CheckedAppend waiting, LogAppender::Done answer) -> Task<void> {
    const bool has_id = waiting.has_id();
    const absl::Status status = co_await self->WaitUntilReadyFor(has_id, kOwnerPatience);
    if (status.ok()) {
      self->PublishNow(std::move(waiting), std::move(answer));
    } else {
      answer(status);
    }
  };
  Spawn(strand_, wait(shared_from_this(), std::move(append), std::move(done)));
}

// Either this replica owns the log, or it is known that there is room.
void TopicEngine::PublishNow(CheckedAppend append, LogAppender::Done done) {
  std::shared_ptr<const AppendIds::Held> ids;
  if (append.has_id()) {
    ids = window_->Enter(append, done, full_name_,
                         [self = shared_from_this()](CheckedAppend waited, LogAppender::Done answer) {
                           self->Publish(std::move(waited), std::move(answer));
                         });
    if (!ids) return;
  }
  const auto messages = static_cast<std::int64_t>(append.messages.size());
  const std::int64_t bytes = append.message_bytes;
  const bool is_owner = is_serving();
  if (const absl::Status full = AppendRoom::CheckStoreBound(context_.stored_bytes + bytes, context_.limits, full_name_);
      is_owner && !full.ok()) {
    if (ids) window_->ids().Finish(*ids, full);
    return done(full);
  }
  if (!is_owner) room_->Begin({messages, bytes});
  auto answered = [self = shared_from_this(), ids, is_owner, messages, bytes, is_first = true,
                   done = std::move(done)](absl::StatusOr<Appended> outcome) mutable {
    if (is_first && !is_owner) self->room_->End({messages, bytes});
    if (HasReason(outcome.status(), Reason::kQueueNotFound)) {
      outcome = self->NotFound();
      self->ownership_->SetGone();
    }
    if (HasReason(outcome.status(), Reason::kNoOwner)) self->ownership_->Doubt();
    if (outcome.ok()) self->metrics_->Published(messages, bytes);
    if (ids) self->window_->ids().Finish(*ids, outcome);
    if (std::exchange(is_first, false)) done(std::move(outcome));
  };
  const std::optional<std::int32_t> fence = ids ? std::optional(ownership_->held().version) : std::nullopt;
  appender_->Append(std::move(append.messages), std::move(append.request_id), fence, std::move(answered),
                    ids ? ids->duplicates : nullptr);
}

// ---- Subscribing

absl::Status TopicEngine::AddSubscriber() {
  if (subscribers_ >= context_.limits.consumers_max) {
    return MakeError(Reason::kTooManyStreams, Cat("topic ", full_name_, " has ", subscribers_, " subscribers"),
                     {.resource = full_name_, .limit = context_.limits.consumers_max});
  }
  ++subscribers_;
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges.subscribers = subscribers_;
  return absl::OkStatus();
}

void TopicEngine::RemoveSubscriber() {
  --subscribers_;
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges.subscribers = subscribers_;
}

void TopicEngine::CountDelivered(std::int64_t messages, WallTime newest) {
  metrics_->Delivered(messages, std::max<Duration>(context_.environment.WallNow() - newest, Duration::zero()));
}

void TopicEngine::CountBehind(int change) {
  subscribers_behind_ += change;
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges.subscribers_behind = subscribers_behind_;
}

// OK if every message behind `position` is still there.
absl::Status TopicEngine::CheckNotTrimmed(Position position) const {
  return position >= Before(kept_from_) ? absl::OkStatus() : Trimmed(kept_from_);
}

absl::Status TopicEngine::Trimmed(Position kept_from) const {
  const std::string oldest = EncodePosition(entry_.uid, Before(kept_from));
  return MakeError(Reason::kPositionTrimmed,
                   Cat("messages behind that position of topic ", full_name_,
                       " were trimmed. Start at earliest, or after ", oldest, ", which is before the oldest kept"),
                   {.resource = full_name_, .oldest_position = oldest});
}

Task<absl::StatusOr<TopicEngine::Step>> TopicEngine::BeginAt(CheckedStart start) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  // Where the log ends is known when it has been read once, and past what was answered before this call: "from now on"
  // must not begin before that.
  const Instant deadline = context_.environment.Now() + kOwnerPatience;
  const absl::StatusOr<Position> end = co_await reader_->FindTail();
  if (!end.ok()) co_return end.status();
  if (followed_ < *end) reader_->Ring();
  const auto is_behind = [&] { return !has_reached_tail_ || followed_ < *end; };
  while (is_behind() && !is_draining_ && ownership_->is_held() && context_.environment.Now() < deadline) {
    co_await grown_.WaitFor(kRetryPause);
  }
  if (is_draining_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  if (is_behind() || !ownership_->is_held()) co_return StillBeingRead();
  Step step;
  if (std::holds_alternative<StartLatest>(start)) {
    step.position = last_message_;
  } else if (std::holds_alternative<StartEarliest>(start)) {
    step.position = Before(kept_from_);
  } else if (const StartAfter* after = std::get_if<StartAfter>(&start)) {
    absl::StatusOr<Position> position = PositionOf(*after, entry_.uid, full_name_);
    if (!position.ok()) co_return position.status();
    const absl::StatusOr<bool> is_there = co_await IsInLog(*position, deadline);
    if (!is_there.ok()) co_return is_there.status();
    if (!*is_there) {
      co_return MakeError(Reason::kMalformedPosition, Cat("topic ", full_name_, " has no such position yet"),
                          {.resource = full_name_, .field = "start.after"});
    }
    if (absl::Status status = CheckNotTrimmed(*position); !status.ok()) co_return status;
    step.position = *position;
  } else {
    absl::StatusOr<Position> position = co_await PositionBefore(std::get<WallTime>(start));
    if (!position.ok()) co_return position.status();
    step.position = *position;
  }
  step.tail = std::max(last_message_, step.position);
  co_return step;
}

// A position that was given somewhere. One that is not read here yet was perhaps given by another replica.
Task<absl::StatusOr<bool>> TopicEngine::IsInLog(Position position, Instant deadline) {
  const auto is_read = [&] { return position <= last_message_ || position < followed_; };
  if (is_read()) co_return true;
  const absl::StatusOr<Position> tail = co_await reader_->FindTail();
  if (!tail.ok()) co_return tail.status();
  if (position >= *tail) co_return false;
  reader_->Ring();
  while (!is_read() && !is_draining_ && ownership_->is_held() && context_.environment.Now() < deadline) {
    co_await grown_.WaitFor(kRetryPause);
  }
  if (is_read()) co_return true;
  co_return StillBeingRead();
}

absl::Status TopicEngine::StillBeingRead() const {
  return MakeError(Reason::kNoOwner, Cat("topic ", full_name_, " is still being read after a change of owner"),
                   {.resource = full_name_});
}

// Behind this position is the first batch appended at or after `time`, by the leader's clock.
Task<absl::StatusOr<Position>> TopicEngine::PositionBefore(WallTime time) {
  const std::vector<Kept> batches(kept_.begin(), kept_.end());
  std::size_t low = 0;
  std::size_t high = batches.size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    const absl::StatusOr<WallTime> created = co_await reader_->CreateTimeOf(batches[middle].position);
    if (!created.ok() && !absl::IsNotFound(created.status())) co_return created.status();
    // A batch that was trimmed meanwhile is older than all that are left.
    if (!created.ok() || *created < time) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  co_return low < batches.size() ? Before(batches[low].position) : std::max(last_message_, Before(kept_from_));
}

Task<absl::StatusOr<TopicEngine::Step>> TopicEngine::ReadAfter(Position position, Duration wait) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  const Instant deadline = context_.environment.Now() + wait;
  Position next = Position::FromValue(position.value() + 1);
  while (true) {
    if (is_draining_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
    if (is_deleted_ || ownership_->is_gone()) co_return NotFound();
    if (ownership_->is_elsewhere()) {
      co_return MakeError(Reason::kNoOwner, Cat("another replica works for topic ", full_name_, " now"),
                          {.resource = full_name_});
    }
    if (absl::Status status = CheckNotTrimmed(Before(next)); !status.ok() && !IsMutated(Mutation::kSilentGap)) {
      co_return status;
    }
    next = std::max(next, oldest_);  // from kept_from_ to there are no messages
    if (next.BatchStart() >= followed_) {
      const Instant now = context_.environment.Now();
      if (now >= deadline) co_return Step{.position = position, .tail = std::max(last_message_, position)};
      const std::uint64_t seen = growth_;
      if (growth_ == seen) co_await grown_.WaitFor(deadline - now);
      continue;
    }
    const Position start = next.BatchStart();
    absl::StatusOr<LogReader::Step> read = co_await reader_->Read(start);
    if (!read.ok()) co_return read.status();
    if (read->kind == LogReader::Step::Kind::kBatch) {
      const auto size = static_cast<std::uint32_t>(read->batch->size());
      if (next.index() < size) {
        co_return Step{.batch = read->batch,
                       .batch_position = start,
                       .first_index = next.index(),
                       .position = Position(start.segment(), start.batch(), size - 1),
                       .tail = std::max(last_message_, Position(start.segment(), start.batch(), size - 1))};
      }
      next = read->next;
    } else if (read->kind == LogReader::Step::Kind::kNextSegment) {
      next = read->next;
    } else {
      // Trimmed under our hands; the head may be behind in memory, but never in the store.
      const absl::StatusOr<Position> head = co_await ReadHead();
      if (!head.ok()) co_return head.status();
      if (*head <= start) {
        // Behind the last message of a segment that went with it nothing is missing.
        const absl::StatusOr<std::uint64_t> first = co_await reader_->FindFirstSegment();
        if (!first.ok()) co_return first.status();
        if (*first > start.segment() && head->segment() == start.segment()) {
          next = start.NextSegment();
          continue;
        }
        co_return MakeError(Reason::kStoreCorrupt,
                            Cat("topic ", full_name_, " misses a batch at ", start.DebugString()),
                            {.resource = full_name_, .path = context_.layout.Batch(entry_.uid, start)});
      }
      if (*head > next && !IsMutated(Mutation::kSilentGap)) co_return Trimmed(*head);
      next = read->kind == LogReader::Step::Kind::kHole ? read->next : start.NextSegment();
    }
  }
}

// ---- Administration

void TopicEngine::SetEntry(LogEntry entry) {
  entry_ = std::move(entry);
  trim_.Notify();
}

Task<absl::Status> TopicEngine::Delete() {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  const std::int64_t messages = messages_;
  LogEntry entry = entry_;
  OwnerView held = ownership_->held();
  if (absl::Status status = co_await context_.catalog.Delete(std::move(entry), std::move(held)); !status.ok()) {
    co_return status;
  }
  metrics_->Deleted(messages);
  is_deleted_ = true;
  is_closed_ = true;
  ++reign_;
  ++growth_;
  window_->End();
  ownership_->Stop();
  reader_->Ring();
  grown_.Notify();
  trim_.Notify();
  co_await appender_->Stop(kDeleteTimeout);
  co_return absl::OkStatus();
}

void TopicEngine::Drain() {
  is_draining_ = true;
  ++growth_;
  grown_.Notify();
}

Task<absl::Status> TopicEngine::LetGo(OwnerView held) {
  std::vector<zk::Op> ops;
  ops.push_back(LetGoOp(context_.layout, entry_.uid, held));
  // A trim may be in of which the reply is still to come: then the store knows better than we do.
  if (trimming_to_ <= kept_from_ || IsMutated(Mutation::kHeadGoesBack)) {
    ops.push_back(HeadOp(kept_from_, messages_, bytes_, static_cast<std::int64_t>(kept_.size())));
  }
  const zk::Response reply = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
  if (reply.code != zk::Code::kOk) co_return UnavailableError(reply, "take the log back");
  co_return absl::OkStatus();
}

// A request to ZooKeeper has its own limit in time.
Task<void> TopicEngine::HandOver(Duration) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  if (is_draining_ || !ownership_->is_held()) co_return;
  OwnerView held = ownership_->held();
  ownership_->BeginHandOver();
  LeaveReign();
  const absl::Status given = co_await LetGo(std::move(held));
  ownership_->EndHandOver();
  if (given.ok()) {
    context_.metrics.ownership().HandedOver();
    LogInfo("handed a topic over", {{"topic", full_name_}});
  } else {
    LogWarning("could not hand a topic over", {{"topic", full_name_}, {"why", given.message()}});
  }
}

Task<void> TopicEngine::Close(Duration timeout) {
  const std::shared_ptr<TopicEngine> self = shared_from_this();
  Drain();
  co_await appender_->Stop(timeout);
  is_closed_ = true;
  ++reign_;
  if (ownership_->is_held()) {
    OwnerView held = ownership_->held();
    ownership_->Stop();
    const absl::Status given = co_await LetGo(std::move(held));
    if (given.ok()) context_.metrics.ownership().HandedOver();
    if (!given.ok()) LogWarning("could not give a topic back", {{"topic", full_name_}, {"why", given.message()}});
  }
  window_->End();
  ownership_->Stop();
  reader_->Ring();
  trim_.Notify();
}

void TopicEngine::PublishGauges() {
  context_.stored_bytes += bytes_ - stored_bytes_counted_;
  stored_bytes_counted_ = bytes_;
  absl::MutexLock lock(&gauges_->mutex);
  gauges_->gauges = {
      .messages = messages_, .bytes = bytes_, .subscribers = subscribers_, .subscribers_behind = subscribers_behind_};
}

}  // namespace postkeeper
