// One queue at work: what comes in is appended to its log, what is read from its log is dispatched, what consumers say
// is settled in its cursor.
#ifndef POSTKEEPER_SERVICE_QUEUE_ENGINE_H_
#define POSTKEEPER_SERVICE_QUEUE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "service/append_room.h"
#include "service/dispatcher.h"
#include "service/engine_context.h"
#include "service/id_window.h"
#include "service/log_ownership.h"
#include "service/rate_meter.h"
#include "service/validate.h"
#include "zkstore/cursor.h"
#include "zkstore/log_appender.h"
#include "zkstore/log_reader.h"
#include "zkstore/signal.h"

namespace postkeeper {

// One message handed to a consumer. `batch` keeps the bytes alive.
struct Delivery {
  std::shared_ptr<const Batch> batch;
  std::uint32_t index = 0;
  LeaseToken token;
  std::int32_t attempt = 0;
  std::string last_reason;

  std::string_view message() const { return batch->message(static_cast<int>(index)); }
  std::string message_id() const { return batch->MessageId(static_cast<int>(index)); }
  WallTime enqueue_time() const { return batch->append_time(); }
};

// Why one lease token was not acted on. The numbers are those of postkeeper.v1.SettleError.
enum class SettleError { kAlreadySettled = 1, kStaleLease = 2, kMalformedToken = 3, kLeaseLimit = 4 };

struct SettleFailure {
  std::string lease_token;
  SettleError error = SettleError::kMalformedToken;
  std::string detail;
};

// What a call or a frame of a stream settles, each token on its own.
struct SettleOrders {
  std::vector<std::string> ack_tokens;
  std::vector<CheckedNacks> nacks;
  std::vector<CheckedExtensions> extensions;

  bool empty() const { return ack_tokens.empty() && nacks.empty() && extensions.empty(); }
};

// A lease that the client of a Consume stream holds, as the replica knows it that the client is connected to.
struct HeldLease {
  LeaseToken token;
  std::int64_t bytes = 0;  // of the message
  Duration remaining{};

  friend bool operator==(const HeldLease&, const HeldLease&) = default;
};

// How it works. The engine owns the log (zkstore/owner.h) for as long as it can: it takes it at start, reads cursor and
// log, and feeds the dispatcher; after an expired session it takes it again and keeps its memory. If another replica
// owns the log, it waits for it, and calls are told NO_OWNER. A message is given out only while MayDispatch; a second
// or later giving-out is written to the cursor before the message is sent. Acks are answered when they are durable.
//
// A reign is the time from taking the log to losing it; over expired sessions it spans several epochs of the owner
// record.
//
// First leases are not stored. An owner that lets go hands them over in the cursor; after one that could not, those who
// know of leases announce them: each stream comes back with what its client holds (AddConsumer). Until
// kAnnouncementPatience has passed nothing is given out then. What is announced later still counts if nobody else has
// been given the message.
//
// Everything here runs on `strand()`, one thing at a time: calls are made there (asio::post or co_spawn), and all
// functions given are called there. Held by shared_ptr; coroutines keep it alive until Close is through.
class QueueEngine : public std::enable_shared_from_this<QueueEngine> {
 public:
  QueueEngine(EngineContext& context, LogEntry entry, std::string full_name);
  ~QueueEngine();

  // Begins to work. To be called once.
  void Start();

  asio::any_io_executor strand() const { return strand_; }
  const std::string& full_name() const { return full_name_; }
  const Uid& uid() const { return entry_.uid; }

  // ---- Messages in

  // The messages become one batch or part of one. QUEUE_FULL, STORE_FULL, and LogAppender's errors. With a request_id
  // that is known, the answer of the first call with it, when that is known; messages with a dedup_id that is known are
  // not written (AppendIds). Waits for the ownership of the log, unless HasRoomFor.
  void Enqueue(CheckedAppend append, LogAppender::Done done);
  // What has no id needs no owner: true if it may be appended here, whoever owns the log (AppendRoom).
  bool HasRoomFor(const AppendSize& append);
  AppendRoom& room() { return *room_; }
  AppendIds& ids() { return window_->ids(); }

  // ---- Messages out

