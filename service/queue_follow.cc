// The part of QueueEngine that reads the log into the dispatcher.
#include <algorithm>

#include "service/logging.h"
#include "service/queue_engine.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(100);
// How long a call waits for what was appended to be read.
constexpr Duration kReadPatience = std::chrono::seconds(10);

}  // namespace

Task<void> QueueEngine::Follow(std::shared_ptr<QueueEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  AdoptHandedOverLeases();
  while (reign == reign_) {
    const absl::Status status = co_await FollowOneStep();
    if (reign != reign_) break;
    window_->OnFollowed(followed_);
    follow_progress_.Notify();
    if (status.ok()) continue;
    LogWarning("could not read a queue's log", {{"queue", full_name_}, {"error", status.message()}});
    co_await SleepFor(context_.environment, kRetryPause);
  }
  follow_progress_.Notify();
}

Task<absl::Status> QueueEngine::FollowOneStep() {
  const std::uint64_t reign = reign_;
  const Position at = followed_;
  const absl::StatusOr<LogReader::Step> step = co_await reader_->Read(at);
  if (reign != reign_) co_return absl::OkStatus();
  if (HasReason(step.status(), Reason::kStoreCorrupt)) {
    // One damaged batch must not hold up all behind it. It stays in the store for whoever repairs it.
    ++context_.corruptions;
    LogError("a batch is damaged; its messages are not delivered",
             {{"queue", full_name_}, {"position", at.DebugString()}, {"error", step.status().message()}});
    followed_ = at.NextBatch();
    co_return absl::OkStatus();
  }
  if (!step.ok()) co_return step.status();
  switch (step->kind) {
    case LogReader::Step::Kind::kBatch:
      AddBatch(at, *step->batch);
      followed_ = step->next;
      ForgetUnread(followed_);
      Dispatch();
      break;
    case LogReader::Step::Kind::kHole:
      if (!cursor_->settled().IsBatchSettled(at)) {
        if (absl::Status status = co_await ownership_->Confirm(); !status.ok()) co_return status;
        if (reign != reign_) co_return absl::OkStatus();
        MeetHole(at);
      }
      followed_ = step->next;
      break;
    case LogReader::Step::Kind::kNextSegment:
      cursor_->settled().LearnSegmentEnd(at.segment(), at.batch());
      followed_ = step->next;
      break;
    case LogReader::Step::Kind::kSegmentGone:
      co_return co_await SkipGoneSegment();
    case LogReader::Step::Kind::kAtTail:
      has_reached_tail_ = true;
      follow_progress_.Notify();
      Dispatch();
      WriteHeadIfDue();
      co_await reader_->WaitAtTail(at);
      break;
  }
  co_return absl::OkStatus();
}

void QueueEngine::AddBatch(Position at, const Batch& batch) {
  window_->OnRead(at, batch);
  SettledSet& settled = cursor_->settled();
  const bool was_settled = settled.IsBatchSettled(at);
  settled.LearnBatch(at, batch.size());
  if (batch.ends_segment()) {
    settled.LearnSegmentEnd(at.segment(), at.batch() + 1);
    cursor_->DeleteLater(at);
    return;
  }
  CountAppended(batch);
  if (was_settled) {
    cursor_->DeleteLater(at);  // a write of an earlier owner said so and could not delete it
    return;
  }
  ++live_batches_;
  const Instant now = context_.environment.Now();
  const WallTime wall_now = context_.environment.WallNow();
  const bool is_untouched = settled.IsUntouched(at);
  Dispatcher::Message message;
  message.enqueued = now - std::max<Duration>(wall_now - batch.append_time(), Duration::zero());
  for (int i = 0; i < batch.size(); ++i) {
    message.position = Position::FromValue(at.value() + static_cast<std::uint64_t>(i));
    WallTime due = batch.due(i);
    if (!is_untouched) {
      if (settled.IsSettled(message.position)) continue;
      const SettledSet::Notes notes = settled.NotesOf(message.position);
      message.number = notes.number;
      message.attempts = static_cast<std::int32_t>(notes.attempts);
      // One that was given out was due by the clock of its owner then, whatever ours says; what delays it is its Nack.
      due = notes.number > 0 ? notes.due : std::max(due, notes.due);
      if (IsMutated(Mutation::kForgetDelayed) && !has_reached_tail_ && notes.due > wall_now) continue;
    }
    message.bytes = static_cast<std::int32_t>(batch.message(i).size());
    message.due = due > wall_now ? std::optional<Instant>(now + (due - wall_now)) : std::nullopt;
    dispatcher_->Add(message, now);
  }
  // Leases that the owner before handed over become live as their messages are read.
  while (!handed_over_.empty() && handed_over_.front().position < at.NextBatch()) {
    const Cursor::HandedOverLease& lease = handed_over_.front();
    AdoptLease(lease.position, {lease.number, lease.epochs}, lease.remaining);
    handed_over_.pop_front();
  }
  AdoptAnnounced(at.NextBatch());
}

