// One topic at work: what is published is appended to its log, subscribers read it, and what is too old or too much is
// trimmed.
#ifndef POSTKEEPER_SERVICE_TOPIC_ENGINE_H_
#define POSTKEEPER_SERVICE_TOPIC_ENGINE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/append_room.h"
#include "service/engine_context.h"
#include "service/id_window.h"
#include "service/log_ownership.h"
#include "service/validate.h"
#include "zkstore/log_appender.h"
#include "zkstore/log_reader.h"
#include "zkstore/owner.h"
#include "zkstore/signal.h"

namespace postkeeper {

// How it works. The engine owns the log as a queue's engine does. It follows the log to know what is in it, keeps the
// head record, and trims whole batches from the front when the topic's bounds are passed. Subscribers read the log
// through the same reader, each at its own pace; one that falls behind the trim is told OUT_OF_RANGE.
//
// Everything here runs on `strand()`. Held by shared_ptr; coroutines keep it alive until Close is through.
class TopicEngine : public std::enable_shared_from_this<TopicEngine> {
 public:
  TopicEngine(EngineContext& context, LogEntry entry, std::string full_name);
  ~TopicEngine();

  void Start();

  asio::any_io_executor strand() const { return strand_; }
  const std::string& full_name() const { return full_name_; }
  const Uid& uid() const { return entry_.uid; }

  // As QueueEngine::Enqueue. A full topic trims; only STORE_FULL refuses.
  void Publish(CheckedAppend append, LogAppender::Done done);
  bool HasRoomFor(const AppendSize& append);
  AppendRoom& room() { return *room_; }
  AppendIds& ids() { return window_->ids(); }

  // ---- Subscribing

  // One batch for a subscriber, or where it stands now.
  struct Step {
    std::shared_ptr<const Batch> batch;  // null: nothing new within the time given
    Position batch_position;             // of the batch's first message
    std::uint32_t first_index = 0;       // messages before it are not for this subscriber
    Position position;                   // read so far: to be given to the next call, and to clients for resuming
    Position tail;                       // of the last message known of; equal to position: caught up
  };
  // Where a subscription begins: `position` is the one before its first message. POSITION_TRIMMED (a resume position
  // behind which messages were trimmed), POSITION_OF_DELETED_TOPIC, TOPIC_NOT_FOUND, and WaitUntilServing's errors.
  Task<absl::StatusOr<Step>> BeginAt(CheckedStart start);
  // What comes behind `position`; waits at most `wait`. POSITION_TRIMMED if it is not there any more. NO_OWNER: another
  // replica works for the topic now, and this one hears of nothing new.
  Task<absl::StatusOr<Step>> ReadAfter(Position position, Duration wait);
  // For gauges and limits. TOO_MANY_STREAMS.
  absl::Status AddSubscriber();
  void RemoveSubscriber();
  // `newest`: when the last of them was appended.
  void CountDelivered(std::int64_t messages, WallTime newest);
  // A subscriber has fallen behind (+1), or has taken all there is (-1).
  void CountBehind(int change);

  // ---- Administration

  const LogEntry& entry() const { return entry_; }
  void SetEntry(LogEntry entry);
  Task<absl::Status> Delete();
  // Thread-safe.
  bool is_serving() const { return ownership_->is_held(); }
  // Of the ownership that this replica has, or had last.
  std::int64_t epoch() const { return ownership_->held().epoch; }
  // Its owner may have gone. Thread-safe.
  void LookForOwner() { ownership_->Look(); }
  // The topic was deleted, perhaps through another replica. Thread-safe.
  bool is_gone() const { return ownership_->is_gone(); }
  // As of QueueEngine. Thread-safe.
  bool is_polling() const { return reader_->is_polling(); }
  // Somebody has found that the log is deleted.
  void SetGone() { ownership_->SetGone(); }
  // Where to go, if another replica works for this topic: see LogOwnership::FindOwner.
  Task<std::optional<std::string>> FindOwner(Duration timeout) { return ownership_->FindOwner(timeout); }
  // As of QueueEngine.
  bool IsReadyFor(bool has_id) const { return is_serving() && (!has_id || window_->is_known()); }
  Task<absl::Status> WaitUntilServing(Duration timeout);
  Task<absl::Status> WaitUntilReadyFor(bool has_id, Duration timeout);
  // Thread-safe.
  void OnSessionChange() { ownership_->OnSessionChange(); }
  // Readers that wait return at once.
  void Drain();
  bool is_draining() const { return is_draining_; }
  // Gives the log to another replica, if it is held.
  Task<void> HandOver(Duration timeout);
  Task<void> Close(Duration timeout);