  struct Dequeued {
    std::vector<Delivery> deliveries;
    Duration lease{};
    std::vector<SettleFailure> failures;  // of ack_tokens
  };
  // A call that can be given up. Cancel is thread-safe; what it had been given is then released, uncounted.
  class CallHandle {
   public:
    void Cancel();
    bool is_cancelled() const { return is_cancelled_; }

   private:
    friend class QueueEngine;
    std::atomic<bool> is_cancelled_ = false;
    absl::Mutex mutex_;
    std::function<void()> on_cancel_ ABSL_GUARDED_BY(mutex_);
  };
  // Settles ack_tokens, then waits for messages, at most request.wait. Empty is OK.
  Task<absl::StatusOr<Dequeued>> Dequeue(CheckedDequeue request, std::shared_ptr<CallHandle> call);

  // A stream that takes messages as they come. Its functions are called on the strand.
  struct ConsumerCallbacks {
    std::function<void(std::vector<Delivery> deliveries, Duration lease)> on_deliveries;
    // The queue is gone or another replica has it: no call after this.
    std::function<void(absl::Status why)> on_end;
    // Also at the end of the reign, since its owner comes back with what it holds; else the consumer goes on with the
    // next reign, if that is of this replica, with nothing held.
    bool ends_with_reign = false;
  };
  using ConsumerId = std::uint64_t;
  // TOO_MANY_STREAMS. The consumer begins with the credit of `open`, and with the leases `held`, each as far as its
  // token is good (a token proves what Extend would make of it, no more); those do not take part of the credit, and
  // give theirs back when they end, or if they are not taken. INVALID_FIELD if that could be too much.
  absl::StatusOr<ConsumerId> AddConsumer(const CheckedOpen& open, ConsumerCallbacks callbacks,
                                         const std::vector<HeldLease>& held = {});
  // INVALID_FIELD if it becomes too much.
  absl::Status AddCredit(ConsumerId consumer, const CheckedCredit& credit);
  // What is left of the credit; 0 for a consumer that is not there.
  CheckedCredit CreditOf(ConsumerId consumer) const;
  // No more messages for it; its leases live on.
  void StopConsumer(ConsumerId consumer);
  // The stream has ended. `releases`: it was drained and closed by the client, so its leases are released, uncounted;
  // else they lapse at their deadlines.
  void RemoveConsumer(ConsumerId consumer, bool releases);

  // ---- Settling

  // Returns when all of it is durable; one failure per token that was not acted on. OUTCOME_UNKNOWN, NO_OWNER,
  // ZOOKEEPER_UNAVAILABLE: for all of it; may be repeated.
  Task<absl::StatusOr<std::vector<SettleFailure>>> Settle(SettleOrders orders);

  // ---- Administration

  struct Stats {
    Dispatcher::Counts counts;
    std::int64_t consumers = 0;
    std::optional<Duration> oldest_age;
    double enqueue_rate = 0;  // messages per second, last minute
    double settle_rate = 0;
  };
  Task<absl::StatusOr<Stats>> GetStats();
  // Of what it has read of its log, without asking ZooKeeper for more. While it is serving.
  Dispatcher::Counts CountsRead();
  Task<absl::StatusOr<std::int64_t>> Purge(bool leased_too);
  const LogEntry& entry() const { return entry_; }
  // The configuration was changed in the catalog.
  void SetEntry(LogEntry entry);
  // Deletes the queue from the catalog as its owner and closes the engine.
  Task<absl::Status> Delete();
  // True while this replica owns the log and has begun to dispatch. Thread-safe.
  bool is_serving() const { return ownership_->is_held(); }
  // Its owner may have gone. Thread-safe.
  void LookForOwner() { ownership_->Look(); }
  // The queue was deleted, perhaps through another replica. Thread-safe.
  bool is_gone() const { return ownership_->is_gone(); }
  // It looks for batches of other replicas from time to time, without a watch. Thread-safe.
  bool is_polling() const { return reader_->is_polling(); }
  // Somebody has found that the log is deleted.
  void SetGone() { ownership_->SetGone(); }
  // Where to go, if another replica works for this queue: see LogOwnership::FindOwner.
  Task<std::optional<std::string>> FindOwner(Duration timeout) { return ownership_->FindOwner(timeout); }
  // The address of another replica that works for this queue, as last seen; nullopt: this one, or it is not known.
  const std::optional<std::string>& owner_elsewhere() const { return ownership_->owner_elsewhere(); }
  // Who wants to hear which replica has the queue now (its address; "": this one, just before it begins to give out, or
  // the queue is gone). Called on the strand.
  using ObserverId = std::uint64_t;
  using OwnerNews = std::function<void(const std::string& owner)>;
  ObserverId AddOwnerObserver(OwnerNews on_news);
  void RemoveOwnerObserver(ObserverId observer);
  // Of the ownership that this replica has, or had last.
  std::int64_t epoch() const { return ownership_->held().epoch; }
  // True when Enqueue need not wait: it is serving and, for a call with an id, knows what was written.
  bool IsReadyFor(bool has_id) const { return is_serving() && (!has_id || window_->is_known()); }
  // OK when it is serving; waits for it, at most `timeout`. ZOOKEEPER_UNAVAILABLE, NO_OWNER, QUEUE_NOT_FOUND.
  Task<absl::Status> WaitUntilServing(Duration timeout);
  // OK when IsReadyFor. The same errors, and STORE_CORRUPT for a call with an id.
  Task<absl::Status> WaitUntilReadyFor(bool has_id, Duration timeout);
  // The ZooKeeper session has changed its state. Thread-safe.
  void OnSessionChange() { ownership_->OnSessionChange(); }

