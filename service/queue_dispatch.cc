// The part of QueueEngine that hands messages to consumers.
#include <algorithm>
#include <utility>

#include "service/logging.h"
#include "service/queue_engine.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// While nothing may or can be dispatched, it is tried again so often.
constexpr Duration kRetryPause = std::chrono::milliseconds(100);
// At most so many messages go to one consumer before the next one is asked.
constexpr std::int64_t kMessagesPerTurnMax = 1000;
// A waiting Dequeue looks after its call so often, in case a notification was lost with its engine.
constexpr Duration kWaitSliceMax = std::chrono::seconds(60);

}  // namespace

// ---- Who is asked

bool QueueEngine::HasDemand(const Consumer& consumer) const {
  return !consumer.is_stopped && consumer.credit.messages > 0 && consumer.credit.bytes > 0;
}

void QueueEngine::JoinTurn(Consumer& consumer) {
  if (consumer.is_in_turn || !HasDemand(consumer)) return;
  consumer.is_in_turn = true;
  turn_.push_back(consumer.id);
}

void QueueEngine::LeaveTurn(Consumer& consumer) {
  if (std::exchange(consumer.is_in_turn, false)) std::erase(turn_, consumer.id);
}

// False: it is not there. Nobody would ask those in the turn while the queue is empty, so it must not stay there.
bool QueueEngine::EraseConsumer(ConsumerId id) {
  auto found = consumers_.find(id);
  if (found == consumers_.end()) return false;
  LeaveTurn(found->second);
  consumers_.erase(found);
  PublishGauges();
  return true;
}

void QueueEngine::Dispatch() {
  if (!ownership_->is_held() || is_draining_) return PublishGauges();
  const Instant now = context_.environment.Now();
  dispatcher_->Advance(now);
  if (AwaitsAnnouncements()) {
    TickAt(*announced_until_);
    return PublishGauges();
  }
  while (dispatcher_->counts().ready > 0 && !turn_.empty()) {
    if (!context_.MayDispatch()) {
      TickAt(now + kRetryPause);
      return PublishGauges();
    }
    auto found = consumers_.find(turn_.front());
    if (found == consumers_.end() || !HasDemand(found->second)) {
      if (found != consumers_.end()) found->second.is_in_turn = false;
      turn_.pop_front();
      continue;
    }
    Consumer& consumer = found->second;
    // An equal share for each, so that a few messages spread over many workers.
    const auto sharers = static_cast<std::int64_t>(turn_.size());
    const std::int64_t share = std::max<std::int64_t>((dispatcher_->counts().ready + sharers - 1) / sharers, 1);
    Dispatcher::Demand demand;
    demand.messages_max = std::min({consumer.credit.messages, share, kMessagesPerTurnMax});
    demand.bytes_max = consumer.credit.bytes;
    demand.lease = consumer.lease;
    demand.holder = consumer.id;
    std::vector<Dispatcher::Grant> grants = dispatcher_->Take(demand, now);
    turn_.pop_front();
    consumer.is_in_turn = false;
    if (grants.empty()) break;
    Give(consumer, std::move(grants));
  }
  ScheduleTick();
  PublishGauges();
}

void QueueEngine::ScheduleTick() {
  if (const std::optional<Instant> next = dispatcher_->NextEvent()) TickAt(*next);
  if (extend_at_) TickAt(*extend_at_);
}

// At the latest.
void QueueEngine::TickAt(Instant time) {
  if (is_closed_ || (tick_at_ && *tick_at_ <= time)) return;
  tick_at_ = time;
  const Duration delay = std::max<Duration>(time - context_.environment.Now(), Duration::zero());
  tick_->Start(delay, [weak = weak_from_this()] {
    if (const std::shared_ptr<QueueEngine> self = weak.lock()) self->Tick();
  });
}

void QueueEngine::Tick() {
  tick_at_.reset();
  const Instant now = context_.environment.Now();
  if (extend_at_ && *extend_at_ <= now) KeepLeases(now);
  Dispatch();
}

// Extends the leases of streams that asked for it, well before they lapse.
void QueueEngine::KeepLeases(Instant now) {
  extend_at_.reset();
  for (auto& [id, consumer] : consumers_) {
    if (!consumer.keeps_leases) continue;
    dispatcher_->ExtendAll(id, consumer.lease, now);
    extend_at_ = std::min(extend_at_.value_or(Instant::max()), now + consumer.lease / 2);
  }
}

// ---- What they get