 private:
  // What is known of a batch that is kept.
  struct Kept {
    Position position;
    std::int64_t messages = 0;
    std::int64_t bytes = 0;
    std::optional<WallTime> create_time;  // the leader's clock; once it was asked for
  };

  // What `ownership_` calls.
  Task<absl::Status> OnTaken(OwnerView held);
  void OnLost(absl::Status why);

  void LeaveReign();
  Task<absl::Status> LetGo(OwnerView held);
  void PublishNow(CheckedAppend append, LogAppender::Done done);
  Task<void> Follow(std::shared_ptr<TopicEngine> self, std::uint64_t reign);
  Task<absl::Status> FollowOneStep(std::uint64_t reign);
  void AddBatch(Position at, const Batch& batch);
  void WriteHeadIfDue();
  Task<void> WriteHead(std::shared_ptr<TopicEngine> self, std::uint64_t reign);
  Task<void> TrimFromTimeToTime(std::shared_ptr<TopicEngine> self, std::uint64_t reign);
  Task<absl::StatusOr<bool>> TrimSome(std::uint64_t reign);
  Task<absl::StatusOr<bool>> MustTrim(std::size_t index, std::int64_t messages, std::int64_t bytes);
  Task<absl::StatusOr<bool>> IsPastRetention(std::size_t index);
  Task<absl::Status> RemoveTrimmedSegments(std::uint64_t reign);
  Task<absl::StatusOr<bool>> IsInLog(Position position, Instant deadline);
  absl::Status StillBeingRead() const;
  Task<absl::StatusOr<Position>> PositionBefore(WallTime time);
  absl::Status CheckNotTrimmed(Position position) const;
  absl::Status Trimmed(Position kept_from) const;
  Task<absl::StatusOr<Position>> ReadHead();
  void SetBeginning(Position kept_from, std::uint64_t first_segment);
  Task<absl::Status> StepOverHole(Position hole, Position next);
  absl::Status NotFound() const;
  void PublishGauges();
  zk::Op HeadOp(Position kept_from, std::int64_t messages, std::int64_t bytes, std::int64_t batches) const;

  // Constant after construction.
  EngineContext& context_;
  const std::string full_name_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  LogEntry entry_;
  std::shared_ptr<LogOwnership> ownership_;
  bool is_draining_ = false;
  bool is_deleted_ = false;
  bool is_closed_ = false;   // what is still on its way is of no use any more
  std::uint64_t reign_ = 0;  // as of QueueEngine
  std::shared_ptr<LogAppender> appender_;
  std::shared_ptr<LogReader> reader_;
  const std::shared_ptr<IdWindow> window_;  // of request_ids and dedup_ids
  std::unique_ptr<TopicMetrics> metrics_;
  std::deque<Kept> kept_;      // oldest first
  std::int64_t messages_ = 0;  // of kept_
  std::int64_t bytes_ = 0;
  Position oldest_;                // the first batch that is kept, or may come
  Position kept_from_;             // behind the last message that was trimmed; at most oldest_
  Position trimming_to_;           // what kept_from_ becomes when the trim that is on its way is in
  Position followed_;              // read so far
  Position last_message_;          // of the last message that was read, or the position before the first
  bool has_reached_tail_ = false;  // in this reign
  std::uint64_t first_segment_ = 0;
  std::int64_t subscribers_ = 0;
  std::int64_t subscribers_behind_ = 0;
  std::int64_t stored_bytes_counted_ = 0;
  const std::shared_ptr<AppendRoom> room_;  // while another replica owns the log
  AppendRoom::Amount of_others_;            // read of their batches since the head was written for that
  bool is_writing_head_ = false;
  std::uint64_t growth_ = 0;  // counts what subscribers wait for: followed_ moved, or the end
  Signal grown_;
  Signal trim_;  // a bound may be passed

  // Copied for the scraper's thread, as by QueueEngine.
  struct SharedGauges {
    absl::Mutex mutex;
    TopicGauges gauges ABSL_GUARDED_BY(mutex);
  };
  const std::shared_ptr<SharedGauges> gauges_ = std::make_shared<SharedGauges>();
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_TOPIC_ENGINE_H_