  // Stops dispatching: waiting calls end with REPLICA_DRAINING, streams should be asked to go.
  void Drain();
  // Gives the log to another replica, if it is held, with its leases: dispatching stops, and goes on here only if
  // nobody else takes it. Consumers stay, and hear from the next owner's address as at any loss. At most `timeout`.
  Task<void> HandOver(Duration timeout);
  // Ends all work: waits for writes on their way, gives the log back with its leases. At most `timeout`.
  Task<void> Close(Duration timeout);

  // How long an owner behind one that crashed waits for leases to be announced before it gives anything out.
  static constexpr Duration kAnnouncementPatience = std::chrono::seconds(1);
  // Leases that were announced and whose messages have not been read yet. What is beyond is not taken.
  static constexpr std::size_t kAnnouncedMax = 200'000;

 private:
  struct Consumer {
    ConsumerId id = 0;
    ConsumerCallbacks callbacks;
    CheckedCredit credit;  // left
    bool is_credit_manual = false;
    bool keeps_leases = false;
    bool is_stopped = false;
    bool is_one_shot = false;  // a Dequeue that waits: gone after the first delivery
    bool is_in_turn = false;
    Duration lease{};
  };
  // A lease of a stream whose credit comes back.
  struct StreamLease {
    ConsumerId consumer = 0;
    std::uint32_t number = 0;
    std::int32_t bytes = 0;
  };
  // A lease that an earlier reign gave out and this one keeps; what its token says.
  struct Adopted {
    std::uint32_t number = 0;
    Cursor::EpochRange epochs;
  };
  // A lease that a stream has come back with, and whose message is not read yet.
  struct Announced {
    LeaseToken token;
    std::int64_t bytes = 0;
    Instant deadline{};
    ConsumerId consumer = 0;
  };
  // A batch of this process.
  struct OwnBatch {
    Position at;
    std::int64_t messages = 0;
    std::int64_t bytes = 0;
  };
  // Messages on their way to a consumer.
  struct Loading {
    std::uint64_t reign = 0;
    ConsumerId consumer = 0;
    std::vector<Dispatcher::Grant> grants;
    Duration lease{};
  };
  // What one settling call does to the cursor.
  struct Settling {
    std::vector<Cursor::Change> changes;
    std::vector<SettleFailure> failures;
  };

  // What `ownership_` calls.
  Task<absl::Status> OnTaken(OwnerView held);
  void OnRetaken(const OwnerView& held);
  void OnLost(absl::Status why);