void QueueEngine::Give(Consumer& consumer, std::vector<Dispatcher::Grant> grants) {
  if (!std::exchange(has_given_out_, true)) ownership_->NoteGivenOut();
  const bool returns_credit = !consumer.is_one_shot && !consumer.is_credit_manual;
  std::int64_t first = 0;
  for (const Dispatcher::Grant& grant : grants) {
    consumer.credit.messages -= 1;
    consumer.credit.bytes -= grant.bytes;
    if (returns_credit) stream_leases_[grant.position] = {consumer.id, grant.number, grant.bytes};
    if (grant.attempt == 1) ++first;
  }
  metrics_->Delivered(first, static_cast<std::int64_t>(grants.size()) - first);
  if (consumer.keeps_leases) {
    const Instant half = context_.environment.Now() + consumer.lease / 2;
    extend_at_ = std::min(extend_at_.value_or(half), half);
  }
  const ConsumerId id = consumer.id;
  const Duration lease = consumer.lease;
  if (consumer.is_one_shot) {
    consumer.credit = {};
  } else {
    JoinTurn(consumer);
  }
  // First attempts keep the order of the log; the others are written to the cursor first, which takes a while, and
  // nothing waits for them. One answer holds all that a call gets.
  auto again =
      std::stable_partition(grants.begin(), grants.end(), [](const auto& grant) { return grant.attempt == 1; });
  if (again == grants.end() || (again != grants.begin() && consumer.is_one_shot)) {
    return GiveInOrder({reign_, id, std::move(grants), lease});
  }
  Loading loading{reign_, id, {}, lease};
  loading.grants.assign(std::make_move_iterator(again), std::make_move_iterator(grants.end()));
  grants.erase(again, grants.end());
  if (!grants.empty()) GiveInOrder({reign_, id, std::move(grants), lease});
  Spawn(strand_, GiveAgain(shared_from_this(), std::move(loading)));
}

// Once one delivery has to wait for its batch or for the cursor, those after it wait too.
void QueueEngine::GiveInOrder(Loading loading) {
  std::vector<Delivery> deliveries;
  const bool is_new =
      std::all_of(loading.grants.begin(), loading.grants.end(), [](const auto& grant) { return grant.number == 1; });
  if (is_new && !is_loading_ && LoadFromMemory(loading.grants, deliveries)) {
    return Hand(loading.consumer, std::move(deliveries), loading.lease);
  }
  loading_.push_back(std::move(loading));
  if (!is_loading_) {
    is_loading_ = true;
    Spawn(strand_, LoadInOrder(shared_from_this()));
  }
}

Task<void> QueueEngine::LoadInOrder(std::shared_ptr<QueueEngine> self) {
  (void)self;  // keeps this alive
  while (!loading_.empty() && loading_.front().reign == reign_) {
    Loading loading = loading_.front();
    absl::StatusOr<std::vector<Delivery>> deliveries = co_await Prepare(loading);
    if (loading.reign != reign_) continue;  // and what waited with it is forgotten
    loading_.pop_front();
    if (deliveries.ok()) {
      HandLate(loading, *std::move(deliveries));
      continue;
    }
    LogWarning("could not deliver messages", {{"queue", full_name_}, {"error", deliveries.status().message()}});
    // None may overtake another.
    std::deque<Loading> waiting = std::exchange(loading_, {});
    waiting.push_front(std::move(loading));
    for (const Loading& given : waiting) TakeBack(given);
  }
  is_loading_ = false;
}

Task<void> QueueEngine::GiveAgain(std::shared_ptr<QueueEngine> self, Loading loading) {
  (void)self;  // keeps this alive
  absl::StatusOr<std::vector<Delivery>> deliveries = co_await Prepare(loading);
  if (loading.reign != reign_) {
    ReturnManualCredit(loading);
  } else if (deliveries.ok()) {
    HandLate(loading, *std::move(deliveries));
  } else {
    LogWarning("could not deliver messages again", {{"queue", full_name_}, {"error", deliveries.status().message()}});
    TakeBack(loading);
  }
}