// The rate is of all that was appended in the last minute, by whichever replica.
void QueueEngine::CountAppended(const Batch& batch) {
  const Duration age = context_.environment.WallNow() - batch.append_time();
  if (age < std::chrono::minutes(1)) enqueued_.Add(batch.size(), context_.environment.Now());
  if (batch.writer().process == context_.process) return;
  of_others_ += {batch.size(), batch.message_bytes(), 1};
  if (has_reached_tail_) WriteHeadIfDue();
}

// Other replicas append by what the head says.
void QueueEngine::WriteHeadIfDue() {
  if (is_writing_head_ || !AppendRoom::IsHeadDue(of_others_, entry_.settings, context_.limits)) return;
  is_writing_head_ = true;
  of_others_ = {};
  Spawn(strand_, WriteHead(shared_from_this(), reign_));
}

Task<void> QueueEngine::WriteHead(std::shared_ptr<QueueEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  while (reign == reign_ && !is_closed_) {
    // A copy of this write that comes late must not undo a later one.
    const zk::Response before = co_await context_.client.Get(context_.layout.Head(entry_.uid));
    if (reign != reign_ || before.code == zk::Code::kNoNode) break;
    if (before.code == zk::Code::kOk) {
      std::vector<zk::Op> ops;
      ops.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), ownership_->held().version));
      ops.push_back(cursor_->HeadOp());
      ops.back().version = before.stat.version;
      const zk::Response written = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
      if (written.code == zk::Code::kOk) break;
    }
    co_await SleepFor(context_.environment, kRetryPause);
  }
  is_writing_head_ = false;
}

void QueueEngine::AdoptHandedOverLeases() {
  std::vector<Cursor::HandedOverLease> leases = cursor_->handed_over();
  if (IsMutated(Mutation::kLoseHandedOverLease)) leases.clear();
  std::sort(leases.begin(), leases.end(), [](const auto& a, const auto& b) { return a.position < b.position; });
  handed_over_.assign(leases.begin(), leases.end());
}

Dispatcher::Outcome QueueEngine::AdoptLease(Position position, const Adopted& adopted, Duration lease) {
  const Dispatcher::Outcome outcome =
      dispatcher_->Adopt(position, adopted.number, lease, 0, context_.environment.Now());
  if (outcome == Dispatcher::Outcome::kOk) adopted_[position] = adopted;
  return outcome;
}

// A batch that was in the log and is not there any more, although it is not settled, and nobody else has the log.
void QueueEngine::MeetHole(Position at) {
  ++context_.corruptions;
  LogError("a batch is missing although nothing says that it was settled",
           {{"queue", full_name_}, {"position", at.DebugString()}});
  cursor_->settled().SettleBatch(at);
}

Task<absl::Status> QueueEngine::WaitUntilCaughtUp() {
  const Instant deadline = context_.environment.Now() + kReadPatience;
  const absl::StatusOr<Position> tail = co_await reader_->FindTail();
  if (!tail.ok()) co_return tail.status();
  if (followed_ < *tail) reader_->Ring();
  // A new reign reads to the tail anew.
  while (!has_reached_tail_ || followed_ < *tail) {
    const Instant now = context_.environment.Now();
    if (now >= deadline || !ownership_->is_held()) co_return StillBeingRead();
    co_await follow_progress_.WaitFor(std::min<Duration>(deadline - now, kRetryPause));
  }
  co_return absl::OkStatus();
}

absl::Status QueueEngine::StillBeingRead() const {
  return MakeError(Reason::kNoOwner, Cat("queue ", full_name_, " is still being read after a change of owner"),
                   {.resource = full_name_});
}

Task<absl::Status> QueueEngine::SkipGoneSegment() {
  const std::uint64_t reign = reign_;
  const absl::StatusOr<std::uint64_t> first = co_await reader_->FindFirstSegment();
  if (reign != reign_) co_return absl::OkStatus();
  if (!first.ok()) co_return first.status();
  if (*first <= followed_.segment()) co_return absl::OkStatus();  // it was a passing view; read again
  if (!cursor_->settled().IsBatchSettled(followed_)) {
    if (absl::Status status = co_await ownership_->Confirm(); !status.ok()) co_return status;
    if (reign != reign_) co_return absl::OkStatus();
    ++context_.corruptions;
    LogError("a segment is missing although nothing says that it was settled",
             {{"queue", full_name_}, {"position", followed_.DebugString()}});
  }
  for (std::uint64_t segment = followed_.segment(); segment < *first; ++segment) {
    cursor_->settled().LearnSegmentEnd(segment, segment == followed_.segment() ? followed_.batch() : 0);
  }
  followed_ = Position(*first, 0, 0);
  co_return absl::OkStatus();
}

}  // namespace postkeeper