  // queue_engine.cc: life and administration.
  void EnqueueNow(CheckedAppend append, LogAppender::Done done);
  void OnOwnBatch(Position at, const Batch& batch);
  void ForgetUnread(Position before);
  absl::Status CheckRoom(const AppendSize& append) const;
  std::shared_ptr<Cursor> MakeCursor(const OwnerView& held);
  void AdoptHandedOverLeases();
  Dispatcher::Outcome AdoptLease(Position position, const Adopted& adopted, Duration lease);
  Cursor::EpochRange Reign() const { return {first_epoch_, ownership_->held().epoch}; }
  std::vector<Cursor::HandedOverLease> LeasesToHandOver() const;
  void LeaveReign();
  void EndConsumers(const absl::Status& why);
  void ForgetGrants();
  Cursor::Head CurrentHead() const;
  void OnCursorWritten(std::size_t batches_deleted);
  Task<void> RemoveReadSegments(std::shared_ptr<QueueEngine> self, std::uint64_t reign);
  absl::Status NotFound() const;
  void PublishGauges();

  // queue_announce.cc: leases that streams come back with, and who waits for the next owner.
  void BeginReignOfAnnouncements(const OwnerView& held);
  bool AwaitsAnnouncements() const;
  // For the last write of a reign: an owner that has given out nothing is nobody's predecessor.
  void PrepareToLetGo();
  void Announce(const Consumer& consumer, const HeldLease& held);
  void AdoptAnnounced(Position before);
  void Adopt(const Announced& announced);
  bool TryToAdopt(const Announced& announced);
  void EndConsumersOfReign();
  void TellObservers(const std::string& owner);

  // queue_follow.cc: from the log into the dispatcher.
  Task<void> Follow(std::shared_ptr<QueueEngine> self, std::uint64_t reign);
  Task<absl::Status> FollowOneStep();
  Task<absl::Status> SkipGoneSegment();
  // Until everything is read whose append was answered before this call, here or at another replica: counts and
  // deliveries then know of it.
  Task<absl::Status> WaitUntilCaughtUp();
  absl::Status StillBeingRead() const;
  void AddBatch(Position at, const Batch& batch);
  void CountAppended(const Batch& batch);
  void WriteHeadIfDue();
  Task<void> WriteHead(std::shared_ptr<QueueEngine> self, std::uint64_t reign);
  void MeetHole(Position at);

  // queue_dispatch.cc: from the dispatcher to consumers.
  void Dispatch();
  void ScheduleTick();
  void TickAt(Instant time);
  void KeepLeases(Instant now);
  void Tick();
  bool HasDemand(const Consumer& consumer) const;
  void Give(Consumer& consumer, std::vector<Dispatcher::Grant> grants);
  void GiveInOrder(Loading loading);
  Task<void> LoadInOrder(std::shared_ptr<QueueEngine> self);
  Task<void> GiveAgain(std::shared_ptr<QueueEngine> self, Loading loading);
  Task<absl::StatusOr<std::vector<Delivery>>> Prepare(Loading loading);
  void JoinTurn(Consumer& consumer);
  void LeaveTurn(Consumer& consumer);
  bool EraseConsumer(ConsumerId id);
  Task<absl::StatusOr<std::vector<Delivery>>> Load(std::vector<Dispatcher::Grant> grants);
  bool LoadFromMemory(const std::vector<Dispatcher::Grant>& grants, std::vector<Delivery>& deliveries);
  Delivery MakeDelivery(const Dispatcher::Grant& grant, std::shared_ptr<const Batch> batch) const;
  void HandLate(const Loading& loading, std::vector<Delivery> deliveries);
  void Hand(ConsumerId consumer, std::vector<Delivery> deliveries, Duration lease);
  void TakeBack(const Loading& loading);
  void ReturnManualCredit(const Loading& loading);
  void AddBack(ConsumerId id, std::int64_t bytes);
  void ReturnCredit(Position position, std::uint32_t number);
  Cursor::Change NotesFor(Position position) const;
  void CountGiven(const std::vector<Dispatcher::Grant>& grants);