// After the wait their leases begin anew; what lapsed meanwhile and is somebody else's now is left out.
void QueueEngine::HandLate(const Loading& loading, std::vector<Delivery> deliveries) {
  const Instant now = context_.environment.Now();
  Loading left_out{.consumer = loading.consumer};
  std::erase_if(deliveries, [&](const Delivery& delivery) {
    const Dispatcher::Outcome outcome =
        dispatcher_->Extend(delivery.token.position, delivery.token.number, loading.lease, now);
    if (outcome != Dispatcher::Outcome::kStaleLease && outcome != Dispatcher::Outcome::kAlreadySettled) return false;
    for (const Dispatcher::Grant& grant : loading.grants) {
      if (grant.position == delivery.token.position) left_out.grants.push_back(grant);
    }
    return true;
  });
  ReturnManualCredit(left_out);
  Hand(loading.consumer, std::move(deliveries), loading.lease);
}

// What must be durable before the messages are sent, then the messages.
Task<absl::StatusOr<std::vector<Delivery>>> QueueEngine::Prepare(Loading loading) {
  std::vector<Cursor::Change> notes;
  for (const Dispatcher::Grant& grant : loading.grants) {
    const bool is_recorded = !IsMutated(Mutation::kUnrecordedNumber);
    if (grant.number >= 2 && is_recorded) notes.push_back(NotesFor(grant.position));
  }
  if (absl::Status status = co_await cursor_->WriteAndWait(std::move(notes)); !status.ok()) co_return status;
  if (loading.reign != reign_) co_return MakeError(Reason::kNoOwner, "the queue was lost");
  absl::StatusOr<std::vector<Delivery>> loaded = co_await Load(std::move(loading.grants));
  if (loaded.ok() && !context_.MayDispatch()) {
    co_return MakeError(Reason::kZookeeperUnavailable, "ZooKeeper was silent for too long");
  }
  co_return loaded;
}

Cursor::Change QueueEngine::NotesFor(Position position) const {
  const std::optional<Dispatcher::Notes> known = dispatcher_->NotesOf(position);
  SettledSet::Notes notes;
  if (known) {
    notes.number = known->number;
    notes.attempts = static_cast<std::uint32_t>(std::max(known->attempts, 0));
    if (known->due) {
      const Duration remaining = *known->due - context_.environment.Now();
      notes.due = context_.environment.WallNow() + std::chrono::ceil<std::chrono::milliseconds>(remaining);
    }
  }
  return {position, notes};
}

Delivery QueueEngine::MakeDelivery(const Dispatcher::Grant& grant, std::shared_ptr<const Batch> batch) const {
  return {.batch = std::move(batch),
          .index = grant.position.index(),
          .token = {entry_.uid, static_cast<std::uint64_t>(ownership_->held().epoch), grant.position, grant.number},
          .attempt = grant.attempt,
          .last_reason = grant.last_reason};
}

bool QueueEngine::LoadFromMemory(const std::vector<Dispatcher::Grant>& grants, std::vector<Delivery>& deliveries) {
  deliveries.reserve(grants.size());
  Position start;
  std::shared_ptr<const Batch> batch;
  for (const Dispatcher::Grant& grant : grants) {
    if (!batch || start != grant.position.BatchStart()) {
      start = grant.position.BatchStart();
      batch = context_.cache.Find(entry_.uid, start);
      if (!batch) return false;
    }
    deliveries.push_back(MakeDelivery(grant, batch));
  }
  return true;
}

Task<absl::StatusOr<std::vector<Delivery>>> QueueEngine::Load(std::vector<Dispatcher::Grant> grants) {
  std::vector<Delivery> deliveries;
  deliveries.reserve(grants.size());
  Position start;
  std::shared_ptr<const Batch> batch;
  for (const Dispatcher::Grant& grant : grants) {
    if (!batch || start != grant.position.BatchStart()) {
      start = grant.position.BatchStart();
      absl::StatusOr<LogReader::Step> step = co_await reader_->Read(start);
      if (!step.ok()) co_return step.status();
      if (step->kind != LogReader::Step::Kind::kBatch) {
        co_return MakeError(Reason::kStoreCorrupt, Cat("the batch at ", start.DebugString(), " is not there any more"),
                            {.path = context_.layout.Batch(entry_.uid, start)});
      }
      batch = step->batch;
    }
    deliveries.push_back(MakeDelivery(grant, batch));
  }
  co_return deliveries;
}

void QueueEngine::Hand(ConsumerId consumer, std::vector<Delivery> deliveries, Duration lease) {
  auto found = consumers_.find(consumer);
  if (found == consumers_.end()) {
    // It has gone in the meantime, and nobody has seen these: they are ready at once, uncounted.
    const Instant now = context_.environment.Now();
    for (const Delivery& delivery : deliveries) {
      ReturnCredit(delivery.token.position, delivery.token.number);
      dispatcher_->Release(delivery.token.position, delivery.token.number, now);
    }
    if (!deliveries.empty()) Dispatch();
    return;
  }
  if (deliveries.empty() && !found->second.is_one_shot) return;
  found->second.callbacks.on_deliveries(std::move(deliveries), lease);
}

