#include "zkstore/log_appender.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/owner.h"

namespace postkeeper {
namespace {

// Between attempts of the slow path while ZooKeeper refuses or does not answer.
constexpr Duration kRetryPause = std::chrono::milliseconds(50);

// Batches below this part of the largest are small; so many may be on their way when one more is sent.
constexpr std::size_t kSmallBatchPart = 8;
constexpr int kSmallInFlightMax = 2;

// Places of the operations in the multi of an append.
constexpr std::size_t kProducerOp = 0;

std::string ProducerData(storage::v1::ProducerRecord::LastWrite last_write) {
  storage::v1::ProducerRecord record;
  record.set_last_write(last_write);
  return record.SerializeAsString();
}

// The place of the operation that failed in a multi that was refused; nullopt if no single operation did.
std::optional<std::size_t> FailedOp(const zk::Response& reply) {
  for (std::size_t i = 0; i < reply.results.size(); ++i) {
    const zk::Code code = reply.results[i].code;
    if (code != zk::Code::kOk && code != zk::Code::kRolledBack && code != zk::Code::kRuntimeInconsistency) return i;
  }
  return std::nullopt;
}

}  // namespace

std::string Appended::MessageId(std::uint32_t i) const {
  Writer from = writer;
  std::uint32_t index = first_index + i;
  if (duplicates) {
    const auto found =
        std::lower_bound(duplicates->begin(), duplicates->end(), i,
                         [](const Duplicate& duplicate, std::uint32_t at) { return duplicate.index < at; });
    if (found != duplicates->end() && found->index == i) {
      from = found->writer;
      index = found->message_index;
    } else {
      index -= static_cast<std::uint32_t>(found - duplicates->begin());
    }
  }
  return EncodeMessageId({from.process, from.generation, from.version, static_cast<std::uint16_t>(index)});
}

LogAppender::LogAppender(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log,
                         const ProcessId& process, std::function<std::uint32_t()> next_generation,
                         asio::any_io_executor strand, AppendOptions options, Listener listener)
    : environment_(environment),
      client_(client),
      layout_(layout),
      log_(log),
      process_(process),
      next_generation_(std::move(next_generation)),
      strand_(strand),
      options_(options),
      listener_(std::move(listener)),
      wake_(environment, strand),
      drained_(environment, strand),
      patience_timer_(environment.MakeTimer(strand)),
      idle_timer_(environment.MakeTimer(strand)) {}

LogAppender::~LogAppender() = default;

bool LogAppender::FitsInto(const Forming& forming, std::size_t bytes, int messages, bool is_long_delayed,
                           const std::optional<std::int32_t>& owner_version) const {
  return forming.builder.bytes() + bytes <= options_.batch_bytes_max &&
         forming.builder.size() + messages <= options_.batch_messages_max &&
         forming.is_long_delayed == is_long_delayed &&
         // A batch that is refused for its fence refuses no call without one, whose later ones would be written.
         owner_version == forming.owner_version;
}

void LogAppender::Append(std::vector<NewMessage> messages, std::string request_id,
                         std::optional<std::int32_t> owner_version, Done done, Duplicates duplicates) {
  if (is_gone_) return done(MakeError(Reason::kQueueNotFound, "it was deleted"));
  if (is_stopping_) return done(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
  std::size_t bytes = 0;
  bool is_long_delayed = false;
  bool has_id = !request_id.empty();
  const WallTime long_delayed_from =
      environment_.WallNow() + std::chrono::duration_cast<std::chrono::milliseconds>(options_.long_delay);
  for (const NewMessage& message : messages) {
    bytes += message.bytes.size() + Batch::kPerMessageBytes;
    is_long_delayed = is_long_delayed || message.due > long_delayed_from;
    has_id = has_id || message.dedup_id.has_value();
  }
  if (queued_bytes_ + bytes > options_.queued_bytes_max) {
    return done(MakeError(Reason::kTooManyCalls, "more is being appended to this log than ZooKeeper takes"));
  }
  const int count = static_cast<int>(messages.size());
  if (forming_.empty() || !FitsInto(forming_.back(), bytes, count, is_long_delayed, owner_version)) {
    forming_.emplace_back();
    forming_.back().is_long_delayed = is_long_delayed;
    forming_.back().owner_version = owner_version;
  }
  Forming& forming = forming_.back();
  const std::uint32_t first = forming.builder.Add(std::move(messages), request_id, duplicates);
  forming.waiters.push_back({std::move(done), first, static_cast<std::uint32_t>(count), std::move(duplicates), has_id});
  queued_bytes_ += bytes;
  if (++calls_open_ == 1) connected_at_ = environment_.Now();
  WatchPatience();
  if (!is_running_) {
    is_running_ = true;
    Spawn(strand_, Run(shared_from_this()));
    return;
  }
  SendWhatFits();
}

// ---- Forming and sending

void LogAppender::SendWhatFits() {
  if (!is_prepared_ || is_broken_ || must_seal_) return;
  int in_flight = 0;
  for (const std::shared_ptr<Frozen>& frozen : pipeline_) {
    if (frozen->stage == Stage::kInFlight) ++in_flight;
  }
  for (std::size_t i = 0; i < pipeline_.size() && in_flight < options_.in_flight_max; ++i) {
    if (pipeline_[i]->stage != Stage::kToSend) continue;
    Send(pipeline_[i]);
    ++in_flight;
  }
  while (!forming_.empty() && HasRoomFor(forming_.front(), in_flight)) {
    if (next_version_ >= options_.chain_versions_max) {
      if (pipeline_.empty()) MoveToNextGeneration();
      return;
    }
    Freeze();
    Send(pipeline_.back());
    ++in_flight;
  }
}

// A batch that is still small waits for company while others are on their way: each multi costs ZooKeeper the same.
bool LogAppender::HasRoomFor(const Forming& forming, int in_flight) const {
  const bool is_small = forming_.size() == 1 && forming.builder.bytes() < options_.batch_bytes_max / kSmallBatchPart;
  return in_flight < (is_small ? std::min(options_.in_flight_max, kSmallInFlightMax) : options_.in_flight_max);
}

void LogAppender::Freeze() {
  Forming forming = std::move(forming_.front());
  forming_.pop_front();
  auto frozen = std::make_shared<Frozen>();
  frozen->version = next_version_++;
  const Writer writer{
      .process = process_, .generation = generation_, .version = static_cast<std::uint32_t>(frozen->version)};
  queued_bytes_ -= std::min(queued_bytes_, forming.builder.message_bytes());
  BatchBuilder::Built built = std::move(forming.builder).Build(writer, environment_.WallNow());
  frozen->batch = std::move(built.batch);
  frozen->encoded = std::move(built.encoded);
  frozen->owner_version = forming.owner_version;
  frozen->waiters = std::move(forming.waiters);
  pipeline_.push_back(std::move(frozen));
}

void LogAppender::Send(const std::shared_ptr<Frozen>& frozen) {
  zk::Request request;
  request.kind = zk::Request::Kind::kMulti;
  request.ops.reserve(4);
  const std::int32_t version = IsMutated(Mutation::kSkipProducerVersion) ? zk::kAnyVersion : frozen->version;
  request.ops.push_back(zk::Op::Set(layout_.Producer(log_, process_, generation_),
                                    ProducerData(storage::v1::ProducerRecord::LAST_WRITE_BATCH), version));
  if (frozen->owner_version) request.ops.push_back(zk::Op::Check(layout_.Owner(log_), *frozen->owner_version));
  request.ops.push_back(zk::Op::Check(layout_.Segment(log_, segment_), kSegmentOpen));
  request.ops.push_back(
      zk::Op::Create(layout_.BatchPrefix(log_, segment_), frozen->encoded, zk::CreateMode::kPersistentSequential));
  frozen->stage = Stage::kInFlight;
  frozen->was_sent = true;
  client_.Submit(std::move(request), [self = shared_from_this(), frozen](zk::Response reply) {
    asio::post(self->strand_,
               [self, frozen, reply = std::move(reply)]() mutable { self->OnReply(frozen, std::move(reply)); });
  });
}

void LogAppender::OnReply(const std::shared_ptr<Frozen>& frozen, zk::Response reply) {
  frozen->stage = Stage::kAnswered;
  frozen->reply = std::move(reply);
  if (!zk::IsDefinite(frozen->reply.code)) frozen->has_unknown_copy = true;
  if (frozen->reply.code != zk::Code::kOk) is_broken_ = true;
  while (!pipeline_.empty() && pipeline_.front()->stage == Stage::kAnswered &&
         pipeline_.front()->reply.code == zk::Code::kOk) {
    const std::optional<std::uint32_t> number = Layout::ParseBatch(pipeline_.front()->reply.results.back().path);
    if (number && *number + 1 >= options_.segment_batches_max) must_seal_ = true;
    CompleteFront(number ? std::optional(Position(segment_, *number, 0)) : std::nullopt);
  }
  if (is_broken_ || must_seal_) {
    if (!HasInFlight()) WakeRun();
    return;
  }
  SendWhatFits();
  if (is_stopping_ && calls_open_ == 0) drained_.Notify();
  if (is_stop_overdue_ && pipeline_.empty()) WakeRun();  // nobody else does, and it has nothing more to do
}

void LogAppender::CompleteFront(std::optional<Position> position) {
  const std::shared_ptr<Frozen> frozen = pipeline_.front();
  pipeline_.pop_front();
  if (position && listener_.on_appended) {
    listener_.on_appended(*position, frozen->batch);
  } else if (!position && listener_.on_appended_somewhere) {
    listener_.on_appended_somewhere(frozen->batch);
  }
  FinishWaiters(*frozen, absl::OkStatus());
}

void LogAppender::FinishWaiters(Frozen& frozen, const absl::Status& failure) {
  std::vector<Waiter> waiters = std::move(frozen.waiters);
  frozen.waiters.clear();
  const Writer writer = frozen.batch->writer();
  for (Waiter& waiter : waiters) {
    if (!waiter.was_told) --calls_open_;
    if (failure.ok()) {
      Duplicates duplicates = PlacedAt(waiter.duplicates, writer, waiter.first_index);
      waiter.done(Appended{writer, waiter.first_index, waiter.count, std::move(duplicates)});
    } else {
      waiter.done(failure);
    }
  }
  if (is_stopping_ && calls_open_ == 0) drained_.Notify();
}

// The batch stays, and is sent again when ZooKeeper answers.
void LogAppender::TellUnknown(Frozen& frozen) {
  const Reason reason =
      IsMutated(Mutation::kUnknownIsRefused) ? Reason::kZookeeperUnavailable : Reason::kOutcomeUnknown;
  const absl::Status unknown = MakeError(reason, "ZooKeeper stopped answering after the messages were sent to it");
  std::vector<Waiter> waiters = std::move(frozen.waiters);
  frozen.waiters.clear();
  for (Waiter& waiter : waiters) {
    if (!waiter.was_told) {
      --calls_open_;
      waiter.was_told = true;
      waiter.done(unknown);
    }
    if (waiter.wants_fate) frozen.waiters.push_back(std::move(waiter));
  }
}

void LogAppender::FailForming(const absl::Status& failure) {
  std::deque<Forming> forming = std::move(forming_);
  forming_.clear();
  queued_bytes_ = 0;
  for (Forming& batch : forming) {
    calls_open_ -= static_cast<std::int64_t>(batch.waiters.size());
    for (Waiter& waiter : batch.waiters) waiter.done(failure);
  }
  if (is_stopping_ && calls_open_ == 0) drained_.Notify();
}

bool LogAppender::HasInFlight() const {
  for (const std::shared_ptr<Frozen>& frozen : pipeline_) {
    if (frozen->stage == Stage::kInFlight) return true;
  }
  return false;
}

// ---- Patience

void LogAppender::WatchPatience() {
  if (is_patience_running_) return;
  is_patience_running_ = true;
  patience_timer_->Start(options_.patience / 3, [self = weak_from_this()] {
    std::shared_ptr<LogAppender> appender = self.lock();
    if (!appender) return;
    appender->is_patience_running_ = false;
    if (appender->calls_open_ == 0) return;
    appender->GiveUpWaiting();
    appender->WatchPatience();
  });
}

// Called every third of the patience while calls are open.
void LogAppender::GiveUpWaiting() {
  const Instant now = environment_.Now();
  if (client_.session().state == zk::SessionState::kConnected) {
    connected_at_ = now;
    return;
  }
  if (now - connected_at_ < options_.patience * 2 / 3) return;
  const absl::Status unavailable = MakeError(Reason::kZookeeperUnavailable, "ZooKeeper does not answer");
  FailForming(unavailable);
  while (!pipeline_.empty() && !pipeline_.back()->was_sent) {
    FinishWaiters(*pipeline_.back(), unavailable);
    pipeline_.pop_back();
    --next_version_;
  }
  for (const std::shared_ptr<Frozen>& frozen : std::deque(pipeline_)) TellUnknown(*frozen);
}

// ---- The slow path

void LogAppender::WakeRun() { wake_.Notify(); }

Task<void> LogAppender::Run(std::shared_ptr<LogAppender> self) {
  (void)self;  // keeps this alive
  while (!is_gone_) {
    bool is_done = true;
    if (!is_prepared_) {
      is_done = co_await Prepare();
    } else if (is_broken_ && !HasInFlight()) {
      is_done = co_await Recover();
    } else if (must_seal_ && !HasInFlight()) {
      is_done = co_await Seal();
    } else if (is_idle_ && !is_stopping_ && calls_open_ == 0 && pipeline_.empty()) {
      co_await RemoveProducer();
      if (forming_.empty()) break;  // the next call begins anew
      continue;
    } else {
      if (is_stopping_ && calls_open_ == 0 && pipeline_.empty()) break;
      co_await wake_.Wait();
      continue;
    }
    if (!is_done && !is_gone_) {
      if (!co_await Pause()) break;
      continue;
    }
    if (!is_gone_) SendWhatFits();
  }
  is_running_ = false;
  drained_.Notify();
}

// Returns false when nothing waits for this appender any more and it is told to stop.
Task<bool> LogAppender::Pause() {
  co_await wake_.WaitFor(kRetryPause);
  co_return !(is_stopping_ && is_stop_overdue_);
}

Task<bool> LogAppender::Prepare() {
  if (!co_await FindSegment()) co_return false;
  if (generation_ == 0) generation_ = next_generation_();
  const zk::Response made = co_await client_.Create(layout_.Producer(log_, process_, generation_),
                                                    ProducerData(storage::v1::ProducerRecord::LAST_WRITE_UNSPECIFIED));
  // NODEEXISTS answers the repetition of a create whose reply was lost: nobody else makes this name.
  if (made.code != zk::Code::kOk && made.code != zk::Code::kNodeExists) co_return false;
  next_version_ = static_cast<std::int32_t>(pipeline_.size());  // there are none
  is_prepared_ = true;
  WatchIdleness();
  co_return true;
}

void LogAppender::WatchIdleness() {
  is_idle_ = false;
  idle_timer_->Start(options_.idle_after, [self = weak_from_this()] {
    const std::shared_ptr<LogAppender> appender = self.lock();
    if (!appender || !appender->is_prepared_ || appender->is_stopping_) return;
    const bool was_used = appender->calls_open_ > 0 || !appender->pipeline_.empty() ||
                          appender->environment_.Now() - appender->connected_at_ < appender->options_.idle_after;
    if (was_used) return appender->WatchIdleness();
    appender->is_idle_ = true;
    appender->WakeRun();
  });
}

// What comes meanwhile waits, and goes into the chain of the next generation; so it does not matter whether the answer
// is heard.
Task<void> LogAppender::RemoveProducer() {
  const std::uint32_t generation = std::exchange(generation_, 0);
  is_prepared_ = false;
  is_idle_ = false;
  if (listener_.on_idle) listener_.on_idle();
  co_await client_.Delete(layout_.Producer(log_, process_, generation), next_version_);
}

Task<bool> LogAppender::FindSegment() {
  const zk::Response children = co_await client_.Children(layout_.Segments(log_));
  if (children.code == zk::Code::kNoNode) {
    LogIsGone();
    co_return false;
  }
  if (children.code != zk::Code::kOk) co_return false;
  std::optional<std::uint64_t> last;
  for (const std::string& name : children.children) {
    const std::optional<std::uint64_t> number = Layout::ParseSegment(name);
    if (number && (!last || *number > *last)) last = number;
  }
  bool is_open = false;
  if (last) {
    const zk::Response stat = co_await client_.Exists(layout_.Segment(log_, *last));
    if (stat.code != zk::Code::kOk) co_return false;
    is_open = stat.stat.version == kSegmentOpen;
  }
  if (!is_open) {
    // None, or sealed without a successor: only Delete does that. (Or the successor is younger than the list: look
    // again.)
    const absl::StatusOr<OwnerView> owner = co_await ReadOwner(client_, layout_, log_);
    if (absl::IsNotFound(owner.status()) || (owner.ok() && owner->state == OwnerView::State::kDeleted)) LogIsGone();
    co_return false;
  }
  segment_ = *last;
  co_return true;
}

void LogAppender::LogIsGone() {
  is_gone_ = true;
  const absl::Status gone = MakeError(Reason::kQueueNotFound, "it was deleted");
  FailForming(gone);
  std::deque<std::shared_ptr<Frozen>> pipeline = std::move(pipeline_);
  pipeline_.clear();
  for (const std::shared_ptr<Frozen>& frozen : pipeline) {
    FinishWaiters(*frozen, frozen->has_unknown_copy ? MakeError(Reason::kOutcomeUnknown,
                                                                "it was deleted while the messages were on their way")
                                                    : gone);
  }
}

// All replies are there, and the front of the pipeline was not carried out for sure. Returns true when sending can go
// on, false to be called again after a pause.
Task<bool> LogAppender::Recover() {
  if (pipeline_.empty()) {
    is_broken_ = false;
    co_return true;
  }
  bool has_unknown = false;
  for (const std::shared_ptr<Frozen>& frozen : pipeline_) {
    if (frozen->stage == Stage::kAnswered && !zk::IsDefinite(frozen->reply.code)) has_unknown = true;
  }
  const std::shared_ptr<Frozen> front = pipeline_.front();
  const std::optional<std::size_t> failed_op = FailedOp(front->reply);
  const std::size_t segment_op = front->owner_version ? 2 : 1;
  if (has_unknown || !failed_op || *failed_op == kProducerOp) {
    // The producer's version says what is in. A chain that failed at its first operation, too: an earlier copy of the
    // front may have been carried out.
    if (front->reply.code == zk::Code::kTooLarge) {
      const absl::Status too_large = MakeError(Reason::kRequestTooLarge, "the batch is over ZooKeeper's request limit");
      co_return co_await BurnFront(too_large);
    }
    if (!co_await ReadProducer()) co_return false;
  } else if (*failed_op >= segment_op) {
    // Sealed, or deleted by the reader that has consumed it; or the create itself was refused.
    if (!co_await FindSegment()) co_return false;
    must_seal_ = false;
  } else {
    const absl::Status deposed = MakeError(Reason::kNoOwner, "the log changed its owner");
    co_return co_await BurnFront(deposed);
  }
  for (const std::shared_ptr<Frozen>& frozen : pipeline_) frozen->stage = Stage::kToSend;
  is_broken_ = false;
  co_return true;
}

Task<bool> LogAppender::ReadProducer() {
  if (IsMutated(Mutation::kResendUnread)) {
    MoveToNextGeneration();
    std::int32_t version = 0;
    for (const std::shared_ptr<Frozen>& frozen : pipeline_) frozen->version = version++;
    co_return true;
  }
  const zk::Response read = co_await client_.Get(layout_.Producer(log_, process_, generation_));
  if (read.code != zk::Code::kOk && read.code != zk::Code::kNoNode) co_return false;
  if (read.code == zk::Code::kNoNode || read.stat.version < pipeline_.front()->version) {
    // Swept, or deleted with the log: what was on its way can neither be found nor sent again under this name.
    if (!co_await FindSegment()) co_return false;
    std::deque<std::shared_ptr<Frozen>> pipeline = std::move(pipeline_);
    pipeline_.clear();
    for (const std::shared_ptr<Frozen>& frozen : pipeline) {
      FinishWaiters(*frozen,
                    MakeError(frozen->has_unknown_copy ? Reason::kOutcomeUnknown : Reason::kZookeeperUnavailable,
                              "the record of this replica's writes is gone from ZooKeeper"));
    }
    MoveToNextGeneration();
    co_return true;
  }
  while (!pipeline_.empty() && pipeline_.front()->version < read.stat.version) {
    const zk::Response& reply = pipeline_.front()->reply;
    std::optional<Position> position;
    if (pipeline_.front()->stage == Stage::kAnswered && reply.code == zk::Code::kOk) {
      const std::optional<std::uint32_t> number = Layout::ParseBatch(reply.results.back().path);
      if (number) position = Position(segment_, *number, 0);
    }
    CompleteFront(position);
  }
  co_return true;
}

// Uses up the version of the front batch, which is known not to be in, and gives the batch up.
Task<bool> LogAppender::BurnFront(absl::Status failure) {
  const std::shared_ptr<Frozen> front = pipeline_.front();
  const zk::Response burnt =
      co_await client_.Set(layout_.Producer(log_, process_, generation_),
                           ProducerData(storage::v1::ProducerRecord::LAST_WRITE_BURN), front->version);
  if (burnt.code == zk::Code::kBadVersion) {
    // Our own burn, its reply lost; or an earlier copy of the batch: the data says which.
    const zk::Response read = co_await client_.Get(layout_.Producer(log_, process_, generation_));
    if (read.code != zk::Code::kOk) co_return false;
    storage::v1::ProducerRecord record;
    if (!record.ParseFromString(read.data) || read.stat.version != front->version + 1 ||
        record.last_write() != storage::v1::ProducerRecord::LAST_WRITE_BURN) {
      co_return co_await ReadProducer();
    }
  } else if (burnt.code != zk::Code::kOk) {
    co_return false;
  }
  pipeline_.pop_front();
  FinishWaiters(*front, failure);
  for (const std::shared_ptr<Frozen>& frozen : pipeline_) frozen->stage = Stage::kToSend;
  is_broken_ = false;
  co_return true;
}

void LogAppender::MoveToNextGeneration() {
  generation_ = 0;
  is_prepared_ = false;
  WakeRun();
}

Task<bool> LogAppender::Seal() {
  std::vector<zk::Op> ops;
  ops.push_back(zk::Op::Set(layout_.Segment(log_, segment_), "", kSegmentOpen));
  ops.push_back(zk::Op::Create(layout_.BatchPrefix(log_, segment_), Batch::EncodeEndOfSegment(environment_.WallNow()),
                               zk::CreateMode::kPersistentSequential));
  ops.push_back(zk::Op::Create(layout_.Segment(log_, segment_ + 1), ""));
  const zk::Response sealed = co_await client_.Multi(std::move(ops));
  // BADVERSION: somebody else sealed it (or we did, and the reply was lost); either way there is a next one.
  const bool is_sealed = sealed.code == zk::Code::kOk || sealed.code == zk::Code::kBadVersion;
  if (!is_sealed && sealed.code != zk::Code::kNoNode) co_return false;
  if (!co_await FindSegment()) co_return false;
  must_seal_ = false;
  if (listener_.on_appended_somewhere) listener_.on_appended_somewhere(nullptr);
  co_return true;
}

Task<void> LogAppender::Stop(Duration timeout) {
  const std::shared_ptr<LogAppender> self = shared_from_this();
  is_stopping_ = true;
  idle_timer_->Cancel();
  const Instant deadline = environment_.Now() + timeout;
  while (is_running_ && (calls_open_ > 0 || !pipeline_.empty()) && environment_.Now() < deadline) {
    WakeRun();
    co_await drained_.WaitFor(std::min<Duration>(deadline - environment_.Now(), kRetryPause));
  }
  const bool is_resolved = pipeline_.empty() && is_prepared_;
  is_stop_overdue_ = true;
  WakeRun();
  FailForming(MakeError(Reason::kReplicaDraining, "this replica is shutting down"));
  for (const std::shared_ptr<Frozen>& frozen : std::deque(pipeline_)) {
    FinishWaiters(*frozen, MakeError(Reason::kOutcomeUnknown, "this replica stopped before ZooKeeper answered"));
  }
  if (is_resolved && !is_gone_) {
    co_await client_.Delete(layout_.Producer(log_, process_, generation_), next_version_);
  }
}

}  // namespace postkeeper