  // queue_settle.cc: what consumers say.
  struct Named {
    Position last;
    std::uint64_t last_epoch = 0;
  };
  // The last position and epoch in the tokens of `orders`.
  Named NamedBy(const SettleOrders& orders) const;
  Task<absl::Status> WaitUntilRead(Position last);
  static bool SaysStale(const Settling& settling);
  std::optional<LeaseToken> Admit(const std::string& token, Settling& settling);
  bool AdmitEarlierEpoch(const LeaseToken& token, const std::string& text, Settling& settling);
  bool CountsFromEarlierEpoch(const LeaseToken& token) const;
  static void Fail(Settling& settling, const std::string& token, SettleError error, std::string_view detail);
  static void Fail(Settling& settling, const std::string& token, Dispatcher::Outcome outcome);
  void SettleAcks(const std::vector<std::string>& tokens, Settling& settling);
  void SettleNacks(const CheckedNacks& nacks, Settling& settling);
  void SettleExtensions(const CheckedExtensions& extensions, Settling& settling);

  // Constant after construction.
  EngineContext& context_;
  const std::string full_name_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  LogEntry entry_;
  std::shared_ptr<LogOwnership> ownership_;
  bool is_draining_ = false;
  bool is_closed_ = false;  // what is still on its way is of no use any more
  bool is_deleted_ = false;
  std::uint64_t reign_ = 0;       // counts the times that the log was taken: what began in an earlier one is void
  std::int64_t first_epoch_ = 0;  // of this reign; a new session begins another epoch of the same reign
  std::int64_t first_epoch_before_ = 0;  // of the reign before
  std::shared_ptr<LogAppender> appender_;
  std::shared_ptr<LogReader> reader_;
  std::shared_ptr<Cursor> cursor_;
  std::unique_ptr<Dispatcher> dispatcher_;
  const std::shared_ptr<IdWindow> window_;  // of request_ids and dedup_ids
  std::unique_ptr<QueueMetrics> metrics_;

  std::map<ConsumerId, Consumer> consumers_;  // ordered, so that a run follows from its seed
  std::deque<ConsumerId> turn_;               // those with demand; who is first is asked next
  ConsumerId last_consumer_ = 0;
  absl::flat_hash_map<Position, StreamLease> stream_leases_;
  std::deque<Loading> loading_;  // first attempts that wait for their batches or for the cursor, in order
  bool is_loading_ = false;

  Position followed_;                                // read so far
  bool has_reached_tail_ = false;                    // in this reign
  std::deque<Cursor::HandedOverLease> handed_over_;  // by position; their messages are not read yet
  absl::flat_hash_map<Position, Adopted> adopted_;   // in this reign; entries of ended leases stay, and say nothing
  absl::btree_map<Position, Announced> announced_;   // in this reign; their messages are not read yet
  std::optional<Instant> announced_until_;           // nothing is given out before, in this reign
  bool has_given_out_ = false;                       // anything, in this reign
  std::map<ObserverId, OwnerNews> observers_;
  ObserverId last_observer_ = 0;
  std::int64_t live_batches_ = 0;
  std::uint64_t first_segment_ = 0;  // oldest that exists
  bool is_removing_segments_ = false;
  Position settled_before_;           // everything before it is settled, durably
  std::deque<OwnBatch> unread_;       // in the log, and not followed yet
  std::int64_t unread_messages_ = 0;  // in them
  std::int64_t unread_bytes_ = 0;
  std::int64_t appending_messages_ = 0;  // given to the appender and not answered
  std::int64_t appending_bytes_ = 0;
  const std::shared_ptr<AppendRoom> room_;  // while another replica owns the log
  AppendRoom::Amount of_others_;            // read of their batches since the head was written for that
  bool is_writing_head_ = false;
  std::int64_t stored_bytes_counted_ = 0;  // what this queue adds to the context's sum
  RateMeter enqueued_;
  RateMeter settled_;
  std::unique_ptr<Timer> tick_;
  std::optional<Instant> tick_at_;
  std::optional<Instant> extend_at_;  // when the leases of streams with keep_leases are extended next
  Signal follow_progress_;

  // Copied for the scraper's thread by PublishGauges. It must not hold the engine, whose destructor waits for it.
  struct SharedGauges {
    absl::Mutex mutex;
    QueueGauges gauges ABSL_GUARDED_BY(mutex);
    std::optional<Instant> oldest ABSL_GUARDED_BY(mutex);
  };
  const std::shared_ptr<SharedGauges> gauges_ = std::make_shared<SharedGauges>();
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_QUEUE_ENGINE_H_