// Nobody has seen these: as if they had not been given out. They are tried again after a pause.
void QueueEngine::TakeBack(const Loading& loading) {
  const Instant now = context_.environment.Now();
  for (const Dispatcher::Grant& grant : loading.grants) {
    ReturnCredit(grant.position, grant.number);
    dispatcher_->TakeBack(grant, now);
  }
  ReturnManualCredit(loading);
  Hand(loading.consumer, {}, loading.lease);
  TickAt(now + kRetryPause);
}

// Manual credit is spent by what is sent, and this was not.
void QueueEngine::ReturnManualCredit(const Loading& loading) {
  auto consumer = consumers_.find(loading.consumer);
  if (consumer == consumers_.end() || !consumer->second.is_credit_manual) return;
  for (const Dispatcher::Grant& grant : loading.grants) AddBack(loading.consumer, grant.bytes);
}

void QueueEngine::AddBack(ConsumerId id, std::int64_t bytes) {
  auto consumer = consumers_.find(id);
  if (consumer == consumers_.end()) return;
  CheckedCredit& credit = consumer->second.credit;
  credit.messages += 1;
  credit.bytes += bytes;
  // Given again while it was held, or announced: never more than a client may give. Manual credit is what it has given.
  if (!consumer->second.is_credit_manual) {
    credit.messages = std::min(credit.messages, kCreditMessagesMax);
    credit.bytes = std::min(credit.bytes, kCreditBytesMax);
  }
  JoinTurn(consumer->second);
}

void QueueEngine::ReturnCredit(Position position, std::uint32_t number) {
  auto lease = stream_leases_.find(position);
  if (lease == stream_leases_.end() || lease->second.number != number) return;
  AddBack(lease->second.consumer, lease->second.bytes);
  stream_leases_.erase(lease);
}

// ---- Streams

absl::StatusOr<QueueEngine::ConsumerId> QueueEngine::AddConsumer(const CheckedOpen& open, ConsumerCallbacks callbacks,
                                                                 const std::vector<HeldLease>& held) {
  if (static_cast<std::int64_t>(consumers_.size()) >= context_.limits.consumers_max) {
    return MakeError(Reason::kTooManyStreams, Cat("queue ", full_name_, " has ", consumers_.size(), " consumers"),
                     {.resource = full_name_, .limit = context_.limits.consumers_max});
  }
  const ConsumerId id = ++last_consumer_;
  Consumer& consumer = consumers_[id];
  consumer.id = id;
  consumer.callbacks = std::move(callbacks);
  consumer.credit = open.credit;
  consumer.is_credit_manual = open.is_credit_manual;
  consumer.keeps_leases = open.keeps_leases;
  consumer.lease = open.lease.value_or(std::get<QueueSettings>(entry_.settings).lease_duration);
  for (const HeldLease& lease : held) Announce(consumer, lease);
  JoinTurn(consumer);
  Dispatch();
  return id;
}

absl::Status QueueEngine::AddCredit(ConsumerId consumer, const CheckedCredit& credit) {
  auto found = consumers_.find(consumer);
  if (found == consumers_.end()) return absl::OkStatus();
  absl::StatusOr<CheckedCredit> sum = ::postkeeper::AddCredit(found->second.credit, credit);
  if (!sum.ok()) return sum.status();
  found->second.credit = *sum;
  JoinTurn(found->second);
  Dispatch();
  return absl::OkStatus();
}

CheckedCredit QueueEngine::CreditOf(ConsumerId consumer) const {
  auto found = consumers_.find(consumer);
  return found == consumers_.end() ? CheckedCredit{} : found->second.credit;
}

void QueueEngine::StopConsumer(ConsumerId consumer) {
  auto found = consumers_.find(consumer);
  if (found == consumers_.end()) return;
  found->second.is_stopped = true;
  LeaveTurn(found->second);
}

void QueueEngine::RemoveConsumer(ConsumerId consumer, bool releases) {
  if (!EraseConsumer(consumer)) return;
  // Once the log is read, what it has announced is nowhere in it.
  if (releases || has_reached_tail_) {
    absl::erase_if(announced_, [consumer](const auto& entry) { return entry.second.consumer == consumer; });
  }
  if (releases) {
    for (const Dispatcher::Grant& lease : dispatcher_->LeasesOf(consumer)) stream_leases_.erase(lease.position);
    dispatcher_->ReleaseAll(consumer, context_.environment.Now());
  }
  Dispatch();
}

// ---- Calls

void QueueEngine::CallHandle::Cancel() {
  std::function<void()> on_cancel;
  {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
    on_cancel = std::move(on_cancel_);
  }
  if (on_cancel) on_cancel();
}

Task<absl::StatusOr<QueueEngine::Dequeued>> QueueEngine::Dequeue(CheckedDequeue request,
                                                                 std::shared_ptr<CallHandle> call) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  Instant deadline = context_.environment.Now() + request.wait;
  Dequeued answer;
  if (absl::Status status = co_await WaitUntilServing(std::max<Duration>(request.wait, std::chrono::seconds(2)));
      !status.ok()) {
    co_return status;
  }
  if (!request.ack_tokens.empty()) {
    SettleOrders acks;
    acks.ack_tokens = std::move(request.ack_tokens);
    absl::StatusOr<std::vector<SettleFailure>> failures = co_await Settle(std::move(acks));
    if (!failures.ok()) co_return failures.status();
    answer.failures = *std::move(failures);
  }
  if (request.wait == Duration::zero() && dispatcher_->counts().ready == 0) {
    // "Nothing there" must be true of what was enqueued just before.
    if (absl::Status status = co_await WaitUntilCaughtUp(); !status.ok()) co_return status;
  }
  if (is_draining_) co_return MakeError(Reason::kReplicaDraining, "this replica is shutting down");
  // What is ready is not called "nothing" because it may not be given out yet.
  if (AwaitsAnnouncements()) deadline = std::max(deadline, *announced_until_ + kRetryPause);
  if (static_cast<std::int64_t>(consumers_.size()) >= context_.limits.consumers_max) {
    co_return MakeError(Reason::kTooManyCalls, Cat("queue ", full_name_, " has ", consumers_.size(), " consumers"),
                        {.resource = full_name_, .limit = context_.limits.consumers_max});
  }

  struct Waiting {
    Waiting(Environment& environment, asio::any_io_executor strand) : signal(environment, std::move(strand)) {}
    Signal signal;
    bool is_answered = false;
    std::vector<Delivery> deliveries;
    absl::Status end;
  };
  const auto waiting = std::make_shared<Waiting>(context_.environment, strand_);
  const ConsumerId id = ++last_consumer_;
  Consumer& consumer = consumers_[id];
  consumer.id = id;
  consumer.is_one_shot = true;
  consumer.credit = {request.messages_max, request.bytes_max};
  consumer.lease = request.lease.value_or(std::get<QueueSettings>(entry_.settings).lease_duration);
  answer.lease = consumer.lease;
  consumer.callbacks.on_deliveries = [waiting](std::vector<Delivery> deliveries, Duration) {
    if (std::exchange(waiting->is_answered, true)) return;
    waiting->deliveries = std::move(deliveries);
    waiting->signal.Notify();
  };
  consumer.callbacks.on_end = [waiting](absl::Status why) {
    waiting->end = std::move(why);
    waiting->signal.Notify();
  };
  {
    absl::MutexLock lock(&call->mutex_);
    call->on_cancel_ = [waiting, strand = strand_] { asio::post(strand, [waiting] { waiting->signal.Notify(); }); };
  }
  JoinTurn(consumer);
  Dispatch();
  while (!waiting->is_answered && waiting->end.ok()) {
    auto found = consumers_.find(id);
    const bool is_given =
        found != consumers_.end() && found->second.credit.messages == 0;  // its messages are on the way
    const Instant now = context_.environment.Now();
    if (!is_given && (call->is_cancelled() || now >= deadline)) break;
    co_await waiting->signal.WaitFor(is_given ? kWaitSliceMax : std::min<Duration>(deadline - now, kWaitSliceMax));
  }
  EraseConsumer(id);
  if (call->is_cancelled()) {
    const Instant now = context_.environment.Now();
    for (const Delivery& delivery : waiting->deliveries) {
      dispatcher_->Release(delivery.token.position, delivery.token.number, now);
    }
    Dispatch();
    co_return MakeError(Reason::kCallCancelled, "the call was cancelled");
  }
  if (!waiting->end.ok() && waiting->deliveries.empty()) co_return waiting->end;
  answer.deliveries = std::move(waiting->deliveries);
  co_return answer;
}

}  // namespace postkeeper
